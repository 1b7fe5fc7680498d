"""Every class of the core keeps its contract: classes are found by themselves, and one without a case fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from sciffusion.coupling import Align, Conditional, Coupling, Independent, Permutation
from sciffusion.denoiser import Conditioned, Denoiser, Preconditioned
from sciffusion.experts import TimeExperts
from sciffusion.grid import Beta, FlowTime, Grid, Karras, LogSNR, Power, Times, Uniform
from sciffusion.guidance import DynamicThreshold, Guidance, Perturbed, Sharpened
from sciffusion.guidance.base import Change
from sciffusion.interop.diffusers import DPMSolver2M, UniPCB
from sciffusion.inverse import (
    DPS,
    MMPS,
    SDA,
    Apart,
    HiddenFields,
    Known,
    KnownFields,
    Mask,
    Method,
    PiGDM,
    Posterior,
    Windowed,
)
from sciffusion.layout import Layout
from sciffusion.likelihood import Divergence, Exact, Hutchinson, HutchinsonPlusPlus
from sciffusion.noise import Noise
from sciffusion.objective import TimeSampler, Weight
from sciffusion.oracle import Categorical as CategoricalOracle
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.oracle import PointCloud
from sciffusion.oracle_jump import Sequences
from sciffusion.oracle_manifold import Atoms, Cardioid
from sciffusion.process import Gaussian, Geodesic, Joint, Jump, Process, Wrapped
from sciffusion.samplers import BDIA, LMS, EulerMaruyama
from sciffusion.schedule import VE, VP, Learned, RectifiedFlow, Schedule, Tabulated
from sciffusion.solver import Solver
from sciffusion.space import SO3, Categorical, Space, Sphere, Torus, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import (
    Knows,
    check_coupling,
    check_denoiser,
    check_divergence,
    check_grid,
    check_layout,
    check_process,
    check_schedule,
    check_solver,
    check_space,
    check_times,
    check_weight,
    final_classes,
)
from tests.core.cases import (
    SCHEDULES,
    SOLVERS,
    SPACES,
    TIMES,
    WEIGHTS,
    dense,
    in_every_layout,
    mixture,
    packed,
    padded,
    points,
    randn,
)
from tests.core.guided import GUIDANCES, TILTS, Dense4, network
from tests.core.pairs import Pairs, pair
from tests.core.series import Series

FLOW = RectifiedFlow()


@dataclass(frozen=True)
class Contract:
    """The contract of a kind of class: its base, the law's check, and the instances to check."""

    base: type
    check: Callable[[object], None]
    instances: Callable[[], Iterable[object]]


def outer(case: object) -> type:
    """The class that a case is about."""
    return type(case[0]) if isinstance(case, tuple) else type(case)


# --- what is checked on what -------------------------------------------------------------------------------------


def layout_cases() -> list[tuple[Layout, Tensor, list[Tensor]]]:
    return [(layout, layout.clean(field), samples) for field, layout, samples in in_every_layout()]


def the_layout(case: object) -> None:
    assert isinstance(case, tuple)
    check_layout(*case)


def the_schedule(case: object) -> None:
    assert isinstance(case, Schedule)
    with torch.no_grad():
        check_schedule(case)


def published() -> list[Solver]:
    """The variants with the weights of their papers."""
    return [DPMSolver2M(), UniPCB(2), UniPCB(3, "bh1")]


def tables() -> list[Schedule]:
    """DDPM's table, and one that ends on pure noise."""
    rates = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    ending = torch.cos(torch.linspace(0, 0.5 * torch.pi, 17, dtype=torch.float64)[1:]) ** 2
    ending[-1] = 0
    return [Tabulated((1 - rates).cumprod(0)), Tabulated(ending)]


def grid_cases() -> list[Grid]:
    own = Times(Uniform()(FLOW, 7))
    return [Uniform(), Power(2.0), LogSNR(), Karras(), Beta(), FlowTime(), FlowTime(3.0), own]


def the_grid(case: object) -> None:
    assert isinstance(case, Grid)
    steps = (7,) if isinstance(case, Times) else (1, 2, 3, 10, 64, 257)
    for schedule in (FLOW, VP(), VE()):
        check_grid(case, schedule, steps)


def the_solver(case: object) -> None:
    assert isinstance(case, Solver)
    # no other solver of ours is inexact where the prediction does not change
    check_solver(case, exact_for=None if isinstance(case, EulerMaruyama) else 0.0)


