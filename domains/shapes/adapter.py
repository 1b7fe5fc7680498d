"""How shapes plug into the core: what is noised, what it is conditioned on, and the typed settings of a model.

A batch is a state with one field, ``points`` (B, N, 3), padded under a mask, in units of the training data's standard
deviation. It lives on the subspace of zero centre of mass, as its noise does: where a shape lies in space is nothing
that a model could learn. Chains have this noise, too, though that of a random walk would keep neighbours neighbours: in
the norm of a walk only the steps count, and where far parts of a chain lie is told at its last noise levels alone.

A condition is a mapping with one entry for each attribute of the data (``label``, or any other): the number of its
class, (B,), or the number of classes where the attribute is left open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from sciffusion.attributes import Attributes
from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Masked
from sciffusion.process import Gaussian, Joint
from sciffusion.sampling import SamplingConfig
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import ZeroCoM
from sciffusion.state import State

from .networks import SetTransformer, SetTransformerConfig

__all__ = ["SAMPLING", "ModelConfig", "shape_state"]

SAMPLING = SamplingConfig(steps=24, scale=1.0)
"""How a model of shapes is sampled unless told otherwise."""


@final
@dataclass(frozen=True)
class ModelConfig:
    """A model of shapes: its network, and what it is conditioned on.

    ``scale`` is the length that one unit of the network stands for (None: measured, the root mean square coordinate of
    the centred training data). ``bond`` is, in that unit, the root mean square coordinate of a step from a point to the
    next (None: measured); it counts where ``network.chain`` says that the points are chains. ``sizes`` are numbers of
    points that a sample may have, drawn evenly (empty: 101 quantiles of the training data). ``attributes`` names labels
    that shapes may be asked by; ``classes`` are the values of each, in order (empty: found in the training data).
    """

    network: SetTransformerConfig = SetTransformerConfig()
    schedule: Literal["rectified-flow", "cosine", "trig-flow"] = "rectified-flow"
    scale: float | None = None
    bond: float | None = None
    sizes: tuple[int, ...] = ()
    attributes: tuple[str, ...] = ("label",)
    classes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.bond is not None and self.bond <= 0:
            raise ValueError(f"bond must be positive, got {self.bond}")
        if self.sizes and min(self.sizes) < 2:
            raise ValueError(f"sizes must be at least 2 points, got {min(self.sizes)}")
        Attributes(self.attributes, self.classes)  # refuses what does not fit

    @property
    def asked(self) -> Attributes:
        """What samples may be asked by."""
        return Attributes(self.attributes, self.classes)

    def process(self) -> Joint:
        """The forward process."""
        return Joint({"points": Gaussian(SCHEDULES[self.schedule], ZeroCoM())})

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; what it noises has unit variance."""
        net = SetTransformer(self.network, self.asked.sizes, self.bond or 1.0)
        return Preconditioned(net, self.process(), sigma_data=1.0)


def shape_state(x: Tensor, mask: Tensor, device: str | torch.device = "cpu") -> State:
    """Padded points (B, N, 3) and their mask (B, N) as a state on a device, moved to a zero centre of mass."""
    layout = Masked(mask.to(device))
    return State({"points": ZeroCoM().project(x.to(device), layout)}, layout)
