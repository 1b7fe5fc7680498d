"""What the trainings of all but the models of clips share: vocoders, codecs, judges, models of a missing band."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.training import Task, TrainConfig

from .clip import Clips
from .task import DataConfig

__all__ = ["PartTask", "PartTraining"]

Batch = TypeVar("Batch")
Net = TypeVar("Net", bound=nn.Module)
Made = TypeVar("Made", covariant=True)


class PartTraining(Protocol):
    """All settings of a training run, a dataclass; ``kind`` says of what."""

    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def train(self) -> TrainConfig: ...


class PartTask(Task[Batch], Generic[Batch, Net, Made]):
    """Learning a part from clips, each of which may begin anywhere whenever it is seen.

    Raises ``ValueError`` without a clip, and for several shifts.
    """

    config: PartTraining

    def __init__(self, config: PartTraining, clips: Clips) -> None:
        if not len(clips):
            raise ValueError("clips must hold at least one clip to learn from")
        if config.data.shifts != 1:
            raise ValueError(
                f"data.shifts must be 1 for a {config.kind}, whose clips begin anywhere, got {config.data.shifts}"
            )
        self.config, self.clips = config, len(clips)

    @abstractmethod
    def model(self) -> Net:
        """The untrained network."""

    @abstractmethod
    def part(self, net: Net, info: Mapping[str, Any]) -> Made:
        """What a trained network makes; ``info`` says where it comes from."""

    def finished(self, weights: Mapping[str, Tensor], info: Mapping[str, Any]) -> Made:
        """What (averaged) weights of the network make."""
        net = self.model()
        net.load_state_dict(dict(weights))
        net.eval()
        return self.part(net, info)

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        data = replace(c.data, path=None)
        own = {f.name: getattr(c, f.name) for f in fields(c) if f.name not in ("kind", "train")}  # type: ignore[arg-type]
        return {k: to_dict(v) for k, v in (own | {"data": data}).items()} | {"clips": self.clips}
