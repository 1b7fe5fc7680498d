"""How scenes plug into the core: a state of two fields, and the typed settings of a model.

A batch of scenes is a state of ``film`` (B, T, C, H, W) and ``sound`` (B, S, mels), pixels and log-mel spectra in units
of the training data's standard deviation. Either may be known, at time 0, or not there, at time 1
(:class:`~sciffusion.inverse.KnownFields`): what is seen when something is heard, what is heard when something is seen,
and both at once are laws of one model. All of them may also be asked for attributes, which digit it is and who says it:
a condition holds the number of a class for each, (B,), or the number of classes where it is left open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from sciffusion.attributes import Attributes
from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Dense
from sciffusion.process import Gaussian, Joint
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean
from sciffusion.state import State

from ..audio.mel import MelConfig
from .networks import FIELDS, PairConfig, SceneNet

__all__ = ["FIELDS", "ModelConfig", "pair"]


@final
@dataclass(frozen=True)
class ModelConfig:
    """A model of scenes: ``shape`` is frames, height and width of the film, at ``rate`` frames a second.

    The sound is seen as log-mel spectra and lasts as long as the film. ``target`` is what the network puts out: the
    clean scene (x0), or the preconditioned v. ``attributes`` names labels of the voices that scenes may be asked by;
    ``classes`` are the values of each, in order (empty: found in the training data).
    """

    channels: int = 1
    shape: tuple[int, int, int] = (16, 32, 32)
    rate: float = 8.0
    mel: MelConfig = MelConfig(hop=128)
    network: PairConfig = PairConfig()
    schedule: Literal["rectified-flow", "cosine", "trig-flow", "edm"] = "rectified-flow"
    target: Literal["x0", "v"] = "x0"
    attributes: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        Attributes(self.attributes, self.classes)  # refuses what does not fit
        if min(self.shape) < 1 or not self.rate > 0:
            raise ValueError(f"shape and rate must be positive, got {self.shape} and {self.rate}")

    @property
    def spectra(self) -> int:
        """How many spectra a sound has: those of its seconds, completed to whole tokens of the network."""
        count, hops = (
            self.mel.frames(round(self.shape[0] / self.rate * self.mel.rate)),
            self.network.hops,
        )
        return -(-count // hops) * hops

    @property
    def samples(self) -> int:
        """How many samples these spectra are made of."""
        return self.spectra * self.mel.hop

    @property
    def asked(self) -> Attributes:
        """What scenes may be asked by."""
        return Attributes(self.attributes, self.classes)

    def process(self) -> Joint:
        """The forward process: both fields follow one schedule."""
        return Joint({k: Gaussian(SCHEDULES[self.schedule], Euclidean()) for k in FIELDS})

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; its fields have unit variance."""
        beat = self.rate * self.mel.hop / self.mel.rate
        net = SceneNet(self.network, self.channels, self.mel.mels, beat, self.asked.sizes)
        return Preconditioned(
            net, self.process(), target=self.target, sigma_data=dict.fromkeys(FIELDS, 1.0)
        )


def pair(film: Tensor, sound: Tensor) -> State:
    """The state of films (B, T, C, H, W) and sounds (B, S, mels)."""
    return State({"film": film, "sound": sound}, Dense(len(film)))
