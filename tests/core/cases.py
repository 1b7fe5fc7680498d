"""What the core's tests share: the schedules, the solvers, and exact denoisers of known distributions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sciffusion.harmonics import Harmonics, SphereGrid
from sciffusion.layout import Dense, Layout, Masked, Packed
from sciffusion.objective import (
    EDM,
    Between,
    CosMap,
    Likelihood,
    LogitNormal,
    LogNormal,
    LogUniform,
    MinSNR,
    ModeTimes,
    Sigmoid,
    Stratified,
    TimeSampler,
    UniformTimes,
    Weight,
)
from sciffusion.oracle import Mixture
from sciffusion.process import Gaussian, Process
from sciffusion.samplers import (
    DDIM,
    DEIS,
    ERSDE,
    Ancestral,
    Heun,
    Langevin,
    Multistep,
    SASolver,
    Singlestep,
    UniPC,
)
from sciffusion.schedule import (
    VE,
    VP,
    Cosine,
    Interpolant,
    Laplace,
    Polynomial,
    RectifiedFlow,
    ScaledLinear,
    Schedule,
    SigmoidSchedule,
    SubVP,
    TrigFlow,
    ZeroTerminalSNR,
)
from sciffusion.solver import Solver
from sciffusion.space import (
    BySize,
    Chain,
    Coloured,
    Euclidean,
    LinearSpace,
    SphereField,
    StudentT,
    ZeroCoM,
)

CURVED = Interpolant(lambda t: (1 - t) ** 2 * (1 + t), lambda t: t * (2 - t))
PRESERVING: list[Schedule] = [
    VP(),
    VP(5.0, 5.0),
    Cosine(),
    Cosine(0.0),
    Polynomial(),
    Polynomial(1.0),
    Polynomial(3.0, 0.0),
    TrigFlow(),
    ScaledLinear(),
    SigmoidSchedule(),
    Laplace(),
    ZeroTerminalSNR(ScaledLinear()),
]
SCHEDULES: list[Schedule] = [
    *PRESERVING,
    VE(),
    VE(0.0, 80.0, rho=1.0),
    SubVP(),
    RectifiedFlow(),
    CURVED,
    RectifiedFlow().shift(3.0),
    Polynomial().shift(0.3),
    Cosine().shift(0.5),
    VE().shift(2.0),
]
DETERMINISTIC: list[Solver] = [
    DDIM(),
    Heun(),
    Multistep(1),
    Multistep(2),
    Multistep(3),
    Singlestep(2),
    UniPC(2),
    DEIS(3),
]
STOCHASTIC: list[Solver] = [
    DDIM(0.5),
    DDIM(1.0),
    Ancestral(),
    Heun(churn=8.0),
    Multistep(1, eta=0.5),
    Multistep(2, eta=0.5),
    Multistep(2, eta=1.0),
    Multistep(3, eta=1.0),
    Singlestep(2, eta=1.0),
    SASolver(2, 2, eta=0.5),
    ERSDE(2),
    Langevin(),
]
SOLVERS = [*DETERMINISTIC, *STOCHASTIC]
WEIGHTS: list[Weight] = [EDM(0.5), MinSNR(), MinSNR(4.0, soft=True), Sigmoid(-1.0), Likelihood()]
TIMES: list[TimeSampler] = [
    UniformTimes(),
    UniformTimes(0.2, 0.4),
    LogitNormal(-0.5, 2.0),
    LogNormal(),
    LogUniform(0.05, 20.0),
    ModeTimes(),
    ModeTimes(-0.5),
    CosMap(),
    Between(LogitNormal(), -3.0, 2.0),
    Stratified(LogitNormal()),
]
SIZES = (4, 2, 1, 5)
_CHANNELS = torch.tensor([1.0, 0.3])[:, None]
SPACES: list[tuple[LinearSpace, tuple[int, ...]]] = [
    # linear spaces, each with the shape of a point's features
    (Euclidean(), (3,)),
    (Euclidean(0.3), (3,)),
    (Euclidean(torch.tensor([0.5, 1.0, 2.0])), (3,)),
    (Euclidean(BySize(2.0, -1 / 3)), (3,)),
    (ZeroCoM(), (3,)),
    (ZeroCoM(2.0), (3,)),
    (ZeroCoM(BySize(2.0, -1 / 3)), (3,)),
    (Chain(), (3,)),
    (Chain(0.5), (2, 2)),
    (Coloured(lambda k: 1 / (0.1 + k), dims=1), (5,)),
    (Coloured(lambda k: 1 / (0.1 + k) ** 2, scale=0.7), (2, 4, 5)),
    (Coloured(lambda k: k, dims=1, scale=1.5), (6,)),
    (Coloured(lambda k: torch.stack([1 + k, (k > 0.3).double()])), (2, 3, 4)),
    (Coloured(lambda k: (-9 * k**2).exp(), dims=3), (2, 3, 4)),
    (SphereField(Harmonics(SphereGrid.gauss(4, 7), 3), torch.tensor([2.0, 1.0, 0.5, 0.2])), (4, 7)),
    (
        SphereField(
            Harmonics(SphereGrid.regular(5, 6, poles=True), 2),
            _CHANNELS / torch.tensor([1.0, 2.0, 4.0]),
        ),
        (2, 5, 6),
    ),
    (StudentT(5.0, 0.7), (3,)),
    (StudentT(12.5), (2, 2)),
]


def allowed(solver: Solver, *steps: int) -> list[int]:
    """Those of the numbers of steps that are enough for a solver."""
    return [n for n in steps if n >= solver.fewest]


def name(case: object) -> str:
    """A short test id, the same in every process: without the addresses of functions."""
    if isinstance(case, Interpolant):
        return "Interpolant"
    return re.sub(r" at 0x[0-9a-f]+", "", str(case)).replace("sciffusion.", "")


def kind(case: object) -> str:
    """A short test id for what has no short text: its class, or the value itself."""
    return str(case) if isinstance(case, tuple) else type(case).__name__


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def points(
    sizes: Sequence[int] = SIZES, features: Sequence[int] = (3,), dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Samples of different sizes."""
    return [randn(n, *features, seed=i, dtype=dtype) for i, n in enumerate(sizes)]


