"""One of their schedulers as a sampler of ours: the same noise levels, step by step, and the same rule.

The grid is the one that their configuration asks for (timestep spacing, offset, Karras and exponential sigmas, flow
shifts, the last level), computed once and in float64: the network is told the noise level that the solver is at, no
time appears twice and no shift is applied twice. Where theirs departs from that, the samplers differ:
``benchmarks/diffusers_traps.py`` shows both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from sciffusion.errors import did_you_mean
from sciffusion.grid import Grid, Karras, LogSNR, Times
from sciffusion.interop.diffusers.solvers import DPMSolver2M, UniPCB
from sciffusion.interop.diffusers.training import Training, config_of
from sciffusion.samplers import (
    DDIM,
    DEIS,
    LMS,
    Ancestral,
    Heun,
    Multistep,
    Sampler,
    Singlestep,
)
from sciffusion.schedule import VE, RectifiedFlow, token_shift
from sciffusion.solver import Solver

__all__ = ["from_scheduler"]

Config = Mapping[str, Any]


@final
@dataclass(frozen=True)
class _Kind:
    """What distinguishes their scheduler classes.

    ``solver`` by configuration; ``more``: the grid is cut in one step more than asked for, of which the last is left
    out; ``whole``: steps are rounded to integers; ``sigmas``: Karras and exponential sigmas span the chosen steps, not
    the whole table; ``ends``: whether the run ends on clean data, else on the first level of the table.
    """

    solver: Callable[[Config], Solver]
    more: bool = False
    whole: bool = True
    sigmas: bool = False
    ends: Callable[[Config], bool] = lambda config: (
        config.get("final_sigmas_type", "zero") == "zero"
    )


def _dpm(config: Config) -> Solver:
    order, kind = int(config["solver_order"]), str(config["algorithm_type"])
    if kind == "sde-dpmsolver++":
        return Multistep(order, eta=1.0)
    if kind != "dpmsolver++":
        raise ValueError(
            f"algorithm_type {kind!r} interpolates the noise and has no counterpart; use 'dpmsolver++' or give solver="
        )
    published = order == 2 and config["solver_type"] == "midpoint"
    return DPMSolver2M() if published else Multistep(order)


def _ddpm(config: Config) -> Solver:
    kinds = {"fixed_small": 0.0, "fixed_small_log": 0.0, "fixed_large": 1.0, "fixed_large_log": 1.0}
    kind = str(config["variance_type"])
    if kind not in kinds:
        raise ValueError(
            f"variance_type {kind!r} asks for a learned variance, which is not read; give solver=Ancestral()"
        )
    return Ancestral(kinds[kind])


def _flow(config: Config) -> Solver:
    if config.get("stochastic_sampling"):
        raise ValueError("stochastic_sampling has no counterpart; give solver=DDIM(eta=1.0)")
    return DDIM()


def _to_one(config: Config) -> bool:
    return bool(config["set_alpha_to_one"])


_KINDS = {
    "CogVideoXDDIMScheduler": _Kind(lambda c: DDIM(), ends=_to_one),
    "CosineDPMSolverMultistepScheduler": _Kind(lambda c: Multistep(c["solver_order"], eta=1.0)),
    "DDIMScheduler": _Kind(lambda c: DDIM(), ends=_to_one),
    "DDPMScheduler": _Kind(_ddpm),
    "DEISMultistepScheduler": _Kind(
        lambda c: DEIS(c["solver_order"]), more=True, ends=lambda c: False
    ),
    "DPMSolverMultistepScheduler": _Kind(_dpm, more=True),
    "DPMSolverSinglestepScheduler": _Kind(lambda c: Singlestep(c["solver_order"]), more=True),
    "EDMDPMSolverMultistepScheduler": _Kind(_dpm),
    "EDMEulerScheduler": _Kind(lambda c: DDIM()),
    "EulerAncestralDiscreteScheduler": _Kind(lambda c: DDIM(1.0), whole=False, sigmas=True),
    "EulerDiscreteScheduler": _Kind(lambda c: DDIM(), whole=False, sigmas=True),
    "FlowMatchEulerDiscreteScheduler": _Kind(_flow),
    "FlowMatchHeunDiscreteScheduler": _Kind(lambda c: Heun()),
    "HeunDiscreteScheduler": _Kind(lambda c: Heun(), whole=False, sigmas=True),
    "LMSDiscreteScheduler": _Kind(lambda c: LMS(4), whole=False, sigmas=True),
    "PNDMScheduler": _Kind(lambda c: LMS(4), ends=_to_one),
    "UniPCMultistepScheduler": _Kind(
        lambda c: UniPCB(c["solver_order"], c["solver_type"]), more=True
    ),
}
_UNREAD = ("use_beta_sigmas", "use_lu_lambdas", "thresholding")


def from_scheduler(
    scheduler: object, steps: int, *, solver: Solver | None = None, tokens: int | None = None
) -> Sampler:
    """The sampler that a scheduler of theirs, or its configuration, describes.

    The rules are those of DDIM, DDPM, Euler and flow matching as they stand, DPM-Solver++ 2M and UniPC with their
    published weights, and for all others our method of that name. Clipping (``clip_sample``) is not taken over: wrap
    the denoiser in :class:`~sciffusion.guidance.DynamicThreshold` where values are known to be bounded.

    Args:
        scheduler: the scheduler, or the mapping of its scheduler_config.json.
        steps: how many.
        solver: another solver on the same grid.
        tokens: the length of the sequence, for schedulers whose shift depends on it (``use_dynamic_shifting``).

    Raises:
        ValueError: for a scheduler or an option that has no counterpart, and if ``tokens`` is missing.
    """
    name, config = config_of(scheduler)
    if name not in _KINDS:
        raise ValueError(
            f"scheduler {name!r} is not one of {', '.join(_KINDS)}. {did_you_mean(name, _KINDS)} "
            "Training.of may still read its noise levels; choose a grid and a solver of ours"
        )
    kind, training = _KINDS[name], Training.of(scheduler)
    for option in _UNREAD:
        if config.get(option):
            raise ValueError(
                f"{option} has no counterpart here; switch it off, or take a grid of ours"
            )
    if training.edm is not None:
        times = _edm_times(kind, config, steps)
    elif isinstance(training.schedule, RectifiedFlow):
        times = _flow_times(name, config, steps, tokens, training)
    else:
        times = _table_times(kind, config, steps, training)
    chosen = kind.solver(config) if solver is None else solver
    start, stop = float(times[0]), float(times[-1])
    return Sampler(chosen, len(times) - 1, Times(times), start, stop)


def _edm_times(kind: _Kind, config: Config, steps: int) -> Tensor:
    """Levels from the greatest to the least; the run ends on clean data, or on the least itself."""
    if steps < 2:
        raise ValueError(f"steps must be at least 2 from sigma_max to sigma_min, got {steps}")
    rho = float(config["rho"]) if config["sigma_schedule"] == "karras" else math.inf
    levels = VE(float(config["sigma_min"]), float(config["sigma_max"]), rho)
    times = levels.sigma(torch.linspace(1, 0, steps, dtype=torch.float64)) / levels.sigma_max
    times[0] = 1.0  # but for rounding
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)]) if kind.ends(config) else times


def _table_times(kind: _Kind, config: Config, steps: int, training: Training) -> Tensor:
    n = training.steps
    cuts = steps + kind.more
    if not 1 <= steps <= n - kind.more:
        raise ValueError(f"steps must be between 1 and {n - kind.more}, got {steps}")
    spacing = str(config.get("timestep_spacing", "linspace"))
    if spacing == "linspace":
        at = torch.linspace(0, n - 1, cuts, dtype=torch.float64)
    elif spacing == "leading":
        at = torch.arange(cuts, dtype=torch.float64) * (n // cuts) + config.get("steps_offset", 0)
    elif spacing == "trailing":
        at = (n - torch.arange(steps, dtype=torch.float64) * (n / steps)).flip(0) - 1
    else:
        raise ValueError(f"timestep_spacing must be linspace, leading or trailing, got {spacing!r}")
    if kind.whole or spacing == "trailing":
        at = at.round()
    at = at[kind.more :].flip(0) if spacing != "trailing" else at.flip(0)
    times = training.time(at.clamp(max=n - 1))
    times = _by_sigma(kind, config, times, training)
    last = 0.0 if kind.ends(config) else 1 / n
    return torch.cat([times[times > last], torch.tensor([last], dtype=torch.float64)])


def _by_sigma(kind: _Kind, config: Config, times: Tensor, training: Training) -> Tensor:
    """Times at Karras's or exponential sigmas, where the configuration asks for these."""
    far = 2e3  # any log-SNR: the ends are given
    grid: Grid
    if config.get("use_karras_sigmas"):
        grid = Karras(7.0, -far, far)
    elif config.get("use_exponential_sigmas"):
        grid = LogSNR(-far, far)
    else:
        return times
    if len(times) < 2:
        raise ValueError("steps must be at least 2 for Karras or exponential sigmas")
    ends = (float(times[0]), float(times[-1])) if kind.sigmas else (1.0, 1 / training.steps)
    return grid(training.schedule, len(times) - 1, *ends)


