"""A trained model of gridded fields: what it was measured and taught, one file, and the draw that every verb makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.grid import FlowTime, Karras
from sciffusion.noise import Noise
from sciffusion.samplers import Multistep, Sampler
from sciffusion.training import ModelFile, write_model

from .adapter import ModelConfig
from .frame import Frame
from .grid import Grid
from .heads import Head
from .task import ObjectiveConfig, WeatherTask, head_of, net_of

if TYPE_CHECKING:
    import pandas as pd

    from .assimilation import Assimilation
    from .extremes import Extremes
    from .observed import Report

__all__ = ["SamplingConfig", "WeatherModel"]

_Parts = dict[str, Mapping[str, Tensor]]


@final
@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled unless told otherwise; stored with it.

    A diffusion's multistep solver of ``order`` with noise ``eta`` (0: the deterministic flow) takes ``steps`` steps,
    evenly in flow time or on EDM's grid (``karras``). ``strength`` multiplies the noise that members start from, of an
    ensemble as of a diffusion: found on validation data, it mends a spread that is too small.
    """

    steps: int = 16
    order: int = 2
    eta: float = 0.0
    grid: Literal["flow", "karras"] = "flow"
    strength: float = 1.0

    def sampler(self, steps: int | None = None) -> Sampler:
        """The core's sampler, with another number of steps if wanted."""
        grid = FlowTime() if self.grid == "flow" else Karras()
        return Sampler(
            Multistep(self.order, self.eta), self.steps if steps is None else steps, grid
        )


