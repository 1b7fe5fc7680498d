"""How likely data are under a model, in nats."""

from sciffusion.likelihood.bound import nelbo
from sciffusion.likelihood.classify import log_posterior
from sciffusion.likelihood.divergence import Divergence, Exact, Hutchinson, HutchinsonPlusPlus
from sciffusion.likelihood.flow import log_likelihood
from sciffusion.likelihood.jump import jump_nelbo

__all__ = [
    "Divergence",
    "Exact",
    "Hutchinson",
    "HutchinsonPlusPlus",
    "jump_nelbo",
    "log_likelihood",
    "log_posterior",
    "nelbo",
]