def space_cases() -> list[tuple[Space, Tensor, Layout]]:
    out: list[tuple[Space, Tensor, Layout]] = []
    for linear, features in SPACES:
        out.append((linear, *dense([randn(3, *features, seed=i) for i in range(3)])))
    for field, layout in (packed(points()), padded(points())):
        field = layout.clean(field)
        out.append((ZeroCoM(), field, layout))
        out += [(Torus(1.5), field, layout), (Sphere(), Sphere().project(field, layout), layout)]
        classes = torch.zeros_like(field[..., 0], dtype=torch.long)
        out += [(Categorical(4), classes, layout), (Categorical(4, True), classes, layout)]
    turns, even = dense([randn(2, 3, 3, seed=i) for i in range(3)])
    out.append((SO3(), SO3().project(turns, even), even))
    return out


def the_space(case: object) -> None:
    assert isinstance(case, tuple)
    check_space(*case)


def process_cases() -> list[tuple[Process, Value]]:
    field, layout = padded(points())
    field = layout.clean(field)
    kinds = layout.clean(torch.ones_like(field[..., 0], dtype=torch.long))
    processes = {"pos": Gaussian(FLOW, ZeroCoM()), "kind": Jump(FLOW, Categorical(3))}
    sphere = Sphere().project(randn(3, 4, 3), dense([randn(4, 3)] * 3)[1])
    return [
        (Gaussian(FLOW), randn(3, 4)),
        (Jump(FLOW, Categorical(3)), torch.randint(0, 3, (3, 5), generator=torch.Generator())),
        (Geodesic(FLOW, Sphere()), sphere),
        (Wrapped(VE(), Torus()), randn(3, 4, 3)),
        (Joint(processes), State({"pos": field, "kind": kinds}, layout)),
    ]


def the_process(case: object) -> None:
    assert isinstance(case, tuple)
    check_process(*case)


class Attending(nn.Module):
    """Self-attention over the points of a field."""

    def forward(self, x: Tensor, log_snr: Tensor, cond: None, previous: None) -> Tensor:
        q = x[:, None]
        out: Tensor = nn.functional.scaled_dot_product_attention(q, q, q)[:, 0]
        return out * log_snr.sigmoid()[:, None, None]


@cache
def denoiser_cases() -> list[tuple[Denoiser, Value, Tensor | None]]:
    """Denoisers with clean samples and, where they take one, a condition."""
    gaussian, x = Gaussian(FLOW), randn(3, 2)
    jump, classes = Jump(FLOW, Categorical(3)), torch.tensor([[0, 1], [2, 0], [1, 1]])
    cloud, layout = padded(points())
    net, inputs = network()
    cond = torch.tensor([0.5, 2.0, -0.7], dtype=torch.float64)
    null = torch.tensor(-1.0, dtype=torch.float64)
    exact = mixture(gaussian)
    series, both = randn(3, 4, 1), pair(randn(3, 1), randn(3, 1))
    attending = Preconditioned(Attending(), Gaussian(VP()), sigma_data=0.8)
    table = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)).double()
    out: list[tuple[Denoiser, Value, Tensor | None]] = [
        (Knows(x, gaussian), x, None),
        (exact, x, None),
        (GaussianOracle(torch.zeros(2).double(), torch.eye(2).double(), gaussian), x, None),
        (
            PointCloud(1.3, Gaussian(FLOW, ZeroCoM())),
            ZeroCoM().project(randn(3, 4, 3), dense([randn(4, 3)] * 3)[1]),
            None,
        ),
        (CategoricalOracle(torch.tensor([0.5, 0.3, 0.2]), jump), classes, None),
        (Sequences(table / table.sum(), jump), classes, None),
        (Sharpened(Sequences(table / table.sum(), jump), 0.5, 0.9), classes, None),
        (Atoms(torch.ones(3) / 3, torch.eye(3), Geodesic(FLOW, Sphere())), torch.eye(3), None),
        (Cardioid(0.5, Geodesic(FLOW, Torus())), x % 1, None),
        (net, inputs, cond),
        (net.given(cond), inputs, None),
        (Perturbed(attending, 2.0), randn(2, 5, 4), None),
        (DynamicThreshold(net.given(cond), (-1.0, 1.0)), inputs, None),
        (Windowed(exact_chain(), 3, dim=-1), randn(2, 6), None),
        (TimeExperts([net, network()[0]], [0.0]), inputs, cond),
        (Known(Series(), series, torch.tensor([True, False, True, False])), series, None),
        (KnownFields(Pairs(), both, {"a": torch.tensor([True, False, False])}), both, None),
        (Apart(Pairs()), both, None),
        (HiddenFields(Pairs(), ["b"]), both, None),
    ]
    known = Mask(torch.tensor([[True, False]]))
    for method in (MMPS(), PiGDM(), SDA(), DPS()):
        y = torch.tensor([[0.3]], dtype=torch.float64)
        out.append((Posterior(exact, known, observed(known, x, y), 0.3, method), x, None))
    out += [(case.build(net, cond, null, 2.0), inputs, None) for case in (*GUIDANCES, *TILTS)]
    assert isinstance(Dense4(), nn.Module) and cloud.shape[0] == layout.batch
    return out


