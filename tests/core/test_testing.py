"""The contract checks themselves: what is broken in one place is found, and by the law that it breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sciffusion.coupling import Coupling
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import Grid
from sciffusion.guidance import CFG
from sciffusion.layout import Dense, Layout, Masked
from sciffusion.likelihood import Divergence
from sciffusion.likelihood.divergence import Fields, Probes, Products
from sciffusion.noise import Noise
from sciffusion.objective import TimeSampler, Weight
from sciffusion.process import Gaussian, Process
from sciffusion.samplers import Multistep
from sciffusion.samplers.ddim import ddim_rule
from sciffusion.schedule import RectifiedFlow, Schedule
from sciffusion.solver import Level, Rule, Solver
from sciffusion.space import Euclidean, GaussianSpace
from sciffusion.state import State, Value
from sciffusion.testing import (
    check_coupling,
    check_denoiser,
    check_divergence,
    check_grid,
    check_guidance,
    check_layout,
    check_process,
    check_schedule,
    check_solver,
    check_space,
    check_times,
    check_weight,
    claims,
    measured_order,
    split,
    spoil,
)
from tests.core.cases import dense, mixture, packed, padded, points, randn

FLOW = RectifiedFlow()


def fails(check: Callable[[], None], law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check()


@dataclass(frozen=True)
class Wrong(Schedule):
    """Rectified flow with one method exchanged."""

    fault: str = ""
    base: Schedule = field(default_factory=RectifiedFlow)

    def alpha(self, t: Tensor | float) -> Tensor:
        return self.base.alpha(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        sigma = self.base.sigma(t)
        return (
            sigma.float()
            if self.fault == "dtype"
            else (sigma - 0.5).abs()
            if self.fault == "rises"
            else sigma
        )

    def log_snr(self, t: Tensor | float) -> Tensor:
        return super().log_snr(t) / (2 if self.fault == "half" else 1)

    def time(self, log_snr: Tensor | float) -> Tensor:
        return self.base.time(log_snr) + (1e-6 if self.fault == "time" else 0)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        a, s = self.base.rates(t)
        return (a, -s) if self.fault == "rates" else (a, s)

    def sde(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        f, g = self.base.sde(t)
        return (f, g * 1.01) if self.fault == "sde" else (f, g)

    def shift(self, factor: float) -> Schedule:
        return self.base.shift(factor**2 if self.fault == "shift" else factor)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("dtype", "float64, shaped like t"),
        ("rises", "log_snr falls strictly"),
        ("half", r"log_snr is log"),
        ("time", "time inverts log_snr"),
        ("rates", "rates hold the derivative of sigma"),
        ("sde", "the SDE's diffusion gives sigma"),
        ("shift", "adds a constant to log_snr"),
    ],
)
def test_a_schedule_with_one_fault_is_found(fault: str, law: str) -> None:
    check_schedule(Wrong())
    fails(lambda: check_schedule(Wrong(fault)), law)


@dataclass(frozen=True)
class Rounded(Grid):
    """Times on a lattice of 1/100, as integer time steps are."""

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        return (torch.linspace(start, stop, steps + 1).double() * 100).round() / 100

    def __call__(
        self, schedule: Schedule, steps: int, start: float = 1.0, stop: float = 0.0
    ) -> Tensor:
        return self._times(schedule, steps, start, stop)


def test_a_grid_with_equal_times_is_found() -> None:
    fails(lambda: check_grid(Rounded(), FLOW), "falls strictly")
    fails(lambda: check_grid(Rounded(), FLOW, (4,)), "must refuse 0 steps|n \\+ 1")


@dataclass(frozen=True)
class Sick(Solver):
    """DDIM with one fault."""

    fault: str = ""
    order = 1

    @property
    def stochastic(self) -> bool:
        return self.fault == "claims noise"

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        rule = ddim_rule(nodes[0], end)
        match self.fault:
            case "level":  # alpha of the start where that of the end belongs
                return (Rule(rule.base, (nodes[0].alpha - rule.base * nodes[0].alpha,)),)
            case "last noise":
                return (Rule(rule.base, rule.x0, 0.01 if end.sigma == 0 else 0.0),)
            case "too many":
                return (rule, rule)
            case "nan":
                return (Rule(rule.base, (math.nan,)),)
        return (rule,)


class Boast(Sick):
    """First order, and says second."""

    order = 2


@pytest.mark.parametrize(
    ("solver", "law"),
    [
        (Sick("level"), "a constant prediction is followed exactly"),
        (Sick("last noise"), "noise level is met|no noise in the last step"),
        (Sick("too many"), "one rule per evaluation"),
        (Sick("nan"), "finite coefficients"),
        (Sick("claims noise"), "stochastic says True"),
        (Boast(), "measured order 0.99 of 2"),
    ],
)
def test_a_solver_with_one_fault_is_found(solver: Solver, law: str) -> None:
    check_solver(Sick())
    fails(lambda: check_solver(solver), law)


def test_the_measured_order_tells_orders_apart() -> None:
    for order in (1, 2, 3):
        assert abs(measured_order(Multistep(order), steps=600) - order) < 0.25


@dataclass(frozen=True)
class Loose(GaussianSpace):
    """The noise of Euclidean, with one fault."""

    fault: str = ""

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        x = Euclidean(1.2 if self.fault == "norm" else 1.0).prior(like, layout, noise)
        if self.fault == "shape":  # the norm's mean is right nevertheless
            x = x * torch.tensor([1.5, 1.0, 0.5], dtype=x.dtype).sqrt()
        return x + x.mean() if self.fault == "mixes" else x

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        return super().log_prior(x, layout) * (2 if self.fault == "density" else 1)

    def log_volume(self, x: Tensor, layout: Layout) -> Tensor:
        return torch.full((layout.batch,), 0.1 * (self.fault == "normaliser"), dtype=x.dtype)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.clean(0.9 * x if self.fault == "project" else x)

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.count(x) - int(self.fault == "dof")

    def covariance(self, p: Tensor, layout: Layout) -> Tensor:
        return layout.clean(p * (1.1 if self.fault == "covariance" else 1.0))

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return e - 1e-3 * e.mean() if self.fault == "mixing precision" else e

    def noise_scale(self, x: Tensor, layout: Layout) -> float:
        return 0.9 if self.fault == "scale" else 1.0


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("norm", "norm2 has the mean dof"),
        ("shape", "covariance of the prior's draws"),
        ("mixes", "depends on no other sample"),
        ("density", "gradient of log_prior"),
        ("normaliser", "its normaliser included"),
        ("project", "the prior lies in the space"),
        ("dof", "norm2 has the mean dof"),
        ("covariance", "covariance undoes the precision"),
        ("mixing precision", "precision mixes no samples|covariance undoes"),
        ("scale", "noise_scale"),
    ],
)
def test_a_space_with_one_fault_is_found(fault: str, law: str) -> None:
    field, layout = packed(points())
    check_space(Loose(), field, layout)
    fails(lambda: check_space(Loose(fault), field, layout), law)


def test_a_layout_that_counts_padding_is_found() -> None:
    samples = points()
    field, layout = padded(samples)
    wide = Masked(torch.ones_like(layout.mask))
    fails(lambda: check_layout(wide, field, samples), "parts are the samples' shapes")
    even, rows = dense(points((4, 4, 4, 4), (4,)))
    check_layout(rows, even, list(even))
    fails(lambda: check_layout(rows, even, list(even.transpose(0, 1))), "assemble")


class Twisted(Denoiser):
    """The mixture's denoiser with one fault."""

    def __init__(self, fault: str, process: Gaussian | None = None) -> None:
        super().__init__()
        self.inner, self.fault = mixture(process), fault
        self.process = self.inner.process
        self.calls = 0

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        x0 = self.inner(x_t, t).x0
        assert isinstance(x0, Tensor)
        self.calls += 1
        match self.fault:
            case "mixes":
                x0 = x0 - x0.mean(0)
            case "draws":
                x0 = x0 + 0 * torch.rand(1)
            case "forgets":
                x0 = x0 + self.calls
            case "in place":
                x_t.mul_(2)
            case "nan":
                x0 = x0 / (1 - torch.as_tensor(t)).reshape(-1, *[1] * (torch.as_tensor(t).ndim > 0))
            case "dtype":
                x0 = x0.float()
            case "shape":
                x0 = x0[..., :1]
            case "trailing":
                x0 = x0 * (torch.ones(2) if torch.as_tensor(t).ndim == 0 else torch.as_tensor(t))
            case "state":
                return Prediction(State({"a": x0}, dense([x0])[1]), x_t, t, self.process)
        return Prediction(x0, x_t, t, self.process)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("mixes", "other samples change nothing"),
        ("draws", "no draw from the global generator"),
        ("forgets", "two calls agree"),
        ("in place", "left as it was"),
        ("nan", "a finite prediction"),
        ("dtype", "shape and dtype of x_t"),
        ("shape", "shape and dtype of x_t"),
        ("trailing", "one time for all"),
        ("state", "a tensor for a tensor"),
    ],
)
def test_a_denoiser_with_one_fault_is_found(fault: str, law: str) -> None:
    check_denoiser(Twisted(""), randn(2, 2), tol=1e-9)
    fails(lambda: check_denoiser(Twisted(fault), randn(2, 2)), law)


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        (lambda w: w - 1, "scale 1 is the conditional prediction"),
        (lambda w: w * (w + 1) / 2, r"u \+ w \(c - u\)"),
        (lambda w: max(w, 0.5), "scale 0 is the unconditional prediction"),
    ],
)
def test_a_guidance_with_another_scale_is_found(wrong: Callable[[float], float], law: str) -> None:
    class Both(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = Gaussian(FLOW)

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            return Prediction(torch.full_like(x_t, float(cond)), x_t, t, self.process)  # type: ignore[arg-type]

    both, x0 = Both(), randn(2, 2)
    check_guidance(lambda w: CFG(both, 3, 1, w), both.given(3), both.given(1), x0)
    fails(
        lambda: check_guidance(
            lambda w: CFG(both, 3, 1, wrong(w)), both.given(3), both.given(1), x0
        ),
        law,
    )


def test_a_process_with_one_fault_is_found() -> None:
    check_process(Gaussian(Wrong()), randn(3, 2))
    fails(lambda: check_process(Gaussian(Wrong("rates")), randn(3, 2)), "flow ->|-> flow")
    fails(lambda: check_process(Gaussian(FLOW), randn(1, 2)), "at least two samples")


@dataclass(frozen=True)
class Heavy(Weight):
    """A weight with one fault."""

    fault: str = ""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        match self.fault:
            case "dtype":
                return t.float()
            case "negative":
                return t - 0.5
            case "infinite":
                return 1 / (t - t.flatten()[0])
            case "batch":
                return t / t.sum()
        return t


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("dtype", "float64 weights"),
        ("negative", "finite and not negative"),
        ("infinite", "finite and not negative"),
        ("batch", "a time alone"),
    ],
)
def test_a_weight_with_one_fault_is_found(fault: str, law: str) -> None:
    check_weight(Heavy(), FLOW)
    fails(lambda: check_weight(Heavy(fault), FLOW), law)