def _flow_times(
    name: str, config: Config, steps: int, tokens: int | None, training: Training
) -> Tensor:
    """From pure noise in equal steps of sigma to clean data, shifted once."""
    for option in ("use_karras_sigmas", "use_exponential_sigmas"):
        if config.get(option):
            raise ValueError(
                f"{option} is not read for flows; switch it off, or take a grid of ours"
            )
    n = training.steps
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
    if name == "UniPCMultistepScheduler":  # theirs end a step of the table above zero
        even = torch.linspace(1, 1 / n, steps + 1, dtype=torch.float64)[:-1]
    elif not name.startswith("FlowMatch"):
        even = even * (1 - 1 / n)
    shift = float(config.get("shift", config.get("flow_shift", 1.0)))
    if config.get("use_dynamic_shifting"):
        if tokens is None:
            raise ValueError(
                "tokens is missing: this scheduler's shift depends on the length of the sequence (use_dynamic_shifting)"
            )
        shift = token_shift(
            tokens,
            few=config.get("base_image_seq_len", 256),
            many=config.get("max_image_seq_len", 4096),
            low=config.get("base_shift", 0.5),
            high=config.get("max_shift", 1.15),
        )
        if config.get("time_shift_type") == "linear":
            shift = math.log(shift)
    times = shift * even / (1 + (shift - 1) * even)
    terminal = config.get("shift_terminal")
    if terminal:
        times = 1 - (1 - times) * (1 - terminal) / (1 - times[-1])
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])
