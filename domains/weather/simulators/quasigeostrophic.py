r"""A two-level quasi-geostrophic atmosphere on the sphere: jets, and weather that grows on them.

At 250 and 750 hPa (i = 1, 2) the potential vorticity is carried by the wind,

.. math:: \dot q_i = -J(\psi_i, q_i) \pm \frac{\Delta - \Delta^*}{\lambda^2\tau_r}
          - \delta_{i2}\frac{\nabla^2\psi_2}{\tau_e} - \nu\nabla^8 (q_i - \bar q_i), \qquad
          q_i = \nabla^2\psi_i + f \mp \frac{\Delta}{\lambda^2} + \delta_{i2}\frac{f h}{H}, \quad \Delta=\psi_1-\psi_2,

upper signs at the upper level. The shear :math:`\Delta` relaxes to that of a warm tropical belt,
with a jet at 39 degrees: the jet that follows is unstable, and sheds the eddies of which weather consists.
Ekman friction holds the lower level, two mountain ranges of height h break the symmetry in longitude. Galerkin's method
with spherical harmonics to degree 21 on a Gauss grid of 32 x 64, which integrates the Jacobian without alias; classical
Runge-Kutta steps. Lengths in radii of the Earth, times in days.
Source: Phillips, Tellus 6, 1954; on the sphere, with three levels: Marshall & Molteni, J. Atmos. Sci. 50, 1993.
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

from sciffusion.harmonics import Harmonics, SphereGrid
from sciffusion.progress import track

from .trajectories import groups, runge_kutta, starts

__all__ = ["LEVELS", "QuasiGeostrophic", "simulate"]

LEVELS = (250.0, 750.0)
"""Pressure of the two levels, hPa."""
RADIUS = 6.371e6
DAY = 86400.0
OMEGA = 7.292115e-5 * DAY
SPEED = RADIUS / DAY
"""Metres per second in a radius per day."""
GAS = 287.05
MEAN_TEMPERATURE = 255.0
"""The global mean of the layer's temperature, K: the equations leave it free."""
GAP = 30
"""Days left out between trajectories that follow each other on a time axis."""
_ATTRIBUTES = {
    "psi": ("m2 s-1", "atmosphere_horizontal_streamfunction", "streamfunction"),
    "u": ("m s-1", "eastward_wind", "eastward wind"),
    "v": ("m s-1", "northward_wind", "northward wind"),
    "t": ("K", "air_temperature", "temperature of the layer between the levels, by linear balance"),
}