@dataclass(frozen=True)
class Early(TimeSampler):
    """Times of density 2t, with one fault."""

    fault: str = ""

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        return 1 - u if self.fault == "falls" else u.sqrt()

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        return torch.ones_like(t) if self.fault == "density" else 2 * t

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        match self.fault:
            case "global":
                return torch.rand(batch, dtype=torch.float64)
            case "other law":
                return noise.scalars(batch)
            case "ends":
                return super().__call__(noise, batch, clock).round()
        return super().__call__(noise, batch, clock)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("falls", "quantiles rise"),
        ("density", "the density"),
        ("global", "global generator"),
        ("ends", "times inside"),
        ("other law", "draws follow the quantiles"),
    ],
)
def test_a_law_of_times_with_one_fault_is_found(fault: str, law: str) -> None:
    check_times(Early(), FLOW)
    fails(lambda: check_times(Early(fault), FLOW), law)


@dataclass(frozen=True)
class Shuffled(Coupling):
    """Noise in another order, or changed."""

    fault: str = ""

    def __call__(self, x0: Value, eps: Value, cond: Condition, process: Process) -> Value:
        assert isinstance(eps, Tensor) and isinstance(x0, Tensor)
        match self.fault:
            case "scaled":
                return 1.1 * eps
            case "in place":
                return eps.mul_(-1)
            case "data":
                x0.mul_(2)
            case "shape":
                return eps.flatten(1)
        return eps.roll(1, 0)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("", "no farther apart"),
        ("scaled", "moved, not changed"),
        ("in place", "the noise None is left"),
        ("data", "the data None are left"),
        ("shape", "kind and shape"),
    ],
)
def test_a_coupling_with_one_fault_is_found(fault: str, law: str) -> None:
    x0 = Noise([0, 1, 2]).normal(torch.zeros(3, 2, 2).double(), Dense(3))  # the very noise it gets
    check_coupling(Shuffled(), x0.clone(), None, Gaussian(FLOW), least=False)
    fails(lambda: check_coupling(Shuffled(fault), x0.clone(), None, Gaussian(FLOW)), law)


