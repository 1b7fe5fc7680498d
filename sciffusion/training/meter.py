"""Running means of what a step reports, kept on the device so that no step waits for them."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor

from .distributed import World
from .task import StepLoss


@final
class Meter:
    """Means over the steps since the last row, and the first step that was not finite.

    The sums belong to the checkpoint, so a run interrupted between two rows writes the same rows.
    """

    def __init__(self, world: World, totals: list[float]) -> None:
        self._world = world
        self._names: list[str] = []
        self._sums = torch.zeros(len(totals), dtype=torch.float64, device=world.device)
        if world.rank == 0:
            self._sums += torch.tensor(totals, dtype=torch.float64, device=world.device)
        self._loss = torch.zeros((), device=world.device)
        self._bad = torch.full((), math.inf, dtype=torch.float64, device=world.device)

    def add(self, loss: StepLoss, share: float) -> None:
        """Add one part of a step, which holds this share of the step's samples.

        Raises:
            ValueError: if the task reports other names than before.
        """
        names = ["loss", *loss.logs]
        if self._names and names != self._names:
            raise ValueError(
                f"StepLoss.logs must keep its keys: had {self._names[1:]}, got {names[1:]}"
            )
        self._names = names
        values = [torch.as_tensor(v).detach() for v in (loss.mean, *loss.logs.values())]
        if any(v.numel() != 1 for v in values):
            raise ValueError(f"the loss and each of its logs must be scalars: {names}")
        row = torch.stack([v.to(self._sums.device, torch.float64).reshape(()) for v in values])
        if not len(self._sums):
            self._sums = torch.zeros(len(names) + 2, dtype=torch.float64, device=self._sums.device)
        self._sums[2:] += row * share
        self._loss = row[0]

    def end_step(self, grad_norm: Tensor, step: int) -> None:
        """Close a step with the norm of its gradient before clipping."""
        whole = getattr(grad_norm, "full_tensor", lambda: grad_norm)().detach().double()
        self._sums[0] += 1.0 / self._world.size
        self._sums[1] += whole / self._world.size
        finite = whole.isfinite() & self._loss.isfinite()
        self._bad = torch.where(finite, self._bad, self._bad.clamp(max=step))

    def recent_loss(self) -> float:
        """Return this process's mean loss since the last row, for display."""
        return float(self._sums[2] / self._sums[0])

    def totals(self) -> list[float]:
        """Return the sums over all processes."""
        return [float(v) for v in self._world.sum(self._sums.clone())]

    def means(self) -> dict[str, float]:
        """Return the means over all processes and steps since the last call, and start anew."""
        steps, norm, *sums = self.totals()
        self._sums.zero_()
        return {n: s / steps for n, s in zip(self._names, sums, strict=True)} | {
            "grad_norm": norm / steps
        }

    def first_bad_step(self) -> int | None:
        """Return the first step whose loss or gradient was not finite on some process."""
        bad = self._bad.clone()
        if self._world.size > 1:
            dist.all_reduce(bad, op=dist.ReduceOp.MIN)
        return None if math.isinf(float(bad)) else int(bad)
