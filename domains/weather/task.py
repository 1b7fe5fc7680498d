"""Training a model of gridded fields: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.harmonics import Harmonics
from sciffusion.noise import Noise
from sciffusion.process import Gaussian
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean, LinearSpace, SphereField, StudentT
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .adapter import GridNet, ModelConfig
from .axes import Axes
from .cases import Cases, Cut, Sampled
from .datasets.radar import decode_rain
from .fields import Fields
from .finetune import rollout_loss
from .frame import Frame, Mean
from .heads import Diffusion, Ensemble, Head, MeanField, SpectralScore
from .measure import few, measure, spread_of
from .sources import DATASETS, read, split

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DataConfig", "WeatherTask", "WeatherTraining", "head_of", "space_of"]


@final
@dataclass(frozen=True)
class DataConfig:
    """What to learn from.

    ``source`` is a data set that the project knows (``sciffusion data get`` fetches them), or a NetCDF file or Zarr
    store; ``path`` a local copy of the data set. ``train`` and ``valid`` are the first and the last time of either
    part, both included; known data sets have parts of their own. ``rows`` and ``columns`` keep a part of the map, from
    a first to before a last, counted from the north and the west. ``patch`` and ``stride`` cut it into pieces, of which
    only those count where a share ``active`` of the cells exceeds ``threshold``.
    """

    source: str = ""
    path: Path | None = None
    train: tuple[str, str] | None = None
    valid: tuple[str, str] | None = None
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    patch: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    active: float = 0.0
    threshold: float = 0.0

    @property
    def cut(self) -> Cut | None:
        """How maps are cut into patches; None for whole maps."""
        if self.patch is None:
            return None
        return Cut(self.patch, self.stride or self.patch, self.active, self.threshold)

    def load(self, part: Literal["train", "valid", "test"]) -> xr.Dataset | None:
        """A part of the data; None where there is none (other data than the known sets, without bounds).

        Raises ``ValueError`` if there is no source.
        """
        if not self.source:
            raise ValueError(
                "data.source is empty; name a data set or a file, or hand train a dataset of your own"
            )
        known = self.source in DATASETS
        ds = DATASETS[self.source](self.path)[0] if known else read(self.path or self.source)
        bounds = {"train": self.train, "valid": self.valid}.get(part)
        if bounds is not None:
            ds = ds.sel(time=slice(*bounds))
        elif known:
            ds = split(ds, f"{self.source}:{part}")
        elif part != "train":
            return None
        return self.cropped(decode_rain(ds) if "rain_code" in ds else ds)

    def cropped(self, ds: xr.Dataset) -> xr.Dataset:
        """The rows and columns that the settings keep."""
        if self.rows is None and self.columns is None:
            return ds
        axes = Axes.of(ds)
        rows = np.sort(axes.rows[slice(*self.rows) if self.rows else slice(None)])
        columns = axes.columns[slice(*self.columns) if self.columns else slice(None)]
        return ds.isel({axes.latitude: rows, axes.longitude: columns})


@final
@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised: a diffusion's times are logit-normal with ``time_mean`` and ``time_std``.

    Other heads are trained on ``rollout`` steps of their own forecasts, and an ensemble on a globe on the CRPS of its
    spherical harmonic coefficients, ``spectral`` times as heavy as that of its cells.
    """

    time_mean: float = 0.0
    time_std: float = 1.0
    rollout: int = 1
    spectral: float = 0.0


