"""What a half of a scene tells by itself: which digit is seen, or which is heard and who says it.

The model of scenes has learnt what each half looks or sounds like alone, for every class of every attribute, and so it
tells them apart (:func:`~sciffusion.likelihood.log_posterior`), with the other half hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sciffusion.attributes import Attributes
from sciffusion.denoiser import Denoiser
from sciffusion.inverse import HiddenFields
from sciffusion.likelihood import log_posterior
from sciffusion.noise import Noise
from sciffusion.state import State

from .adapter import FIELDS

__all__ = ["chances", "inferred"]

FINEST = {"film": -2.0, "sound": 1.0}
"""The log-SNR at which a half is compared: at less noise, what the network gets wrong hides what classes differ by."""


def chances(
    denoiser: Denoiser,
    asked: Attributes,
    x: State,
    field: str,
    cond: Mapping[str, Tensor],
    name: str,
    seeds: Sequence[int],
) -> Tensor:
    """The log-probabilities of an attribute's classes, (B, classes), of what one field of B scenes tells.

    ``cond`` says what is known of the other attributes; ``seeds`` has one a scene.
    """
    alone = HiddenFields(denoiser, [k for k in FIELDS if k != field])
    told = {k: v.to(x[field].device) for k, v in cond.items()}
    conditions, high = asked.each(name, told), FINEST[field]
    return log_posterior(
        alone, x, conditions, seeds, draws=2, rounds=4, margin=12.0, low=-6.0, high=high
    )


def inferred(
    denoiser: Denoiser,
    asked: Attributes,
    x: State,
    field: str,
    given: Mapping[str, object],
    scale: float,
    seeds: Sequence[int],
) -> dict[str, Tensor]:
    """What is asked of B scenes of which one field is known: what is given, and what that field tells of the rest.

    An attribute that is not named is drawn from the model's law of it given the field, and given those before it,
    raised to the power ``scale``, as guidance does with the law of the other field.
    """
    cond = asked.condition(given, x.batch)
    noise = Noise(seeds)
    for name, classes in asked.sizes.items():
        u = noise.scalars(x.batch)
        if name not in given:
            log_p = scale * chances(denoiser, asked, x, field, cond, name, seeds)
            below = log_p.softmax(1).cumsum(1).cpu() <= u[:, None]
            cond[name] = below.sum(1).clamp(max=classes - 1)
    return cond
