"""Everything that a run carries from step to step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.ema import EMA, Power

from .config import TrainConfig
from .distributed import World, like, whole
from .optim import Optimizer
from .task import Task


@final
@dataclass
class TrainState:
    """The model in training, its average, the optimizer and the number of steps done.

    ``tracked`` holds further averages by the names of their files, for :mod:`sciffusion.posthoc`.
    ``stopped`` says why training ended before ``steps``; it is empty otherwise.
    """

    model: nn.Module
    optimizer: Optimizer
    ema: EMA | None
    tracked: dict[str, EMA] = field(default_factory=dict)
    step: int = 0
    logged: list[float] = field(default_factory=list)
    stopped: str = ""

    @classmethod
    def start(cls, task: Task, config: TrainConfig, world: World) -> TrainState:
        """Build the state at step 0, the same on every process."""
        torch.manual_seed(config.seed)
        model = task.model().to(world.device).train()
        world.prepare(model)
        ema = EMA(model, config.ema) if config.ema is not None else None
        widths = config.posthoc.sigma_rels if config.posthoc is not None else ()
        tracked = {f"ema-{s:g}": EMA(model, Power(sigma_rel=s)) for s in widths}
        optimizer = Optimizer(model, config.optimizer)
        if config.compile:
            model.compile()
        return cls(model, optimizer, ema, tracked)

    def average(self) -> None:
        """Take the present weights into all averages."""
        for ema in self._averages().values():
            ema.update(self.model)

    def _averages(self) -> dict[str, EMA]:
        """All averages by the names of their files in a checkpoint."""
        return ({"ema": self.ema} if self.ema is not None else {}) | self.tracked

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Gather all tensors on the CPU, by the file that holds them (a call for all processes)."""
        files = {"model": {n: whole(t) for n, t in self.model.state_dict().items()}}
        for file, ema in self._averages().items():
            files[file] = {n: whole(t) for n, t in ema.state_dict().items()}
        return files | {"optimizer": self.optimizer.state_dict()}

    def weights(self) -> dict[str, Tensor]:
        """Gather the averaged weights on the CPU, or the plain ones of a run without (a call for all processes)."""
        source = self.model if self.ema is None else self.ema
        return {n: whole(t) for n, t in source.state_dict().items()}

    @property
    def first(self) -> bool:
        """Whether this process is the first of its run, which writes what all of them made."""
        return os.environ.get("RANK", "0") == "0"

    @torch.no_grad()
    def load(self, files: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Restore :meth:`tensors`.

        Raises:
            ValueError: naming the tensors that are missing, unknown or of another shape.
        """
        targets = self.model.state_dict()
        check_tensors(files["model"], targets, "model")
        for name, target in targets.items():
            target.copy_(like(files["model"][name], target))
        for file, ema in self._averages().items():
            averages = ema.state_dict()
            check_tensors(files[file], averages, file)
            ema.load_state_dict({n: like(files[file][n], t) for n, t in averages.items()}, step)
        self.optimizer.load_state_dict(files["optimizer"])
        self.step = step


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Compare names and shapes, and report every difference at once."""
    problems = [f"{n} is missing" for n in wanted if n not in found]
    problems += [f"{n} is not part of the model" for n in found if n not in wanted]
    problems += [
        f"{n} has shape {tuple(found[n].shape)}, the model needs {tuple(t.shape)}"
        for n, t in wanted.items()
        if n in found and found[n].shape != t.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:10])
        raise ValueError(
            f"the {what} weights do not fit this model ({len(problems)} problems):\n  {shown}"
        )
