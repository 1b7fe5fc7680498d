"""Everything that a run carries from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.ema import EMA

from .config import TrainConfig
from .distributed import World, like, whole
from .optim import Optimizer
from .task import Task


@final
@dataclass
class TrainState:
    """The model in training, its average, the optimizer and the number of steps done.

    ``stopped`` says why training ended before ``steps``; it is empty otherwise.
    """

    model: nn.Module
    optimizer: Optimizer
    ema: EMA | None
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
        optimizer = Optimizer(model, config.optimizer)
        if config.compile:
            model.compile()
        return cls(model, optimizer, ema)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Gather all tensors on the CPU, by the file that holds them (a call for all processes)."""
        files = {"model": {n: whole(t) for n, t in self.model.state_dict().items()}}
        if self.ema is not None:
            files["ema"] = {n: whole(t) for n, t in self.ema.state_dict().items()}
        return files | {"optimizer": self.optimizer.state_dict()}

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
        if self.ema is not None:
            averages = self.ema.state_dict()
            check_tensors(files["ema"], averages, "ema")
            self.ema.load_state_dict(
                {n: like(files["ema"][n], t) for n, t in averages.items()}, step
            )
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
