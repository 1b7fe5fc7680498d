"""A model that makes images of a class as a classifier of images: no network but its own, and no training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sciffusion.likelihood import log_posterior
from sciffusion.noise import sample_seeds
from sciffusion.sampling import Given

from .container import Images

if TYPE_CHECKING:
    from .model import ImageModel

__all__ = ["classify"]


def classify(
    model: ImageModel,
    images: Images,
    *,
    given: Given | None = None,
    seed: int = 0,
    draws: int = 4,
    rounds: int = 4,
    high: float = 4.0,
) -> dict[str, NDArray[np.float64]]:
    """What the model tells of images: the probabilities of the classes of each attribute, (N, classes).

    A class is as probable as the denoiser explains the image well when told of it
    (:func:`~sciffusion.likelihood.log_posterior`); classes are in the order of ``model.config.asked.classes``.

    Args:
        model: one with attributes.
        images: of the kind that it was trained on.
        given: attributes that are known, by name, which are not told; all others are open while one is told.
        seed: of the noise that classes are compared with.
        draws: of the noise level and the noise in a round, for all classes the same.
        rounds: between which classes that lie far behind are given up.
        high: the log-SNR down to which the noise goes; beyond, what the network gets wrong weighs most.

    Raises ``ValueError`` for a model without attributes, and for what :meth:`ImageModel.sample` refuses.
    """
    x, asked = model.encode(images), model.config.asked
    cond, seeds = model.condition(given or {}, len(images)), sample_seeds(seed, len(images))
    names = [name for name in asked.names if name not in (given or {})]
    if not names:
        raise ValueError("there is no attribute to tell: this model knows none that is not given")
    out = {}
    for name in names:
        conditions = asked.each(name, cond)
        log_p = log_posterior(
            model.denoiser,
            x,
            conditions,
            seeds,
            draws=draws,
            rounds=rounds,
            margin=20.0,
            low=-6.0,
            high=high,
            batch_size=256,
        )
        out[name] = log_p.exp().cpu().numpy()
    return out
