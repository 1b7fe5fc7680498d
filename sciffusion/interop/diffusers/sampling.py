"""One of their schedulers as a sampler of ours: the same noise levels, step by step, and the same rule.

The grid is the one that their configuration asks for (timestep spacing, offset, rules of sigmas, flow shifts, the last
level; :mod:`.levels`): the network is told the noise level that the solver is at, no time appears twice and no shift is
applied twice. Where theirs departs from that, the samplers differ:
``benchmarks/diffusers_traps.py`` shows both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from sciffusion.errors import did_you_mean
from sciffusion.grid import Times
from sciffusion.interop.diffusers.levels import Cut, edm_times, flow_times, table_times
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
from sciffusion.schedule import RectifiedFlow
from sciffusion.solver import Solver

__all__ = ["from_scheduler"]

Config = Mapping[str, Any]


@final
@dataclass(frozen=True)
class _Kind:
    """What distinguishes their scheduler classes.

    ``solver`` by configuration; ``cut``: how the table is cut; ``ends``: whether the run ends on clean data, else on
    the least level.
    """

    solver: Callable[[Config], Solver]
    cut: Cut = Cut()
    ends: Callable[[Config], bool] = lambda config: (
        config.get("final_sigmas_type", "zero") == "zero"
    )


_MORE, _REAL = Cut(more=True), Cut(whole=False, chosen=True)


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
    "DEISMultistepScheduler": _Kind(lambda c: DEIS(c["solver_order"]), _MORE, ends=lambda c: False),
    "DPMSolverMultistepScheduler": _Kind(_dpm, _MORE),
    "DPMSolverSinglestepScheduler": _Kind(lambda c: Singlestep(c["solver_order"]), _MORE),
    "EDMDPMSolverMultistepScheduler": _Kind(_dpm),
    "EDMEulerScheduler": _Kind(lambda c: DDIM()),
    "EulerAncestralDiscreteScheduler": _Kind(lambda c: DDIM(1.0), _REAL),
    "EulerDiscreteScheduler": _Kind(lambda c: DDIM(), _REAL),
    "FlowMatchEulerDiscreteScheduler": _Kind(_flow),
    "FlowMatchHeunDiscreteScheduler": _Kind(lambda c: Heun()),
    "HeunDiscreteScheduler": _Kind(lambda c: Heun(), _REAL),
    "LMSDiscreteScheduler": _Kind(lambda c: LMS(4), _REAL),
    "PNDMScheduler": _Kind(lambda c: LMS(4), ends=_to_one),
    "UniPCMultistepScheduler": _Kind(lambda c: UniPCB(c["solver_order"], c["solver_type"]), _MORE),
}


_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "predict_x0": (True,),
    "disable_corrector": ([],),
    "solver_p": (None,),
    "lambda_min_clipped": (-math.inf,),
}
"""Options that are read at these values only."""


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
    _check_options(name, config)
    if training.edm is not None:
        times = edm_times(config, steps, kind.ends(config))
    elif isinstance(training.schedule, RectifiedFlow):
        times = flow_times(name, config, steps, tokens, training)
    else:
        times = table_times(kind.cut, config, steps, training, kind.ends(config))
    chosen = kind.solver(config) if solver is None else solver
    start, stop = float(times[0]), float(times[-1])
    return Sampler(chosen, len(times) - 1, Times(times), start, stop)


def _check_options(name: str, config: Config) -> None:
    for option, plain in _PLAIN.items():
        if option in config and config[option] not in plain:
            raise ValueError(
                f"{option}={config[option]!r} of {name} has no counterpart here; leave it at {plain[0]!r}, or give a "
                "solver and a grid of ours"
            )
