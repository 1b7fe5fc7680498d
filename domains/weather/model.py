"""A trained model of gridded fields: what it was measured and taught, one file, and the draw that every verb makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.described import described
from sciffusion.grid import FlowTime, Karras
from sciffusion.noise import Noise
from sciffusion.samplers import Multistep, Sampler
from sciffusion.training import ModelFile, write_model

from . import analysis, rare, verbs
from .adapter import ModelConfig
from .frame import Frame
from .grid import Grid
from .heads import Head
from .task import ObjectiveConfig, WeatherTask, head_of, net_of

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
@dataclass(frozen=True, eq=False, repr=False)
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

    forecast = verbs.forecast
    downscale = verbs.downscale
    interpolate_time = verbs.interpolate_time
    sample = verbs.sample
    assimilate = analysis.analyse
    extremes = rare.extremes

    def __repr__(self) -> str:
        return described(self, self.module)

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
