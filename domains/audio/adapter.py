"""How sound plugs into the core: what is noised, what it is conditioned on, and the typed settings of a model.

A batch of clips is a state of one field, ``mel`` (B, T, width): log-mel frames, or the latents of a codec, in units of
the training data's standard deviation, padded to the longest clip. What lies beyond the end of a clip belongs to no
sample: it is neither noised nor seen, and costs no loss. How long a clip is, the network is told twice, by the vector
that modulates its layers and by a token that its attention reads.

A condition is a mapping of tensors with a row for each clip:

* one entry for each attribute of the data (digit, speaker, pitch, ...): the number of its class, (B,), or the number
  of classes where the attribute is left open;
* ``text`` (B, L, D) and ``text_mask`` (B, L), for a model of texts: tokens, and which of them count; none of them where
  there is no text;
* ``reference`` (B, R), for a model of references: a vector of mean square 1 that tells a voice (:mod:`.reference`),
  zero where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from sciffusion.attributes import Attributes
from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Masked
from sciffusion.process import Gaussian, Joint
from sciffusion.sampling import SamplingConfig
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean
from sciffusion.state import State

from .codec import CodecConfig
from .frontend import Frontend, LatentConfig, SpectrumConfig
from .mel import MelConfig
from .networks import FramesConfig, MelNet, PatchesConfig, UNetConfig

__all__ = ["SAMPLING", "ModelConfig", "mel_state"]

SAMPLING = SamplingConfig(steps=14, shift=3.0, scale=1.5, high=0.0)
"""How a model of clips is sampled unless told otherwise: eleven of the fourteen steps are guided, 25 calls."""


@final
@dataclass(frozen=True)
class ModelConfig:
    """A model of clips: what it sees of them, its network, and what it is conditioned on.

    It sees log-mel frames unless there is ``latent``, the latents of a codec, or ``spectrum``, complex spectra.

    ``attributes`` names labels of the data that clips may be asked by; ``classes`` are the values of each, in order
    (empty: found in the training data). ``text`` is the width of the tokens of a text, ``reference`` that of the vector
    of a reference sound, for which ``data.reference`` must say which clips are alike; 0 for neither. A text is read
    as a whole, and all layers ``attend`` to its tokens, too, if there is more in it than attributes.
    """

    mel: MelConfig = MelConfig()
    network: FramesConfig | PatchesConfig | UNetConfig = FramesConfig()
    schedule: Literal["rectified-flow", "cosine", "trig-flow", "edm"] = "rectified-flow"
    attributes: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()
    text: int = 0
    reference: int = 0
    attend: bool = True
    latent: LatentConfig | None = None
    spectrum: SpectrumConfig | None = None

    def __post_init__(self) -> None:
        Attributes(self.attributes, self.classes)  # refuses what does not fit
        if self.latent is not None and self.spectrum is not None:
            raise ValueError("latent and spectrum are both given; a model sees one of them")
        taken = {"text", "text_mask", "reference"} & set(self.attributes)
        if taken:
            raise ValueError(f"attributes must not be called {sorted(taken)}: conditions are")

    @property
    def frontend(self) -> Frontend:
        """What makes frames of waveforms."""
        return self.spectrum or (self.mel if self.latent is None else self.latent.codec)

    @property
    def width(self) -> int:
        """The numbers of a frame."""
        match self.frontend:
            case MelConfig(mels=n) | CodecConfig(channels=n) | SpectrumConfig(width=n):
                return n

    @property
    def spectrogram(self) -> MelConfig:
        """The spectrogram that the model sees. Raises ``ValueError`` for a model that sees none."""
        if self.frontend is not self.mel:
            what = "complex spectra" if self.latent is None else "latents of a codec"
            raise ValueError(
                f"this needs a model of log-mel spectrograms, but the model works on {what}: it can sample, inpaint, "
                "extend, edit and interpolate"
            )
        return self.mel

    @property
    def asked(self) -> Attributes:
        """What samples may be asked by."""
        return Attributes(self.attributes, self.classes)

    def null(self) -> dict[str, float]:
        """The condition that says nothing, one number for each entry."""
        found: dict[str, float] = dict(self.asked.sizes)
        if self.text:
            found |= {"text": 0.0, "text_mask": 0.0}
        return found | ({"reference": 0.0} if self.reference else {})

    def process(self) -> Joint:
        """The forward process."""
        return Joint({"mel": Gaussian(SCHEDULES[self.schedule], Euclidean())})

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; its state has unit variance."""
        net = MelNet(
            self.network, self.width, self.asked.sizes, self.text, self.reference, self.attend
        )
        return Preconditioned(net, self.process(), sigma_data={"mel": 1.0})


def mel_state(frames: Sequence[Tensor]) -> State:
    """Clips (T_i, width) as one state, padded to the longest.

    Raises ``ValueError`` if there is no clip, or one without frames.
    """
    if not frames or min(len(f) for f in frames) < 1:
        raise ValueError("frames must hold one or more clips, each of at least one frame")
    x = nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    sizes = torch.tensor([len(f) for f in frames], device=x.device)
    mask = torch.arange(x.shape[1], device=x.device) < sizes[:, None]
    return State({"mel": x}, Masked(mask))
