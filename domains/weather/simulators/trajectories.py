"""What the simulators share: starts that depend on the seed and their own number alone, steps, and a bar."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds

__all__ = ["GROUP", "groups", "runge_kutta", "starts"]

GROUP = 8
"""Trajectories that are integrated together. Always as many: a matrix product rounds otherwise when its shape changes,
and chaos makes every rounding a different weather."""


def starts(seed: int, numbers: range, like: Tensor) -> Tensor:
    """Standard normal numbers, (len(numbers), *like.shape): row i depends on ``seed`` and numbers[i] alone."""
    seeds = sample_seeds(seed, numbers.stop)[numbers.start :]
    x = like.expand(len(numbers), *like.shape)
    return Noise(seeds).normal(x, Dense(len(numbers)))


def groups(trajectories: int) -> list[range]:
    """The numbers of the trajectories in groups of :data:`GROUP`; the last has some more than asked for.

    Raises ``ValueError`` for fewer than one trajectory.
    """
    if trajectories < 1:
        raise ValueError(f"trajectories must be at least 1, got {trajectories}")
    return [range(first, first + GROUP) for first in range(0, trajectories, GROUP)]


def runge_kutta(rate: Callable[[Tensor], Tensor], x: Tensor, dt: float) -> Tensor:
    """One step of the classical method of fourth order for dx/dt = rate(x) (Kutta, 1901)."""
    k1 = rate(x)
    k2 = rate(x + k1 * (dt / 2))
    k3 = rate(x + k2 * (dt / 2))
    k4 = rate(x + k3 * dt)
    return x + (k1 + (k2 + k3) * 2 + k4) * (dt / 6)
