r"""Lorenz's model of 1996: a ring of n numbers that drift, decay and are driven, chaotic for F = 8.

.. math:: \dot x_i = (x_{i+1} - x_{i-2})\,x_{i-1} - x_i + F

The quadratic term conserves :math:`\sum x^2/2`. One unit of time is five days: errors double in about two of them.
Source: Lorenz, Predictability: a problem partly solved, ECMWF Seminar 1996; Lorenz & Emanuel, J. Atmos. Sci. 55, 1998.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.progress import track

from .trajectories import runge_kutta, starts

__all__ = ["DAYS", "Lorenz96", "simulate"]

DAYS = 5.0
"""Days in a unit of the model's time, by Lorenz's estimate from the growth of errors."""


@final
@dataclass(frozen=True)
class Lorenz96:
    """The model: ``size`` numbers, ``forcing`` F, Runge-Kutta steps of ``dt``.

    Raises ``ValueError`` for fewer than 4 numbers, or a step that is not positive.
    """

    size: int = 40
    forcing: float = 8.0
    dt: float = 0.05

    def __post_init__(self) -> None:
        if self.size < 4:
            raise ValueError(f"size must be at least 4, got {self.size}")
        if not self.dt > 0:
            raise ValueError(f"dt must be positive, got {self.dt}")

    def rate(self, x: Tensor) -> Tensor:
        """dx/dt, (..., size)."""
        return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + self.forcing

    def advance(self, x: Tensor) -> Tensor:
        """The state dt later, (..., size)."""
        return runge_kutta(self.rate, x, self.dt)

    def start(self, seed: int, numbers: range) -> Tensor:
        """States near the resting one, x = F: (len(numbers), size), float64; each depends on seed and number alone."""
        return self.forcing + starts(seed, numbers, torch.zeros(self.size, dtype=torch.float64))

    def trajectory(self, x: Tensor, steps: int, *, skip: int = 0, progress: bool = False) -> Tensor:
        """From the states (B, size), ``skip`` steps later on, ``steps`` states, (B, steps, size)."""
        states = []
        for step in track(range(skip + steps), "simulating", show=progress):
            if step:
                x = self.advance(x)
            if step >= skip:
                states.append(x)
        return torch.stack(states, 1)


def simulate(
    days: float,
    seed: int = 0,
    *,
    model: Lorenz96 | None = None,
    trajectories: int = 1,
    spin_up: float = 100.0,
    progress: bool = True,
) -> xr.Dataset:
    """Trajectories of the model, every step kept: ``x`` with dimensions trajectory, time (days) and site, float64.

    Trajectory i depends on ``seed`` and i alone, bit by bit. ``days`` is their length, ``spin_up`` is left out before.
    Raises ``ValueError`` for less than one step or trajectory.
    """
    model = Lorenz96() if model is None else model
    count, skip = int(days / DAYS / model.dt + 1e-9), math.ceil(spin_up / DAYS / model.dt)
    if count < 1:
        raise ValueError(f"days must be at least one step, {model.dt * DAYS:g}, got {days}")
    if trajectories < 1:
        raise ValueError(f"trajectories must be at least 1, got {trajectories}")
    x = model.start(seed, range(trajectories))
    x = model.trajectory(x, count, skip=skip, progress=progress)
    coords = {
        "trajectory": ("trajectory", np.arange(trajectories)),
        "time": ("time", np.arange(count) * model.dt * DAYS, {"units": "days", "axis": "T"}),
        "site": ("site", np.arange(model.size), {"long_name": "place on a circle of latitude"}),
    }
    about = {"units": "1", "long_name": "state of the Lorenz-96 model"}
    attributes = {"title": "Lorenz-96", "forcing": model.forcing, "dt": model.dt, "seed": seed}
    data = {"x": (("trajectory", "time", "site"), x.numpy(), about)}
    return xr.Dataset(data, coords, attributes)
