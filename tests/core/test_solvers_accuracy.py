"""Every solver's coefficients: exact polynomials, local errors for steps of any ratio, identities between solvers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction, from_flow, from_score
from sciffusion.grid import Karras, LogSNR
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Target
from sciffusion.samplers import (
    BDIA,
    DDIM,
    DEIS,
    ERSDE,
    LMS,
    Ancestral,
    EulerMaruyama,
    Langevin,
    Multistep,
    Sampler,
    SASolver,
    Singlestep,
    UniPC,
)
from sciffusion.samplers.exponential import starting_nodes, starting_rules
from sciffusion.schedule import VP, Cosine, RectifiedFlow, TrigFlow
from sciffusion.solver import Level, Rule, Solver
from sciffusion.state import Value
from sciffusion.testing import check_solver, gaussian_moments
from tests.core.cases import DETERMINISTIC, mixture, name, randn
from tests.core.test_solvers import GRIDS, exact_end, grid_of

FLOW = RectifiedFlow()
START, STOP = float(FLOW.time(-8.0)), float(FLOW.time(6.0))
CURVE = TrigFlow()
MORE: list[Solver] = [
    Singlestep(3),
    UniPC(1),
    UniPC(3),
    UniPC(3, corrector=False),
    SASolver(3, 1, 0.0),
    DEIS(2),
    DEIS(4),
    LMS(2),
    LMS(3),
    LMS(4),
    BDIA(),
]
NOISY: list[Solver] = [
    Singlestep(3, eta=0.5),
    SASolver(3, 3, eta=1.0),
    SASolver(1, 1, eta=0.5),
    SASolver(2, 0, eta=1.0),
    ERSDE(1),
    ERSDE(3),
    Langevin(2, rate=0.5, eta=1.0),
    DDIM(lambda log_snr: 1 / (1 + log_snr**2)),
    Multistep(2, eta=lambda log_snr: 1 / (1 + log_snr**2)),
]


def still(rho: float) -> float:
    """The scale of ER-SDE that draws no noise."""
    return 0.0


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def level(half_log_snr: float) -> Level:
    alpha, sigma = CURVE(CURVE.time(2 * half_log_snr))
    return Level(float(alpha), float(sigma))


@pytest.mark.parametrize("solver", [*MORE, *NOISY], ids=lambda s: type(s).__name__)
def test_every_variant_keeps_the_contract(solver: Solver) -> None:
    check_solver(solver)


@pytest.mark.parametrize(
    ("solver", "spread"),
    [
        (Ancestral(1.0), 1.0),
        (Ancestral(0.4), 0.4),
        (EulerMaruyama(), None),
        (EulerMaruyama(0.0), None),
    ],
    ids=name,
)
def test_solvers_that_are_not_exact_on_one_point_say_on_what_they_are(
    solver: Solver, spread: float | None
) -> None:
    check_solver(solver, exact_for=spread)
    with pytest.raises(AssertionError, match="the noise level is met"):
        check_solver(solver)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("solver", MORE, ids=name)
def test_the_error_on_a_gaussian_falls_at_least_with_the_declared_order(
    solver: Solver, kind: str
) -> None:
    n = {1: 160, 2: 160, 3: 400, 4: 600}[solver.order] * (3 if kind == "flow time" else 1)
    exact = float(FLOW.alpha(STOP) ** 2 * 0.3 + FLOW.sigma(STOP) ** 2)
    error = [
        abs(
            gaussian_moments(Sampler(solver, k, grid_of(kind, k), START, STOP), FLOW, variance=0.3)[
                1
            ]
            - exact
        )
        for k in (n, 2 * n)
    ]
    assert math.log2(error[0] / error[1]) > solver.order - 0.16


@pytest.mark.parametrize("solver", [s for s in MORE if s.order > 2], ids=name)
def test_the_error_on_a_mixture_falls_at_least_with_the_higher_orders(solver: Solver) -> None:
    error = []
    for steps in (320, 640):
        sampler = Sampler(solver, steps, Karras(low=-8, high=6), START, STOP)
        end = tensor(sampler(mixture(), randn(16, 2)).x)
        error.append(float((end - exact_end()).abs().max()))
    assert math.log2(error[0] / error[1]) > solver.order - 0.25


def x0_of(at: Level, variance: float = 0.6) -> float:
    """The prediction on the solution of the flow that starts at one standard deviation."""
    return at.alpha * variance / flow_of(at, variance)


def flow_of(at: Level, variance: float = 0.6) -> float:
    return math.sqrt(at.alpha**2 * variance + at.sigma**2)


def apply(rule: Rule, base: float, x0: Sequence[float], values: Sequence[float]) -> float:
    parts = [base * rule.base, *(b * v for b, v in zip(rule.x0, x0, strict=False))]
    return math.fsum([*parts, *(c * v for c, v in zip(rule.values, values, strict=False))])


MULTISTEP: list[tuple[Solver, int]] = [
    *((DEIS(p), p) for p in (1, 2, 3, 4)),
    *((LMS(p), p) for p in (1, 2, 3, 4)),
    *((ERSDE(p, still), p) for p in (1, 2, 3)),
]


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
@pytest.mark.parametrize(("solver", "order"), MULTISTEP, ids=name)
def test_one_step_from_an_exact_history_errs_by_one_order_more(
    solver: Solver, order: int, ratio: float
) -> None:
    """A global error cannot tell a ratio of steps from its inverse, for the terms cancel in the sum."""
    errors = []
    for h in (0.02, 0.01):
        known = [level(-1.0 - h * ratio * j) for j in range(order)]
        end = level(-1.0 + h)
        (rule,) = solver.rules(known[:1], known[1:], end)
        x = [flow_of(k) for k in known]
        errors.append(abs(apply(rule, x[0], [x0_of(k) for k in known], x) - flow_of(end)))
    assert abs(math.log2(errors[0] / errors[1]) - (order + 1)) < 0.2


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
@pytest.mark.parametrize(("p", "c"), [(1, 1), (2, 2), (3, 3), (2, 1), (3, 1)])
def test_the_corrected_value_errs_by_one_order_more_than_the_predicted_one(
    p: int, c: int, ratio: float
) -> None:
    """The step before starts from exact values; its correction is what the rule adds to a plain step."""
    variance, errors = 0.6, []
    for h in (0.04, 0.02):
        past = [level(-1.2 - h - h * ratio * j) for j in range(p)]
        t, end = level(-1.2), level(-1.1)
        (predict,) = Multistep(p).rules(past[:1], past[1:], t)
        x = apply(predict, flow_of(past[0]), [x0_of(k) for k in past], [])
        x0 = [t.alpha * variance / flow_of(t) ** 2 * x, *(x0_of(k) for k in past)]
        (corrected,) = SASolver(p, c, 0.0).rules([t], past, end)
        (plain,) = Multistep(p).rules([t], past[: p - 1], end)
        change = (apply(corrected, x, x0, []) - apply(plain, x, x0, [])) / plain.base
        errors.append((abs(x - flow_of(t)), abs(x + change - flow_of(t))))
    slopes = [math.log2(a / b) for a, b in zip(*errors, strict=True)]
    assert abs(slopes[0] - (p + 1)) < 0.2 and abs(slopes[1] - (c + 2)) < 0.4


@pytest.mark.parametrize("order", [3, 4])
def test_the_first_step_of_a_higher_order_errs_by_that_order(order: int) -> None:
    variance, errors = 0.6, []
    for h in (0.04, 0.02):
        begin, end = float(CURVE.time(-1.0)), float(CURVE.time(-1.0 + 2 * h))
        levels = [
            Level(float(CURVE.alpha(t)), float(CURVE.sigma(t)))
            for t in (*starting_nodes(CURVE, begin, end, order), end)
        ]
        x = start = flow_of(levels[0])
        x0: list[float] = []
        values: list[float] = []
        for at, rule in zip(levels, starting_rules(levels[:-1], levels[-1]), strict=False):
            x0, values = [at.alpha * variance / flow_of(at) ** 2 * x, *x0], [x, *values]
            x = apply(rule, start, x0, values)
        errors.append(abs(x - flow_of(levels[-1])))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.2


def test_a_correction_has_the_noise_of_the_step_that_it_corrects() -> None:
    past, t, end = [level(-0.7), level(-1.0)], level(-0.2), level(0.4)
    change = []
    for eta in (1.0, lambda log_snr: 1.0 if log_snr < -0.4 else 0.3):
        (corrected,) = SASolver(2, 2, eta).rules([t], past, end)
        (plain,) = Multistep(2, eta).rules([t], past[:1], end)
        pairs = zip(corrected.x0, (*plain.x0, 0.0), strict=True)
        change.append([(float(a) - float(b)) / float(plain.base) for a, b in pairs])
    assert change[0] == pytest.approx(change[1], rel=1e-9)


@pytest.mark.parametrize("h", [0.05, 0.7, 4.0])
@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_predicted_noises_that_are_a_polynomial_are_integrated_exactly(p: int, h: float) -> None:
    """Of the time of rectified flow for DEIS, of sigma/alpha for LMS."""
    known = [level(-0.6 - s * h) for s in (0.0, 0.6, 1.9, 2.4)[:p]]
    end = level(-0.6 + h)
    clocks: list[tuple[Solver, Callable[[Tensor], Tensor]]] = [
        (DEIS(p), lambda rho: rho / (1 + rho)),
        (LMS(p), lambda rho: rho),
    ]
    for solver, clock in clocks:

        def eps(rho: Tensor, clock: Callable[[Tensor], Tensor] = clock) -> Tensor:
            u = clock(rho)
            return torch.stack([torch.ones_like(u), u, u**2, u**3])[:p].sum(0)

        (rule,) = solver.rules(known[:1], known[1:], end)
        x = [0.3 + 0.1 * j for j in range(p)]  # any values will do
        rhos = torch.tensor([k.sigma / k.alpha for k in known], dtype=torch.float64)
        noises = eps(rhos).tolist()
        x0 = [(v - k.sigma * e) / k.alpha for v, k, e in zip(x, known, noises, strict=True)]
        logs = torch.linspace(math.log(rhos[0]), -end.half_log_snr, 40001, dtype=torch.float64)
        fine = logs.exp()
        integral = float(torch.trapezoid(eps(fine) * fine, logs))
        want = end.alpha * (x[0] / known[0].alpha + integral)
        assert apply(rule, x[0], x0, x) == pytest.approx(want, rel=1e-7)


def test_er_sde_has_the_closed_form_of_its_paper() -> None:
    """For phi = rho^2, where the integrals are elementary; the derivative is the backward difference."""
    before, t, end = level(-0.5), level(-0.2), level(0.4)
    (rule,) = ERSDE(2, math.log).rules([t], [before], end)
    r, s, t_ = (k.sigma / k.alpha for k in (before, end, t))
    slope = (s - t_ + s**2 * (1 / s - 1 / t_)) / (t_ - r)
    assert rule.base == pytest.approx(end.alpha / t.alpha * (s / t_) ** 2)
    assert rule.noise == pytest.approx(end.alpha * math.sqrt(s**2 - t_**2 * (s / t_) ** 4))
    assert rule.x0[0] == pytest.approx(end.alpha * (1 - (s / t_) ** 2 + slope))
    assert rule.x0[1] == pytest.approx(-end.alpha * slope)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((UniPC(p, corrector=False), Multistep(p)) for p in (1, 2, 3)),
        *((SASolver(p, p, eta=0.0), UniPC(p)) for p in (1, 2, 3)),
        *((SASolver(p, 0, eta=0.7), Multistep(p, eta=0.7)) for p in (1, 2, 3)),
        (DEIS(1), DDIM()),
        (LMS(1), DDIM()),
        (ERSDE(1, still), DDIM()),
        (ERSDE(1, math.log), Ancestral()),
        (ERSDE(1, lambda rho: 0.25 * math.log(rho)), Multistep(1, eta=0.5)),
        (Multistep(2, eta=lambda log_snr: 0.5), Multistep(2, eta=0.5)),
        (Singlestep(3, eta=lambda log_snr: 0.5), Singlestep(3, eta=0.5)),
        (DDIM(lambda log_snr: 0.5), DDIM(0.5)),
    ],
    ids=name,
)
def test_solvers_that_are_the_same_by_their_definitions_agree(one: Solver, other: Solver) -> None:
    start = 1.0 if one.order > 1 or not other.stochastic else 0.95  # pure noise has no scale
    for schedule in (FLOW, VP(), Cosine()):
        denoiser, x = mixture(Gaussian(schedule)), randn(16, 2)
        ends = [tensor(Sampler(s, 9, start=start)(denoiser, x, 5).x) for s in (one, other)]
        assert float((ends[0] - ends[1]).abs().max()) < 1e-11


def test_a_two_stage_step_is_the_exponential_midpoint_rule() -> None:
    t, mid, end = level(-0.3), level(0.1), level(0.5)
    first, second = Singlestep(2).rules([t, mid], [], end)
    x, d = 0.8, (0.3, -0.2)  # the predictions at the middle and at the start
    half = apply(first, x, [d[1]], [x])
    h = 0.8
    # D_t + (D_mid - D_t)/(h/2) (l - l_t), integrated against e^{-(l_s - l)}: phi_1 and phi_2
    phi1 = -math.expm1(-h)
    phi2 = h - phi1
    want = end.sigma / t.sigma * x + end.alpha * (phi1 * d[1] + phi2 * (d[0] - d[1]) / (h / 2))
    assert apply(second, x, d, [half, x]) == pytest.approx(want, rel=1e-12)


class Through(Denoiser):
    """An exact denoiser whose prediction makes a detour through another target."""

    def __init__(self, inner: Denoiser, target: Target) -> None:
        super().__init__()
        self.inner, self.target, self.process = inner, target, inner.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        process, prediction = self.process, self.inner(x_t, t)
        assert isinstance(process, Gaussian)
        y, x = tensor(prediction.to(self.target)), tensor(x_t)
        fn: dict[Target, Callable[..., Denoiser]] = {"score": from_score, "flow": from_flow}
        if self.target in fn:
            return fn[self.target](lambda x, t: y, process)(x_t, t)
        x0 = process.convert(y, x, t, Dense(len(x)), src=self.target, dst="x0")
        return Prediction(x0, x_t, t, process)


@pytest.mark.parametrize("target", ["x0", "eps", "v", "flow", "score"])
def test_what_a_network_predicts_does_not_matter(target: Target) -> None:
    exact = mixture()
    x = randn(8, 2)
    for solver in [*DETERMINISTIC, *MORE]:
        sampler = Sampler(solver, 8, start=START, stop=STOP)
        a, b = (tensor(sampler(d, x).x) for d in (exact, Through(exact, target)))
        assert float((a - b).abs().max()) < 1e-9, solver


@pytest.mark.parametrize("solver", MORE, ids=name)
def test_single_precision_ends_where_double_precision_does(solver: Solver) -> None:
    denoiser, x = mixture(), randn(16, 2)
    for steps in (20, 100):
        double = tensor(Sampler(solver, steps)(denoiser, x).x)
        single = tensor(Sampler(solver, steps)(denoiser, x.float()).x)
        assert single.dtype == torch.float32
        assert float((single - double).abs().max()) < 1e-4


@pytest.mark.parametrize("solver", [*MORE, *NOISY], ids=lambda s: type(s).__name__)
def test_a_sample_does_not_depend_on_its_batch(solver: Solver) -> None:
    denoiser, sampler, seeds = mixture(), Sampler(solver, 6), [3, 1, 4]
    x = tensor(denoiser.process.prior(torch.zeros(3, 2, dtype=torch.float64), Noise(seeds)))
    together = tensor(sampler(denoiser, x, seeds).x)
    each = [tensor(sampler(denoiser, x[i : i + 1], [seeds[i]]).x) for i in range(3)]
    assert torch.allclose(together, torch.cat(each), rtol=0, atol=1e-11)


def test_the_third_and_fourth_orders_start_with_more_calls_where_they_can() -> None:
    for p, extra in ((2, 0), (3, 1), (4, 2)):
        for solver in (DEIS(p), LMS(p)):
            assert Sampler(solver, 6, start=0.9)(mixture(), randn(4, 2)).nfe == 6 + extra
            assert (
                Sampler(solver, 6)(mixture(), randn(4, 2)).nfe == 6
            )  # from pure noise they cannot


def test_bdia_is_of_second_order_where_neighbouring_steps_are_alike_and_of_first_elsewhere() -> (
    None
):
    exact = float(FLOW.alpha(STOP) ** 2 * 0.3 + FLOW.sigma(STOP) ** 2)
    for gamma, order in ((1.0, 2), (0.8, 1)):
        error = []
        for n in (160, 320):
            sampler = Sampler(BDIA(gamma), n, LogSNR(), START, STOP)
            error.append(abs(gaussian_moments(sampler, FLOW, variance=0.3)[1] - exact))
        assert abs(math.log2(error[0] / error[1]) - order) < 0.1


def test_a_fall_of_the_error_as_fast_as_fourth_order_is_what_unipc_3_is_for() -> None:
    exact = float(FLOW.alpha(STOP) ** 2 * 0.3 + FLOW.sigma(STOP) ** 2)
    error = [
        abs(
            gaussian_moments(Sampler(UniPC(3), n, LogSNR(), START, STOP), FLOW, variance=0.3)[1]
            - exact
        )
        for n in (160, 320)
    ]
    assert math.log2(error[0] / error[1]) > 3.8


def test_an_amount_of_noise_that_ends_at_a_level_draws_none_below_it() -> None:
    solver = Multistep(2, eta=lambda log_snr: 1.0 if log_snr < -0.3 else 0.0)
    process = Gaussian(FLOW)
    windows = Sampler(solver, 40, LogSNR()).windows(process)
    for window, (_, rules) in zip(windows[1:], process.compile(solver, windows)[1:], strict=True):
        middle = float(FLOW.log_snr(window.start) + FLOW.log_snr(window.end or 1e-9)) / 2
        assert (rules[0].noise > 0) == (middle < -0.3)
