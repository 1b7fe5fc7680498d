"""How likely a model finds clips: the density of their log-mel frames, by the probability flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor

from sciffusion.likelihood import Exact, Hutchinson
from sciffusion.likelihood import log_likelihood as flow_likelihood
from sciffusion.noise import sample_seeds

from .clip import Clip, require_clip

if TYPE_CHECKING:
    from .model import AudioModel

__all__ = ["Likelihood", "log_likelihood"]


@final
@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log-densities of clips, ``nats`` (n,), and how many numbers each has, ``dimensions`` (n,): frames times mels."""

    nats: Tensor
    dimensions: Tensor

    @property
    def bits_per_dim(self) -> Tensor:
        """The negative log-density per number, in bits, (n,)."""
        return -self.nats / (math.log(2) * self.dimensions)


def log_likelihood(
    model: AudioModel,
    clips: Sequence[Clip] | Clip,
    *,
    given: Mapping[str, object] | None = None,
    probes: int | None = 1,
    seed: int = 0,
    tolerance: float = 1e-3,
    high: float = 10.0,
) -> Likelihood:
    """The log-density of the log-mel frames of each clip, in natural units of the log-mels.

    It counts the frames inside a clip alone, so neither padding nor the other clips change it. Clips are made mono,
    resampled and scaled to a peak of 0.5 first; of these steps the density says nothing.

    Args:
        model: whose opinion is asked.
        clips: of any rate; one belongs in a list.
        given: what is known of them, attributes by name; what is not named is left open.
        probes: random directions that estimate the divergence, unbiased; None: exact, one product for each number.
        seed: of these directions, one stream for each clip.
        tolerance: of the integration, relative and absolute.
        high: the log-SNR at which data are taken up: what is measured is a density blurred by noise of deviation
            ``exp(-high / 2)`` standard deviations of the training data. Log-mels stop at a floor, where no density is
            finite without.

    Raises:
        ValueError: no clips, silent ones, attributes that the model does not know, and what the core refuses.
    """
    if isinstance(clips, Clip):
        raise ValueError("clips must be several, got one clip: give [clip]")
    if not len(clips):
        raise ValueError("clips holds none")
    for i, clip in enumerate(clips):
        require_clip(clip)
        if clip.mono().peak == 0:
            raise ValueError(f"clip {i} is silent: no model was trained on that")
    state = model.encode(clips)
    denoiser = model.guided(model.condition(given or {}, len(clips)), 1.0)
    nats = flow_likelihood(
        denoiser,
        state,
        divergence=Exact() if probes is None else Hutchinson(probes),
        seed=sample_seeds(seed, len(clips)),
        rtol=tolerance,
        atol=tolerance,
        high=high,
    ).cpu()
    frames = state.layout("mel").points(state["mel"]).cpu()
    # from the model's units to log-mels
    nats = nats - frames * float(model.standard.std.double().log().sum())
    return Likelihood(nats, frames * model.config.width)
