"""The times of a run, from the noise levels that a configuration of theirs asks for.

A configuration says which levels would be visited at equal steps, and perhaps that as many others between the first and
the last of these are to be taken: at equal steps of a power (Karras et al., EDM, 2022), of the logarithm (exponential
sigmas; Lu et al., DPM-Solver, 2022, call its negative lambda), or of the distribution function of a Beta(0.6, 0.6) law
(Lee et al., Beta sampling, 2024). All is computed once and in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from sciffusion.grid import Beta
from sciffusion.interop.diffusers.training import Training, table_of
from sciffusion.schedule import RectifiedFlow, token_shift

__all__ = ["Cut", "edm_times", "flow_times", "spread", "table_times"]

Config = Mapping[str, Any]
Rule = Literal["karras", "exponential", "beta"]

_RULES: Mapping[str, Rule] = {
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "exponential",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}


@final
@dataclass(frozen=True)
class Cut:
    """How a scheduler cuts the table of its steps.

    ``more``: in one step more than asked for, of which the last is left out; ``whole``: steps are rounded to integers;
    ``chosen``: a rule of sigmas spans the chosen steps, not the whole table.
    """

    more: bool = False
    whole: bool = True
    chosen: bool = False


def spread(rule: Rule, first: float, last: float, n: int, rho: float = 7.0) -> Tensor:
    """``n`` noise levels from the first down to the last, (n,) float64, by one of the rules."""
    even = torch.linspace(0, 1, n, dtype=torch.float64)
    if rule == "karras":
        levels = (first ** (1 / rho) + even * (last ** (1 / rho) - first ** (1 / rho))) ** rho
    elif rule == "exponential":
        levels = first * (last / first) ** even
    else:
        levels = last + (first - last) * Beta()(RectifiedFlow(), n - 1)
    levels[0], levels[-1] = first, last  # but for rounding
    return levels


def edm_times(config: Config, steps: int, clean: bool) -> Tensor:
    """Levels from the greatest to the least; the run ends on clean data, or on the least itself."""
    if steps < 2:
        raise ValueError(f"steps must be at least 2 from sigma_max to sigma_min, got {steps}")
    most, least = float(config["sigma_max"]), float(config["sigma_min"])
    levels = spread(config["sigma_schedule"], most, least, steps, float(config["rho"]))
    return _ended(levels / most, 0.0 if clean else None)


def table_times(cut: Cut, config: Config, steps: int, training: Training, clean: bool) -> Tensor:
    """Steps of the table, or sigmas between two of them, to clean data or to the table's first level."""
    n = training.steps
    cuts = steps + cut.more
    if not 1 <= steps <= n - cut.more:
        raise ValueError(f"steps must be between 1 and {n - cut.more}, got {steps}")
    spacing = str(config.get("timestep_spacing", "linspace"))
    if spacing == "linspace":
        at = torch.linspace(0, n - 1, cuts, dtype=torch.float64)
    elif spacing == "leading":
        at = torch.arange(cuts, dtype=torch.float64) * (n // cuts) + config.get("steps_offset", 0)
    elif spacing == "trailing":
        at = (n - torch.arange(steps, dtype=torch.float64) * (n / steps)).flip(0) - 1
    else:
        raise ValueError(f"timestep_spacing must be linspace, leading or trailing, got {spacing!r}")
    if cut.whole or spacing == "trailing":
        at = at.round()
    at = at[cut.more :].flip(0) if spacing != "trailing" else at.flip(0)
    times = training.time(at.clamp(max=n - 1))
    rule = _rule(config, steps)
    if rule is not None:
        ends = times[[0, -1]] if cut.chosen else torch.tensor([1.0, 1 / n], dtype=torch.float64)
        alpha, sigma = training.schedule(ends)
        if float(alpha[0]) == 0:
            raise ValueError(
                "a table without signal at its end has no greatest sigma, from which these levels would fall; switch "
                "them off, or take a grid of ours"
            )
        levels = spread(rule, *_given(config, (sigma / alpha).tolist()), steps)
        times = training.schedule.time(-2 * levels.log()).clamp(max=1.0)
    last = 0.0 if clean else 1 / n
    return _ended(times[times > last], last)


def flow_times(
    name: str, config: Config, steps: int, tokens: int | None, training: Training
) -> Tensor:
    """From pure noise in equal steps of sigma to clean data, shifted once."""
    n, own = training.steps, name.startswith("FlowMatch")
    rule = _rule(config, steps)
    if rule is not None and not own:
        return _ended(_of_table(rule, name, config, steps, training), 0.0)
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
    if name == "UniPCMultistepScheduler":  # theirs end a step of the table above zero
        even = torch.linspace(1, 1 / n, steps + 1, dtype=torch.float64)[:-1]
    elif not own:
        even = even * (1 - 1 / n)
    shift = _shift(config, tokens)
    times = shift * even / (1 + (shift - 1) * even)
    terminal = config.get("shift_terminal")
    if terminal:
        times = 1 - (1 - times) * (1 - terminal) / (1 - times[-1])
    if rule is not None:
        times = spread(rule, *_given(config, times[[0, -1]].tolist()), steps)
    if name == "UniPCMultistepScheduler":  # and begin where the log-SNR is finite
        times[0] = times[0].clamp(max=1 - 1e-6)
    return _ended(times, 0.0)


def _of_table(rule: Rule, name: str, config: Config, steps: int, training: Training) -> Tensor:
    """Times of a flow at Karras's sigmas of the table of betas that its scheduler also holds."""
    if rule != "karras" or name != "UniPCMultistepScheduler":
        raise ValueError(
            f"{rule} sigmas of {name} are not levels of a flow: it reads them as sigma / alpha and uses them as sigma; "
            "switch them off, use FlowMatchEulerDiscreteScheduler, or take a grid of ours"
        )
    alpha2 = table_of(config, training.steps)
    sigma = ((1 - alpha2) / alpha2)[[-1, 0]].sqrt()
    levels = spread(rule, *_given(config, sigma.tolist()), steps)
    return levels / (1 + levels)


def _shift(config: Config, tokens: int | None) -> float:
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", config.get("flow_shift", 1.0)))
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
    return math.log(shift) if config.get("time_shift_type") == "linear" else shift


def _rule(config: Config, steps: int) -> Rule | None:
    asked = [option for option in _RULES if config.get(option)]
    if not asked:
        return None
    if len(asked) > 1:
        raise ValueError(f"only one of {', '.join(asked)} can be used")
    if steps < 2:
        raise ValueError(f"steps must be at least 2 for {asked[0]}, got {steps}")
    return _RULES[asked[0]]


def _given(config: Config, ends: list[float]) -> tuple[float, float]:
    """The first and the last level, unless the configuration names its own."""
    most, least = config.get("sigma_max"), config.get("sigma_min")
    return float(ends[0] if most is None else most), float(ends[1] if least is None else least)


def _ended(times: Tensor, last: float | None) -> Tensor:
    end = [] if last is None else [last]
    return torch.cat([times, torch.tensor(end, dtype=torch.float64)])