def observed(operator: Mask, x: Tensor, y: Tensor) -> Value:
    """An observation of the kind that the operator returns."""
    return operator(torch.full_like(x, float(y)))


def exact_chain() -> GaussianOracle:
    """Windows of three elements of a stationary sequence."""
    cov = 0.5 ** (torch.arange(3)[:, None] - torch.arange(3)).abs().double()
    return GaussianOracle(torch.zeros(3).double(), cov, Gaussian(FLOW))


def the_denoiser(case: object) -> None:
    assert isinstance(case, tuple)
    check_denoiser(*case)


def the_weight(case: object) -> None:
    assert isinstance(case, Weight)
    for schedule in SCHEDULES:
        check_weight(case, schedule)


def the_times(case: object) -> None:
    assert isinstance(case, TimeSampler)
    for schedule in (FLOW, VP(), VE()):
        check_times(case, schedule)


def the_coupling(case: object) -> None:
    assert isinstance(case, Coupling)
    pytest.importorskip("scipy")
    cond = torch.tensor([0, 0, 1, 1, 2, 2])
    check_coupling(case, randn(6, 4, 3), cond, Gaussian(FLOW))


def the_divergence(case: object) -> None:
    assert isinstance(case, Divergence)
    check_divergence(case)


def the_method(case: object) -> None:
    assert isinstance(case, Method)
    mask, x = Mask(torch.tensor([[True, False]])), randn(3, 2)
    y = observed(mask, x, torch.zeros(1))
    check_denoiser(Posterior(mixture(), mask, y, 0.5, case), x)


CONTRACTS = [
    Contract(Layout, the_layout, layout_cases),
    Contract(Schedule, the_schedule, lambda: [*SCHEDULES, Learned(), *tables()]),
    Contract(Grid, the_grid, grid_cases),
    Contract(Solver, the_solver, lambda: [*SOLVERS, LMS(3), EulerMaruyama(), BDIA(), *published()]),
    Contract(Space, the_space, space_cases),
    Contract(Process, the_process, process_cases),
    Contract(Denoiser, the_denoiser, denoiser_cases),
    Contract(Weight, the_weight, lambda: WEIGHTS),
    Contract(TimeSampler, the_times, lambda: TIMES),
    Contract(
        Coupling, the_coupling, lambda: [Independent(), Permutation(), Conditional(), Align()]
    ),
    Contract(Divergence, the_divergence, lambda: [Exact(), Hutchinson(2), HutchinsonPlusPlus(3)]),
    Contract(Method, the_method, lambda: [MMPS(), PiGDM(), SDA(), DPS()]),
]
FOUND = [
    (contract, one)
    for contract in CONTRACTS
    for one in final_classes(contract.base)
    if one not in (Guidance, Change)  # bases of guidances, which add no prediction of their own
]


@pytest.mark.parametrize(
    ("contract", "one"), FOUND, ids=[f"{c.base.__name__}-{one.__name__}" for c, one in FOUND]
)
def test_every_class_has_a_case_and_keeps_its_contract(contract: Contract, one: type) -> None:
    cases = [case for case in contract.instances() if outer(case) is one]
    assert cases, (
        f"{one.__module__}.{one.__name__} is a {contract.base.__name__} without a case: add an instance to "
        f"the cases of that contract, so that its laws are checked"
    )
    for case in cases[:2]:
        contract.check(case)


def test_a_class_without_a_case_is_found() -> None:
    class Unknown(Weight):
        def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
            return torch.ones_like(t)

    Unknown.__module__ = "sciffusion.unknown"
    try:
        assert Unknown in final_classes(Weight)
        assert all(outer(case) is not Unknown for case in WEIGHTS)
        Unknown.__module__ = "sciffusion.domains.unknown"  # domains check their own
        assert Unknown not in final_classes(Weight)
    finally:
        Unknown.__module__ = "tests"
    assert Unknown not in final_classes(Weight)


def test_the_search_finds_what_it_should() -> None:
    solvers = final_classes(Solver)
    assert {type(s) for s in SOLVERS} <= set(solvers)
    assert Conditioned in final_classes(Denoiser)
    assert not any(one.__module__.startswith("sciffusion.domains") for one in solvers)
    assert Noise not in final_classes(Layout)
