r"""Kolmogorov flow: two-dimensional turbulence in a periodic box, driven by a sinusoidal shear.

The vorticity obeys

.. math:: \dot\omega = -u\cdot\nabla\omega + \nu\nabla^2\omega - \alpha\omega - k\cos(ky),\qquad
          u = (\partial_y\psi, -\partial_x\psi),\quad \nabla^2\psi = -\omega,

in a box of side 2 pi: the forcing is sin(ky) on the wind along x, 1 / nu the Reynolds number. Fourier's method with the
upper third of the wavenumbers cut, so that products do not alias; Runge-Kutta steps of fourth order in which viscosity
and drag are exact.
Source: Boffetta & Ecke, Annu. Rev. Fluid Mech. 44, 2012; the setting: Kochkov et al., PNAS 118, 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.progress import track

from .trajectories import groups, starts

__all__ = ["Kolmogorov", "simulate"]


@final
@dataclass(frozen=True, eq=False)
class Kolmogorov:
    """The flow on ``size`` x ``size`` points; a state is the vorticity's half spectrum, (..., size, size // 2 + 1).

    ``reynolds``: 1 / nu; ``wavenumber``: k; ``forcing``: the forcing's amplitude; ``drag``: alpha; ``dt``: the step.
    ``math.inf`` as ``reynolds`` is a flow without viscosity. Raises ``ValueError`` for fewer than 8 points, or a
    wavenumber beyond those resolved.
    """

    size: int = 64
    reynolds: float = 1000.0
    wavenumber: int = 4
    forcing: float = 1.0
    drag: float = 0.1
    dt: float = 0.02
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"size must be at least 8, got {self.size}")
        if not 1 <= self.wavenumber < self.size / 3:
            raise ValueError(
                f"wavenumber must lie in 1..{math.ceil(self.size / 3) - 1}, those that {self.size} points resolve, "
                f"got {self.wavenumber}"
            )
        if not self.dt > 0:
            raise ValueError(f"dt must be positive, got {self.dt}")

    @cached_property
    def _waves(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """kx, ky, the inverse of their squares' sum, and which are kept."""
        ky = torch.fft.fftfreq(self.size, 1 / self.size, dtype=self.dtype)[:, None]
        kx = torch.fft.rfftfreq(self.size, 1 / self.size, dtype=self.dtype)
        square = kx**2 + ky**2
        inverse = torch.where(square > 0, 1 / square.clamp(min=1), 0.0)
        keep = (kx.abs() < self.size / 3) & (ky.abs() < self.size / 3)
        return kx, ky, inverse, keep & (square > 0)

    @cached_property
    def _decay(self) -> Tensor:
        """By what viscosity and drag multiply the spectrum in half a step."""
        kx, ky, _, _ = self._waves
        rate = (kx**2 + ky**2).double() / self.reynolds + self.drag
        return torch.exp(-rate * self.dt / 2).to(self.dtype)

    @cached_property
    def _push(self) -> Tensor:
        y = torch.arange(self.size, dtype=torch.float64) * (2 * math.pi / self.size)
        k = self.wavenumber
        return self._spectrum((-self.forcing * k * torch.cos(k * y))[:, None].expand(-1, self.size))

    def _spectrum(self, field: Tensor) -> Tensor:
        return torch.fft.rfft2(field.to(self.dtype)) * self._waves[3]

    def _field(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(spectrum, s=(self.size, self.size))

    def _stirred(self, w: Tensor) -> Tensor:
        """What advection and forcing do to the spectrum, per unit of time."""
        kx, ky, inverse, keep = self._waves
        psi = w * inverse
        gradients = torch.stack([1j * ky * psi, -1j * kx * psi, 1j * kx * w, 1j * ky * w])
        u, v, along, across = self._field(gradients)
        return self._push - torch.fft.rfft2(u * along + v * across) * keep

    def state(self, vorticity: Tensor) -> Tensor:
        """The state of a field of vorticity, (..., size, size): rows are y, columns x."""
        return self._spectrum(vorticity)

    def advance(self, w: Tensor) -> Tensor:
        """The state dt later: fourth-order Runge-Kutta in the variable exp(decay t) w."""
        e, dt = self._decay, self.dt
        k1 = self._stirred(w)
        half = e * w
        k2 = self._stirred(half + e * k1 * (dt / 2))
        k3 = self._stirred(half + k2 * (dt / 2))
        k4 = self._stirred(e * (half + k3 * dt))
        return e * (half + (e * k1 + (k2 + k3) * 2) * (dt / 6)) + k4 * (dt / 6)

    def fields(self, w: Tensor) -> dict[str, Tensor]:
        """The velocities u and v along x and y, and the vorticity, (..., size, size)."""
        kx, ky, inverse, _ = self._waves
        psi = w * inverse
        u, v, vorticity = self._field(torch.stack([1j * ky * psi, -1j * kx * psi, w]))
        return {"u": u, "v": v, "vorticity": vorticity}

    def start(self, seed: int, numbers: range) -> Tensor:
        """States of large random eddies with winds of about 1, one a number; each depends on seed and number alone."""
        kx, ky, _, keep = self._waves
        like = torch.zeros(self.size, self.size, dtype=self.dtype)
        white = torch.fft.rfft2(starts(seed, numbers, like))
        k = (kx**2 + ky**2).sqrt()
        w = white * (k**3 * torch.exp(-((k / 4) ** 2)) * keep)
        fields = self.fields(w)
        speed = (fields["u"] ** 2 + fields["v"] ** 2).mean((-1, -2), keepdim=True).sqrt()
        return w / speed

    def dataset(self, w: Tensor, times: np.ndarray) -> xr.Dataset:
        """u, v and vorticity of states (trajectory, time, ...) with dimensions trajectory, time, y, x, float32.

        Raises ``ValueError`` for another number of times.
        """
        if w.shape[1:2] != times.shape:
            raise ValueError(f"times must be ({w.shape[1]},), one a state, got {times.shape}")
        side = np.arange(self.size) * (2 * math.pi / self.size)
        dims = ("trajectory", "time", "y", "x")
        words = {"u": "velocity along x", "v": "velocity along y", "vorticity": "vorticity"}
        fields = {name: value.float().numpy() for name, value in self.fields(w).items()}
        about = {name: {"units": "1", "long_name": words[name]} for name in words}
        coords = {
            "trajectory": np.arange(len(w)),
            "time": ("time", times, {"axis": "T"}),
            "y": ("y", side, {"units": "radian", "axis": "Y"}),
            "x": ("x", side, {"units": "radian", "axis": "X"}),
        }
        attributes = {
            "title": "Kolmogorov flow",
            "reynolds": self.reynolds,
            "wavenumber": self.wavenumber,
            "drag": self.drag,
        }
        data = {name: (dims, fields[name], about[name]) for name in words}
        return xr.Dataset(data, coords, attributes)


def simulate(
    frames: int,
    seed: int = 0,
    *,
    model: Kolmogorov | None = None,
    every: float = 0.2,
    trajectories: int = 1,
    spin_up: float = 40.0,
    progress: bool = True,
) -> xr.Dataset:
    """Trajectories of the flow, a frame ``every`` so many units of time, after ``spin_up`` of them.

    Trajectory i depends on ``seed`` and i alone, bit by bit on the same machine.

    Raises:
        ValueError: frames or trajectories below 1, or ``every`` not a multiple of the model's step.
    """
    model = Kolmogorov() if model is None else model
    stride = round(every / model.dt)
    if stride < 1 or abs(stride * model.dt - every) > 1e-9:
        raise ValueError(f"every must be a multiple of the step {model.dt:g}, got {every}")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    parts, found = groups(trajectories), []
    skip = math.ceil(spin_up / model.dt)
    steps = skip + (frames - 1) * stride
    bar = iter(track(range(len(parts) * steps), "simulating", show=progress))
    for numbers in parts:
        w, states = model.start(seed, numbers), []
        for step in range(steps + 1):
            if step:
                w = model.advance(w)
                next(bar)
            if step >= skip and (step - skip) % stride == 0:
                states.append(w)
        found.append(torch.stack(states, 1))
    next(bar, None)  # completes the bar
    out = model.dataset(torch.cat(found)[:trajectories], np.arange(frames) * every)
    out.attrs["seed"] = seed
    return out