@final
@dataclass(frozen=True)
class WeatherTraining:
    """All settings of a training run: what a configuration file holds.

    ``mean`` is the file of a deterministic model, for ``base: model``; ``start`` that of a model like this one, from
    whose weights training starts.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    mean: Path | None = None
    start: Path | None = None


def space_of(config: ModelConfig, spectrum: Tensor | None, frame: Frame) -> LinearSpace:
    """The space of the residuals: which noise is added to them."""
    match config.noise:
        case "white":
            return Euclidean()
        case "student":
            return StudentT(config.nu)
        case "sphere" | "fitted":
            assert spectrum is not None
            if frame.grid is None or frame.grid.sphere is None:
                raise ValueError(
                    f"noise {config.noise!r} needs a global grid with a quadrature; use white or student"
                )
            return SphereField(_harmonics(frame), spectrum)


def _harmonics(frame: Frame) -> Harmonics:
    """Those that the settings name, or all that the grid has a quadrature for."""
    chosen = frame.config.harmonics(frame.grid)
    if chosen is not None:
        return chosen
    if frame.grid is None or frame.grid.sphere is None:
        raise ValueError("spherical harmonics need a global grid with a quadrature")
    sphere = frame.grid.sphere
    return Harmonics(sphere, min(sphere.degree, sphere.nlon - 1) // 2)


def spectrum_of(config: ModelConfig, frame: Frame, residuals: Tensor) -> Tensor | None:
    """The angular spectrum of the noise, whose variance at every point is 1; None where there is none to choose."""
    if config.noise not in ("sphere", "fitted"):
        return None
    if frame.grid is None or frame.grid.sphere is None:
        raise ValueError(
            f"noise {config.noise!r} needs a global grid with a quadrature; use white or student"
        )
    harmonics = _harmonics(frame)
    degrees = 2 * torch.arange(harmonics.lmax + 1) + 1.0
    flat = torch.full((harmonics.lmax + 1,), 1.0)
    if config.noise == "fitted":
        flat = SphereField.fit(residuals, harmonics).spectrum.float().mean(0)
        flat = flat.clamp(min=float(flat.max()) * 1e-6)
    return flat * 4 * torch.pi / (degrees * flat).sum()


def head_of(
    config: ModelConfig, frame: Frame, spectrum: Tensor | None, objective: ObjectiveConfig
) -> Head:
    """What the settings say is trained."""
    match config.head:
        case "diffusion":
            process = Gaussian(SCHEDULES[config.schedule], space_of(config, spectrum, frame))
            return Diffusion(process, objective.time_mean, objective.time_std)
        case "ensemble":
            return Ensemble(config.members, config.latent, config.noise_channels)
        case "mean":
            return MeanField()


Batch = tuple[Sampled, Tensor]
"""Encoded states, and the base of their targets."""


@final
class WeatherTask(Task[Batch]):
    """Learning to make the targets of a data set's cases.

    ``mean`` is the model of ``base: model``; ``start`` are the weights that training starts from.
    """

    def __init__(
        self,
        config: WeatherTraining,
        data: xr.Dataset,
        valid: xr.Dataset | None = None,
        mean: Mean | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.start = config, start
        model, steps = config.model, config.objective.rollout
        variables = model.variables or None
        self.frame, self.cases = measure(
            model, Fields.of(data, variables), config.data.cut, mean=mean
        )
        self.grid = self.frame.grid
        size = 4 * self.cases.state * (2 * len(model.targets) + len(model.inputs))
        chosen = few(len(self.cases), size, 256)
        states, base = self._batch(self.cases, chosen, torch.device("cpu"))
        r = self.frame.residual(states.targets, base, states.leads)
        self.spectrum = spectrum_of(model, self.frame, r)
        self.head = head_of(model, self.frame, self.spectrum, config.objective)
        if config.objective.spectral and isinstance(self.head, Ensemble):
            harmonics = _harmonics(self.frame)
            variances = SphereField.fit(r, harmonics).spectrum
            score = SpectralScore(config.objective.spectral, harmonics, variances)
            self.head = replace(self.head, spectral=score)
        if steps > 1:
            if model.leads:
                raise ValueError(
                    "a model of several leads is trained on one step: set objective.rollout to 1"
                )
            self.cases = Cases(self.cases.fields, self.frame, config.data.cut, rollout=steps)
        self.valid = None
        if valid is not None:
            fields = Fields.of(valid, variables)
            self.valid = Cases(fields, self.frame, config.data.cut, rollout=steps)

    def model(self) -> nn.Module:
        """The model before training."""
        module = self.head.module(net_of(self.frame))
        if self.start is not None:
            module.load_state_dict(dict(self.start))
        return module

    def order(self, config: TrainConfig) -> Order:
        """Every case once an epoch."""
        return Shuffled(len(self.cases), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The cases of these numbers."""
        return self._batch(self.cases, indices, device)

    def _batch(self, cases: Cases, indices: NDArray[np.int64], device: torch.device) -> Batch:
        found = cases.batch(indices)
        found = replace(found, inputs=found.inputs.to(device), targets=found.targets.to(device))
        return found, cases.base(self.frame, indices, found, self.grid)

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The loss of the head, with cells weighted by their area."""
        return StepLoss(self._loss(model, batch, Noise(key)))

    def _loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        x, base = batch
        weights = self.frame.weights(self.grid).to(base)
        if self.config.objective.rollout > 1:
            return rollout_loss(
                self.head, model, self.frame, x.inputs, x.targets, x.times, noise, weights
            )
        cond = self.frame.condition(x.inputs, x.times, self.grid, x.leads)
        r = self.frame.residual(x.targets, base, x.leads)
        return self.head.loss(model, r, cond, noise, weights)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of up to 256 cases of the validation data, always with the same noise."""
        if self.valid is None:
            return {}
        device = next(model.parameters()).device
        chosen = np.arange(0, len(self.valid), -(-len(self.valid) // 256))
        total = 0.0
        for k, part in enumerate(np.array_split(chosen, -(-len(chosen) // 32))):
            with torch.no_grad():
                loss = self._loss(model, self._batch(self.valid, part, device), Noise(key + k))
            total += float(loss) * len(part)
        return {"loss": total / len(chosen)}

    def unseen_frame(self) -> Frame:
        """The frame, with residuals from a model or a regression scaled to their spread in the validation data.

        Those of the data that the model or the regression was fitted to are too small.
        """
        if self.valid is None or self.config.model.base not in ("model", "ridge"):
            return self.frame
        seen, unseen = (spread_of(self.frame, c, self.grid) for c in (self.cases, self.valid))
        return replace(self.frame, spread=self.frame.spread * unseen / seen)

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "objective": c.objective}
        return {k: to_dict(v) for k, v in parts.items()} | {"cases": len(self.cases)}


def net_of(frame: Frame) -> GridNet:
    """The network of a frame."""
    statics = 0 if frame.statics is None else len(frame.statics)
    return frame.config.net(frame.grid, frame.names, statics)