@final
@dataclass(frozen=True, eq=False)
class QuasiGeostrophic:
    """The model and its numbers.

    The grid has (3 degree + 1) / 2 rows, rounded up to an even number, and twice as many columns. Raises ``ValueError``
    for a degree below 5, and times or a radius that are not positive.

    ``deformation``: the radius lambda, m. ``shear``: the greatest zonal wind of the shear that is relaxed to, m/s.
    ``relaxation``, ``friction``: tau_r and tau_e, days; ``diffusion``: days in which the smallest resolved scale
    decays; ``math.inf`` switches each off. ``mountains``: height, m, of a range at 45N 110W and of one at 35N 90E;
    ``depth``: H, m. ``degree``: the truncation. ``step``: days. ``dtype``: of the arithmetic.
    """

    deformation: float = 7.0e5
    shear: float = 45.0
    relaxation: float = 20.0
    friction: float = 2.0
    diffusion: float = 0.25
    mountains: float = 2500.0
    depth: float = 9000.0
    degree: int = 21
    step: float = 0.125
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.degree < 5:
            raise ValueError(f"degree must be at least 5, which the shear needs, got {self.degree}")
        for name in ("deformation", "relaxation", "friction", "diffusion", "depth", "step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @cached_property
    def harmonics(self) -> Harmonics:
        """The transform, on the smallest even grid that integrates products of three fields exactly."""
        rows = (3 * self.degree + 1) // 2
        rows += rows % 2
        return Harmonics(SphereGrid.gauss(rows, 2 * rows), self.degree, self.dtype)

    @cached_property
    def _laplace(self) -> Tensor:
        l = self.harmonics.degrees
        return -(l * (l + 1)).to(self.dtype)

    @cached_property
    def _coupling(self) -> float:
        return (RADIUS / self.deformation) ** 2

    @cached_property
    def _latitude(self) -> Tensor:
        return math.pi / 2 - self.harmonics.grid.colatitudes[:, None]

    @cached_property
    def orography(self) -> Tensor:
        """The height of the ground, m, (nlat, nlon), float64."""
        lon = torch.arange(self.harmonics.grid.nlon) * (2 * math.pi / self.harmonics.grid.nlon)
        total = torch.zeros(self.harmonics.grid.shape, dtype=torch.float64)
        for north, east, width, length in ((45, 250, 15, 12), (35, 90, 10, 20)):
            away = (lon - math.radians(east) + math.pi) % (2 * math.pi) - math.pi
            y = (self._latitude - math.radians(north)) / math.radians(width)
            x = away / math.radians(length)
            total += self.mountains * torch.exp(-(x**2 + y**2) / 2)
        return total

    @cached_property
    def _background(self) -> Tensor:
        """The potential vorticity of a resting atmosphere, (2, K)."""
        f = 2 * OMEGA * torch.sin(self._latitude).expand(self.harmonics.grid.shape)
        field = torch.stack([f, f * (1 + self.orography / self.depth)])
        return self._exactly(field)

    @cached_property
    def _target(self) -> Tensor:
        """The streamfunction of the shear that is relaxed to, (K,)."""
        # its wind is A sin^2 cos^3, at its greatest where sin^2 = 2/5
        amplitude = self.shear / SPEED / (0.4 * 0.6**1.5)
        s = torch.sin(self._latitude).expand(self.harmonics.grid.shape)
        return self._exactly(-amplitude * (s**3 / 3 - s**5 / 5))

    def _exactly(self, field: Tensor) -> Tensor:
        exact = Harmonics(self.harmonics.grid, self.degree)
        return exact.analysis(field).to(self.dtype)

    def streamfunction(self, q: Tensor) -> Tensor:
        """The coefficients of psi, (..., 2, K), that those of the potential vorticity, (..., 2, K), belong to."""
        own = q - self._background
        mean, half = own.sum(-2) / 2, (own[..., 0, :] - own[..., 1, :]) / 2
        laplace = self._laplace
        # the mean over the globe moves nothing
        mean = torch.where(laplace == 0, 0.0, mean / laplace.clamp(max=-1.0))
        half = torch.where(laplace == 0, 0.0, half / (laplace - 2 * self._coupling))
        return torch.stack([mean + half, mean - half], -2)

    def vorticity(self, psi: Tensor) -> Tensor:
        """The coefficients of the potential vorticity, (..., 2, K), of a streamfunction, (..., 2, K)."""
        stretch = self._coupling * (psi[..., 0, :] - psi[..., 1, :])
        own = psi * self._laplace + torch.stack([-stretch, stretch], -2)
        return own + self._background

    def rate(self, q: Tensor) -> Tensor:
        """The rate of change of potential vorticity, per day, (..., 2, K)."""
        psi = self.streamfunction(q)
        east, north = self.harmonics.gradient(torch.stack([psi, q], -3))
        carried = east[..., 0, :, :, :] * north[..., 1, :, :, :]
        carried = carried - north[..., 0, :, :, :] * east[..., 1, :, :, :]
        out = -self.harmonics.analysis(carried)
        excess = psi[..., 0, :] - psi[..., 1, :] - self._target
        warm = excess * (self._coupling / self.relaxation)
        drag = psi[..., 1, :] * (self._laplace / self.friction)
        damp = (self._laplace / (self.degree * (self.degree + 1))) ** 4 / self.diffusion
        return out + torch.stack([warm, -warm - drag], -2) - (q - self._background) * damp

    def advance(self, q: Tensor) -> Tensor:
        """The potential vorticity a ``step`` later."""
        return runge_kutta(self.rate, q, self.step)

    def start(self, seed: int, numbers: range) -> Tensor:
        """Potential vorticity at the relaxed shear, stirred a little, (len(numbers), 2, K)."""
        like = torch.zeros(2, len(self._laplace), dtype=self.dtype)
        stir = starts(seed, numbers, like) * (0.02 / (1 - self._laplace))
        psi = torch.stack([self._target, torch.zeros_like(self._target)])
        return self.vorticity(psi + stir)

    def energy(self, q: Tensor) -> Tensor:
        """Kinetic and available potential energy, mean over the sphere and sum over levels, m^2/s^2, (...)."""
        psi = self.streamfunction(q)
        kinetic = -(psi**2 * self._laplace).sum((-1, -2))
        stored = self._coupling * ((psi[..., 0, :] - psi[..., 1, :]) ** 2).sum(-1)
        return (kinetic + stored) * (SPEED**2 / (8 * math.pi))

    def enstrophy(self, q: Tensor) -> Tensor:
        """Half the squared potential vorticity, mean over the sphere, per day^2, (..., 2)."""
        return (q**2).sum(-1) / (8 * math.pi)

    def fields(self, q: Tensor) -> dict[str, Tensor]:
        """psi, m^2/s, and the winds u and v, m/s, (..., 2, nlat, nlon), and the layer's temperature t, K, from balance.

        The geopotential follows from linear balance, lap(Phi) = div(f grad psi), the temperature from the thickness.
        """
        psi = self.streamfunction(q)
        east, north = self.harmonics.gradient(psi)
        shear = psi[..., 0, :] - psi[..., 1, :]
        f = (2 * OMEGA * torch.sin(self._latitude)).to(self.dtype)
        beta = (2 * OMEGA * torch.cos(self._latitude)).to(self.dtype)
        source = f * self.harmonics.synthesis(shear * self._laplace)
        source = source + beta * (north[..., 0, :, :] - north[..., 1, :, :])
        thickness = self.harmonics.analysis(source) / self._laplace.clamp(max=-1.0)
        thickness = torch.where(self._laplace == 0, 0.0, thickness)
        kelvin = SPEED**2 / (GAS * math.log(LEVELS[1] / LEVELS[0]))
        return {
            "psi": self.harmonics.synthesis(psi) * (RADIUS * SPEED),
            "u": -north * SPEED,
            "v": east * SPEED,
            "t": MEAN_TEMPERATURE + self.harmonics.synthesis(thickness) * kelvin,
        }

    def dataset(self, q: Tensor, times: np.ndarray) -> xr.Dataset:
        """The weather of potential vorticity (n, 2, K) at ``times``, as :meth:`fields` names it, and the orography.

        Dimensions time, level (hPa), lat (from the north) and lon, float32, with CF names and units. Raises
        ``ValueError`` for another number of times.
        """
        if q.shape[:1] != times.shape:
            raise ValueError(f"times must be ({len(q)},), one a state, got {times.shape}")
        parts = [self.fields(part) for part in q.split(256)]
        lon = np.arange(self.harmonics.grid.nlon) * (360 / self.harmonics.grid.nlon)
        coords = {
            "time": ("time", times, {"standard_name": "time", "axis": "T"}),
            "level": (
                "level",
                np.array(LEVELS),
                {"units": "hPa", "standard_name": "air_pressure", "positive": "down", "axis": "Z"},
            ),
            "lat": (
                "lat",
                np.degrees(self._latitude[:, 0].numpy()),
                {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"},
            ),
            "lon": (
                "lon",
                lon,
                {"units": "degrees_east", "standard_name": "longitude", "axis": "X"},
            ),
        }
        variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}
        for name, (units, standard, words) in _ATTRIBUTES.items():
            values = np.concatenate([part[name].float().numpy() for part in parts])
            level = ("level",) if values.ndim == 4 else ()
            about = {"units": units, "standard_name": standard, "long_name": words}
            variables[name] = (("time", *level, "lat", "lon"), values, about)
        about = {"units": "m", "standard_name": "surface_altitude", "long_name": "orography"}
        variables["orography"] = (("lat", "lon"), self.orography.float().numpy(), about)
        attributes = {
            "title": "Weather of a two-level quasi-geostrophic atmosphere",
            "source": "sciffusion.domains.weather.simulators.quasigeostrophic",
            "Conventions": "CF-1.10",
            "synthetic": "true",
        }
        return xr.Dataset(variables, coords, attributes)


def simulate(
    days: float,
    seed: int = 0,
    *,
    model: QuasiGeostrophic | None = None,
    hours: float = 12.0,
    trajectories: int = 1,
    spin_up: float = 100.0,
    start: str = "2001-01-01",
    progress: bool = True,
) -> xr.Dataset:
    """Simulate weather and return it as a dataset that looks like a reanalysis.

    Trajectory i depends on ``seed`` and i alone, bit by bit on the same machine: not on how many there are. Several
    follow each other on the time axis, each 30 days after the end of the one before, so that no pair of neighbouring
    times spans two; the coordinate ``trajectory`` numbers them. Eight cost little more than one.

    Args:
        days: length of each trajectory.
        seed: of the starts.
        model: the model (None: :class:`QuasiGeostrophic` with its own numbers).
        hours: between the states that are kept; a multiple of the model's step.
        trajectories: how many.
        spin_up: days that are simulated first and left out.
        start: date of the first state.
        progress: show a bar on a terminal.

    Raises:
        ValueError: days, hours or trajectories not positive, or hours not a multiple of the model's step.
    """
    model = QuasiGeostrophic() if model is None else model
    every = round(hours / 24 / model.step)
    if every < 1 or abs(every * model.step * 24 - hours) > 1e-6:
        raise ValueError(
            f"hours must be a multiple of the step, {model.step * 24:g} hours, got {hours}"
        )
    count = int(days * 24 / hours)
    if count < 1:
        raise ValueError(
            f"days must be at least {hours / 24:g} for a state every {hours:g} hours, got {days}"
        )
    parts, members = groups(trajectories), list[Tensor]()
    skip = math.ceil(spin_up / model.step)
    total = len(parts) * (skip + (count - 1) * every)
    bar = iter(track(range(total), "simulating", show=progress))
    for numbers in parts:
        q = model.start(seed, numbers)
        states = []
        for step in range(skip + (count - 1) * every + 1):
            if step:
                q = model.advance(q)
                next(bar)
            if step >= skip and (step - skip) % every == 0:
                states.append(q)
        members += torch.stack(states, 1)[: trajectories - numbers.start].unbind(0)
    next(bar, None)  # completes the bar
    hour = np.timedelta64(round(hours * 3600), "s")
    first = np.datetime64(start, "ns")
    apart = np.timedelta64(math.ceil(days) + GAP, "D")
    times = [first + i * apart + np.arange(count) * hour for i in range(trajectories)]
    out = model.dataset(torch.cat(members), np.concatenate(times))
    out.attrs["seed"] = seed
    label = np.repeat(np.arange(trajectories), count)
    return out.assign_coords(trajectory=("time", label, {"long_name": "number of the trajectory"}))