def padded(samples: Sequence[Tensor]) -> tuple[Tensor, Masked]:
    """The samples in one padded field, with NaN where none of them is."""
    n = max(len(s) for s in samples) + 1
    fill = float("nan") if samples[0].is_floating_point() else -1
    field = torch.full((len(samples), n, *samples[0].shape[1:]), fill, dtype=samples[0].dtype)
    for row, s in zip(field, samples, strict=True):
        row[: len(s)] = s
    return field, Masked(torch.tensor([[i < len(s) for i in range(n)] for s in samples]))


def packed(samples: Sequence[Tensor]) -> tuple[Tensor, Packed]:
    """The samples end to end."""
    sizes = torch.tensor([len(s) for s in samples])
    index = torch.repeat_interleave(torch.arange(len(samples)), sizes)
    return torch.cat(list(samples)), Packed(index, len(samples))


def dense(samples: Sequence[Tensor]) -> tuple[Tensor, Dense]:
    """Samples of one size, one per row."""
    return torch.stack(list(samples)), Dense(len(samples))


def in_every_layout(
    features: Sequence[int] = (3,), dtype: torch.dtype = torch.float64
) -> list[tuple[Tensor, Layout, list[Tensor]]]:
    """A field, its layout and its samples: padded, packed and dense."""
    ragged, even = points(features=features, dtype=dtype), points((3, 3, 3), features, dtype)
    return [(*padded(ragged), ragged), (*packed(ragged), ragged), (*dense(even), even)]


def mixture(process: Process | None = None, *, shift: float = 0.0) -> Mixture:
    """Three correlated modes in two dimensions, off the origin."""
    means = torch.tensor([[1.2, -0.4], [-0.9, 0.7], [0.1, 1.3]], dtype=torch.float64) + shift
    factors = torch.tensor(
        [[[0.5, 0.0], [0.3, 0.2]], [[0.3, 0.0], [-0.2, 0.5]], [[0.2, 0.0], [0.1, 0.4]]],
        dtype=torch.float64,
    )
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return Mixture(weights, means, factors @ factors.mT, process or Gaussian(RectifiedFlow()))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