@final
@dataclass(frozen=True, eq=False)
class WeatherModel:
    """Network, head and frame together: encoded states in, encoded states out.

    ``module`` is a :class:`~sciffusion.denoiser.Preconditioned` for a diffusion, which everything in the core takes.
    """

    frame: Frame
    head: Head
    module: nn.Module
    spectrum: Tensor | None = None
    sampling: SamplingConfig = SamplingConfig()
    info: Mapping[str, Any] | None = None

    @property
    def config(self) -> ModelConfig:
        """The settings."""
        return self.frame.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def fingerprint(self) -> str:
        """A short digest of all that decides what is made: settings, scales and weights."""
        parts, exact, meta = self._stored()
        digest = hashlib.sha256(json.dumps({k: v for k, v in meta.items() if k != "info"}).encode())
        tensors = {(p, k): v for p, held in (parts | exact).items() for k, v in held.items()}
        for name, tensor in sorted(tensors.items()):
            digest.update(".".join(name).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def draw(
        self,
        inputs: Tensor,
        times: NDArray[Any],
        grid: Grid | None,
        seeds: Sequence[int],
        sampler: Sampler | None = None,
        lead: int | None = None,
    ) -> Tensor:
        """Targets (B, T, C, H, W) from inputs (B, I, C, H, W), both encoded; row i draws from seed i alone.

        ``lead`` are the hours that targets are counted from, for a model of several leads.
        """
        inputs = inputs.to(self.device)
        base = self.frame.base(inputs, times, grid)
        leads = None if lead is None else np.full(len(times), lead)
        cond = self.frame.condition(inputs, times, grid, leads)
        like = base.flatten(1, 2)
        chosen, strength = sampler or self.sampling.sampler(), self.sampling.strength
        r = self.head.draw(self.module, like, cond, Noise(seeds), chosen, strength)
        return self.frame.targets(r, base, leads)

    def predict(self, inputs: Tensor, times: NDArray[Any], grid: Grid | None) -> Tensor:
        """The targets of a deterministic model, where a head of another kind draws one."""
        return self.draw(inputs, times, grid, [0] * len(times))

    def forecast(
        self,
        ds: xr.Dataset,
        steps: int,
        members: int = 1,
        *,
        seed: int = 0,
        times: ArrayLike | None = None,
        lead: int | None = None,
        out: str | Path | None = None,
        sampler: Sampler | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> xr.Dataset:
        """Ensemble forecasts: the model's targets become its next inputs.

        Member m from time t depends on ``seed``, m and t alone: not on the other members, times, nor ``batch_size``.

        Args:
            ds: states with the model's variables, units and grid (longitudes may begin elsewhere); lazily opened data
                are read where they are needed.
            steps: how often; a step moves on by the last target, and makes them all.
            members: of the ensemble.
            seed: of everything random.
            times: when forecasts start, (n,); None: at the last time of ``ds``.
            lead: hours of a step, for a model of several leads: one of them (None: the longest).
            out: a NetCDF file or Zarr store that steps are written to as they are made; they are not kept in memory. A
                forecast that was killed goes on from there when it is called again.
            sampler: any sampler of the core, instead of the model's own.
            batch_size: how many fields are made together.
            progress: show a bar on a terminal.

        Returns:
            Dimensions member, time (of the start), prediction_timedelta, and those of the data; ``valid_time`` beside.

        Raises:
            ValueError: the model does not forecast, or not at this lead; variables, units, grid or earlier inputs are
                not those that it needs; ``out`` holds another forecast.
        """
        from .verbs import forecast

        return forecast(
            self,
            ds,
            steps,
            members,
            seed=seed,
            times=times,
            lead=lead,
            out=out,
            sampler=sampler,
            batch_size=batch_size,
            progress=progress,
        )

    def downscale(
        self,
        ds: xr.Dataset,
        members: int = 1,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> xr.Dataset:
        """Fine fields for the coarse ones of ``ds``: means over boxes of ``coarse`` x ``coarse`` cells.

        A model of patches serves any grid; another its own alone. Returns member, time and the dimensions of ``ds``, on
        the fine grid. For the arguments and the rest see :meth:`forecast`.

        Raises:
            ValueError: the model does not downscale, or ``ds`` is not the coarse version of its grid.
        """
        from .verbs import downscale

        return downscale(
            self, ds, members, seed=seed, sampler=sampler, batch_size=batch_size, progress=progress
        )

    def interpolate_time(
        self,
        ds: xr.Dataset,
        members: int = 1,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> xr.Dataset:
        """States between those of ``ds``, for instance six-hourly ones from twelve-hourly ones.

        Returns member, time and the dimensions of ``ds``, with the given states at their times, the same for every
        member, and the generated ones between. For the arguments see :meth:`forecast`.

        Raises:
            ValueError: the targets of the model do not lie between its inputs.
        """
        from .verbs import interpolate_time

        return interpolate_time(
            self, ds, members, seed=seed, sampler=sampler, batch_size=batch_size, progress=progress
        )

    def sample(
        self,
        members: int,
        times: ArrayLike,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> xr.Dataset:
        """Weather out of nothing, as it could be at these times of the year, from a model without inputs.

        Returns member, time, latitude and longitude; a model of windows adds prediction_timedelta. For the arguments
        see :meth:`forecast`.

        Raises:
            ValueError: the model has inputs, or knows no grid.
        """
        from .verbs import sample

        return sample(
            self,
            members,
            times,
            seed=seed,
            sampler=sampler,
            batch_size=batch_size,
            progress=progress,
        )

    def assimilate(
        self,
        observations: pd.DataFrame | xr.Dataset | Sequence[Report] | ArrayLike,
        times: ArrayLike,
        *,
        operator: Literal["points", "coarse", "mask"]
        | Callable[[Mapping[str, Tensor]], Tensor] = "points",
        std: float | Mapping[str, float] | None = None,
        settings: Assimilation | None = None,
        seed: int = 0,
    ) -> xr.Dataset:
        """Complete fields at ``times`` as an ensemble, given observations of them: what a prior and they say together.

        Member i depends on ``seed`` and i alone. Trajectories longer than the windows that the prior was trained on are
        composed of overlapping windows.

        Args:
            observations: with ``points`` a table (time, lat, lon, variable, value, std) or dataset of stations, see
                :func:`.stations.read_stations`; with ``coarse`` fields on a grid of boxes; with ``mask`` fields with
                NaN where nothing was observed; with a function its values, one row; or reports made by hand.
            times: of the states, spaced as those of the prior's windows.
            operator: what the observations are of the fields. A function gets the channels by name, (B, K, H, W) each
                in physical units, and returns (B, ...).
            std: deviation of the observations' errors where they do not bring it: a number, or one for each variable.
            settings: method, sampler and number of members.
            seed: of everything random.

        Returns:
            Member, time, and the dimensions of the grid.

        Raises:
            ValueError: the model is no prior; observations outside the grid or the times, in other units, or without
                deviations.
        """
        from .analysis import analyse

        return analyse(
            self, observations, times, operator=operator, std=std, settings=settings, seed=seed
        )

    def extremes(
        self,
        functional: Callable[[Mapping[str, Tensor]], Tensor],
        time: Any,
        *,
        tilt: float | None = None,
        threshold: float | None = None,
        settings: Extremes | None = None,
        seed: int = 0,
    ) -> xr.Dataset:
        r"""Rare weather on purpose: members of the prior tilted by :math:`e^{\lambda f}`, and their weights back to it.

        Where plain samples never reach, these are plenty, and weights say how rare they are:
        ``Weighted.of(out).tail(c).return_period()`` (see :mod:`.extremes`).

        Args:
            functional: f, from the channels by name, each (B, H, W) in physical units ((B, K, H, W) of a prior of
                windows), to (B,); differentiable. The mean over a box, or a maximum softened by ``logsumexp``.
            time: the date whose season the prior is to know.
            tilt: :math:`\lambda`, per unit of f; negative towards small values.
            threshold: instead, the value of f that members are to lie around; 64 plain samples then suggest the tilt.
            settings: sampler, particles and replicas; there are as many members as both make.
            seed: of everything random.

        Returns:
            As :meth:`sample`, with ``value`` (f), ``weight`` and ``replica`` of each member as coordinates.

        Raises:
            ValueError: the model is no prior; tilt and threshold both given or both missing; no finite weights.
        """
        from .rare import extremes

        return extremes(
            self,
            functional,
            time,
            tilt=tilt,
            threshold=threshold,
            settings=settings,
            seed=seed,
        )

    def to(self, device: str | torch.device) -> WeatherModel:
        """The same on another device."""
        mean = self.frame.mean
        frame = (
            self.frame.to_mean(mean.to(device)) if isinstance(mean, WeatherModel) else self.frame
        )
        return replace(self, module=self.module.to(device), frame=frame)

    def save(self, path: str | Path) -> Path:
        """Write everything to one safetensors file, weights rounded to float16."""
        parts, exact, meta = self._stored()
        return write_model(path, "weather", meta, parts, exact)

    @classmethod
    def from_file(cls, path: str | Path) -> WeatherModel:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        return cls._restored(ModelFile.read(path, "weather", "a weather model"))

    @classmethod
    def _restored(cls, file: ModelFile) -> WeatherModel:
        config, meta = file.config(ModelConfig, "model"), file.meta
        names, units = tuple(meta["names"]), tuple(meta["units"])
        frame = Frame.restored(config, names, units, file.part("frame"))
        if meta["mean"] is not None:
            inner = ModelFile(file.path, meta["mean"], file.part("mean"))
            frame = frame.to_mean(cls._restored(inner))
        spectrum = file.tensors.get("spectrum")
        head = head_of(config, frame, spectrum, ObjectiveConfig())
        module = head.module(net_of(frame))
        module.load_state_dict(file.part("net"))
        sampling = file.config(SamplingConfig, "sampling")
        return cls(frame, head, module.eval(), spectrum, sampling, meta["info"])

    @classmethod
    def from_training(
        cls, task: WeatherTask, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None
    ) -> WeatherModel:
        """The model that a training task and its (averaged) weights make.

        On top of a deterministic model, residuals are scaled to the spread that they have in the validation data, which
        the deterministic model has not seen: those of its own training data are too small.
        """
        module = task.model()
        module.load_state_dict(dict(weights))
        return cls(task.unseen_frame(), task.head, module.eval(), task.spectrum, info=info)

    def _stored(self) -> tuple[_Parts, _Parts, dict[str, Any]]:
        """Weights and exact tensors by part, and the description; those of the mean model within ``mean``."""
        parts: _Parts = {"net": self.module.state_dict()}
        exact: _Parts = {"frame": self.frame.tensors()}
        if self.spectrum is not None:
            exact[""] = {"spectrum": self.spectrum}
        meta: dict[str, Any] = {
            "model": to_dict(self.config),
            "names": list(self.frame.names),
            "units": list(self.frame.units),
            "sampling": to_dict(self.sampling),
            "info": dict(self.info or {}),
            "mean": None,
        }
        if isinstance(self.frame.mean, WeatherModel):
            inner = self.frame.mean._stored()
            parts |= {f"mean.{k}".rstrip("."): v for k, v in inner[0].items()}
            exact |= {f"mean.{k}".rstrip("."): v for k, v in inner[1].items()}
            meta["mean"] = inner[2]
        return parts, exact, meta
