r"""How a model was trained, as one of their schedulers tells it.

Their schedulers mix three things. What the network was trained on, a noise schedule, a prediction type and a clock of
integer steps, is read here; the grid and the solver are read in :mod:`~sciffusion.interop.diffusers.sampling`.

The clock: for a table of N discrete levels, their step k = 0..N-1 is our time (k + 1)/N, so that t = 0 is clean data
beyond their last level. For flows it is their sigma, step N t. EDM has no steps: sigma is :math:`\sigma_{max} t`, and
what the network is told is a function of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from sciffusion.errors import did_you_mean, require
from sciffusion.process import Gaussian, Target
from sciffusion.samplers.exponential import PURE_NOISE
from sciffusion.schedule import VE, RectifiedFlow, Schedule, Tabulated, VariancePreserving

__all__ = ["EDM", "Training", "config_of", "table_of"]

_TARGETS: dict[str, Target] = {
    "epsilon": "eps",
    "sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "flow",
}


@final
@dataclass(frozen=True)
class EDM:
    r"""How a network is called under EDM's preconditioning (Karras et al., 2022).

    It is shown the field at unit variance and returns ``sign`` times the v of that. Of the noise level it is told
    :math:`\tfrac14\log\sigma`, or as an ``"angle"`` :math:`\tfrac2\pi\arctan\sigma` (Stable Audio).
    """

    sigma_data: float
    sign: int = 1
    told: Literal["log", "angle"] = "log"

    def tell(self, sigma: Tensor) -> Tensor:
        """What the network is told of a noise level."""
        if self.told == "angle":
            return 2 / math.pi * sigma.atan()
        return 0.25 * sigma.clamp(min=1e-12).log()

    def sigma(self, told: Tensor) -> Tensor:
        """The noise level of which a network is told this."""
        return (0.5 * math.pi * told).tan() if self.told == "angle" else (4 * told).exp()


@final
@dataclass(frozen=True)
class Training:
    """What a network was trained on: its schedule, what it predicts, and its clock.

    ``steps`` is the number N of training steps that the clock counts; under :class:`EDM` there are none, and N is 1.
    Made by :meth:`of` from one of their schedulers, or by :meth:`like` for a model of ours.
    """

    schedule: Schedule
    target: Target
    steps: int = 1000
    edm: EDM | None = None

    @classmethod
    def of(cls, scheduler: object) -> Training:
        """Read a scheduler of theirs, or its configuration as a mapping with its ``_class_name``.

        Flow matching becomes :class:`~sciffusion.schedule.RectifiedFlow` (a shift belongs to the grid), EDM
        :class:`~sciffusion.schedule.VE` in the units of the data; everything with a table of betas becomes
        :class:`~sciffusion.schedule.Tabulated`, computed in float64. Raises ``ValueError`` for schedulers of another
        kind and for betas by a rule that is not known.
        """
        name, config = config_of(scheduler)
        steps = int(config.get("num_train_timesteps", 1000))
        if name.startswith("FlowMatch"):
            return cls(RectifiedFlow(), "flow", steps)
        if name.startswith(("EDM", "CosineDPM")):
            return cls(VE(0.0, float(config["sigma_max"]), 1.0), "v", 1, _edm(name, config))
        if "beta_schedule" not in config and "trained_betas" not in config:
            raise ValueError(
                f"scheduler {name!r} has neither betas nor a flow nor EDM's sigmas, so its noise levels are not known "
                "here; make a Training(schedule, target, steps) of your own"
            )
        kind = str(config.get("prediction_type", "epsilon"))
        if kind not in _TARGETS:
            raise ValueError(
                f"prediction_type must be one of {', '.join(_TARGETS)}, got {kind!r}. {did_you_mean(kind, _TARGETS)}"
            )
        if config.get("use_flow_sigmas") or kind == "flow_prediction":
            return cls(RectifiedFlow(), _TARGETS[kind], steps)
        return cls(Tabulated(table_of(config, steps)), _TARGETS[kind], steps)

    @classmethod
    def like(cls, schedule: Schedule, target: Target, steps: int = 1000) -> Training:
        """The nearest that their schedulers can say of a schedule of ours.

        Rectified flow stays itself and is told as the flow; a variance preserving schedule becomes the table of its
        values at k/N. Raises ``ValueError`` for another schedule: reduce it by hand, or predict x0 on one of these.
        """
        if isinstance(schedule, RectifiedFlow):
            return cls(schedule, "flow", steps)
        if not isinstance(schedule, VariancePreserving):
            raise ValueError(
                f"schedule must be variance preserving or RectifiedFlow to be told to their schedulers, got {schedule}"
            )
        with torch.no_grad():
            alpha = schedule.alpha(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
        alpha2 = torch.where(alpha > PURE_NOISE, alpha**2, 0.0)
        return cls(Tabulated(alpha2), target, steps)

    @property
    def process(self) -> Gaussian:
        """The forward process."""
        return Gaussian(self.schedule)

    @property
    def _first(self) -> int:
        return 0 if isinstance(self.schedule, RectifiedFlow) else 1

    def step(self, t: Tensor | float) -> Tensor:
        """Their step at a time of ours, float64; not below 0, which a network of theirs never saw.

        Under EDM, what the network is told of the noise level.
        """
        t = torch.as_tensor(t, dtype=torch.float64)
        if self.edm is not None:
            return self.edm.tell(self.schedule.sigma(t))
        return (t * self.steps - self._first).clamp(min=0)

    def time(self, step: Tensor | float) -> Tensor:
        """Our time of a step of theirs, float64. Raises ``ValueError`` outside their range."""
        step = torch.as_tensor(step).to(torch.float64)
        if self.edm is not None:
            return self.schedule.time(-2 * self.edm.sigma(step).log())
        if not bool(((step >= 0) & (step <= self.steps - self._first)).all()):
            raise ValueError(
                f"timestep must lie between 0 and {self.steps - self._first}, got {step.flatten()[:8].tolist()}"
            )
        return (step + self._first) / self.steps

    def config(self) -> dict[str, Any]:
        """Arguments for a scheduler of theirs: betas and prediction type of a table, or the steps of a flow.

        For a table they fit every one of their schedulers that takes ``trained_betas`` (one without any signal left at
        its end: those that know ``rescale_betas_zero_snr``, which changes nothing else there); add
        ``clip_sample=False`` to those that clip, for values that are no images. Raises ``ValueError`` for scores, which
        none of them reads, and where a table predicts the flow.
        """
        if isinstance(self.schedule, RectifiedFlow):
            return {"num_train_timesteps": self.steps}
        names = {target: name for name, target in _TARGETS.items() if target != "flow"}
        if self.target not in names or not isinstance(self.schedule, Tabulated):
            raise ValueError(
                f"target {self.target!r} on {self.schedule} has no prediction_type; tell x0, eps or v"
            )
        alpha2 = self.schedule.alpha2.double()
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha2[:-1]])
        ends = {"rescale_betas_zero_snr": True} if alpha2[-1] == 0 else {}
        return ends | {
            "num_train_timesteps": self.steps,
            "trained_betas": (1 - alpha2 / before).tolist(),
            "prediction_type": names[self.target],
        }


def config_of(scheduler: object) -> tuple[str, Mapping[str, Any]]:
    """The class name and whole configuration of a scheduler object, or of a mapping that describes one.

    A mapping (a scheduler_config.json) is filled up with the defaults of its class, for which their library is needed.
    Raises ``ValueError`` if it is neither, or names no scheduler.
    """
    if isinstance(scheduler, Mapping):
        name = str(scheduler.get("_class_name"))
        library = require("diffusers", extra="diffusers")
        kind = getattr(library, name, None) if name.endswith("Scheduler") else None
        if kind is None:
            raise ValueError(
                f"scheduler names no scheduler of diffusers in _class_name, got {name!r}"
            )
        scheduler = kind.from_config(scheduler)
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise ValueError(
            f"scheduler must be one of diffusers or its configuration, got {type(scheduler).__name__}"
        )
    return type(scheduler).__name__, config


def _edm(name: str, config: Mapping[str, Any]) -> EDM:
    kind, signs = str(config["prediction_type"]), {"epsilon": -1, "v_prediction": 1}
    if kind not in signs:
        raise ValueError(
            f"prediction_type must be one of {', '.join(signs)} for a scheduler with sigma_data, got {kind!r}"
        )
    told: Literal["log", "angle"] = "angle" if name.startswith("CosineDPM") else "log"
    return EDM(float(config["sigma_data"]), signs[kind], told)


def table_of(config: Mapping[str, Any], steps: int) -> Tensor:
    """The table of alpha squared, (steps,) float64, of a configuration with betas."""
    alpha2 = (1 - _betas(config, steps)).cumprod(0)
    shift = float(config.get("snr_shift_scale", 1.0))
    alpha2 = alpha2 / (shift + (1 - shift) * alpha2)
    if config.get("rescale_betas_zero_snr"):
        alpha = alpha2.sqrt()
        alpha2 = ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
    return alpha2


def _betas(config: Mapping[str, Any], steps: int) -> Tensor:
    """The table of forgetting rates, (steps,) float64."""
    trained = config.get("trained_betas")
    if trained is not None:
        return torch.as_tensor(trained, dtype=torch.float64)
    first, last, kind = config["beta_start"], config["beta_end"], config["beta_schedule"]
    if kind == "linear":
        return torch.linspace(first, last, steps, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2
    if kind == "squaredcos_cap_v2":
        ends = torch.arange(steps + 1, dtype=torch.float64) / steps
        kept = torch.cos((ends + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
    if kind == "sigmoid":
        return (
            torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64)) * (last - first)
            + first
        )
    raise ValueError(
        f"beta_schedule {kind!r} is not one of linear, scaled_linear, squaredcos_cap_v2, sigmoid; "
        "give its numbers as trained_betas"
    )