@dataclass(frozen=True)
class Half(Divergence):
    """Hutchinson's estimate from one vector, with one fault."""

    fault: str = ""

    def draw(self, probes: Probes, noise: Noise) -> list[list[Tensor]]:
        return [probes.normal(noise)]

    def trace(self, products: Products, probes: Probes, drawn: Sequence[Fields]) -> Tensor:
        out = probes.dot(products(drawn[0]), drawn[0])
        match self.fault:
            case "half":
                return out / 2
            case "mean":
                return out + 0.1 * (out.roll(1) - out)
            case "sum":
                return out.sum()
        return out


@pytest.mark.parametrize(
    ("fault", "law"),
    [("half", "the mean is the trace"), ("mean", "its own seed"), ("sum", "one trace a sample")],
)
def test_a_divergence_with_one_fault_is_found(fault: str, law: str) -> None:
    check_divergence(Half())
    fails(lambda: check_divergence(Half(fault)), law)


def test_spoiling_touches_padding_alone_and_splitting_finds_the_samples() -> None:
    samples = points()
    field, layout = padded(samples)
    state = State({"x": field, "k": torch.zeros_like(field[..., 0], dtype=torch.long)}, layout)
    dirty = spoil(state, 7.0)
    assert isinstance(dirty, State)
    assert bool((dirty["x"][~layout.mask] == 7).all()) and bool(
        (dirty["k"][~layout.mask] == 7).all()
    )
    for value in (state, dirty):
        for got, want in zip(split(value, "x"), samples, strict=True):
            assert torch.equal(got, want.flatten())
    assert torch.equal(spoil(randn(2, 3), 7.0), randn(2, 3))  # type: ignore[arg-type]


def test_checks_hold_where_python_removes_assert_statements() -> None:
    source = Path(claims.__file__).read_text()
    names: dict[str, Callable[[bool, str], None]] = {}
    exec(compile(source, "claims", "exec", optimize=2, dont_inherit=True), names)
    fails(lambda: names["claim"](False, "a law"), "a law")
