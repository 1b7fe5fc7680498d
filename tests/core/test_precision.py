"""The key laws under either default dtype: nothing mixes them up, nothing falls back to the coarser one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Preconditioned
from sciffusion.guidance import CFG
from sciffusion.noise import Noise
from sciffusion.objective import EDM, LogitNormal, Objective
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import Sampler
from sciffusion.schedule import Cosine, RectifiedFlow
from sciffusion.solver import Solver
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State
from sciffusion.testing import check_denoiser, check_layout, check_solver, measured_order
from tests.core.cases import SOLVERS, default_dtype, in_every_layout, mixture, name, randn


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"], autouse=True)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    with default_dtype(request.param):
        yield request.param


class Net(nn.Module):
    """On positions and classes, conditioned on one number per sample, in the default dtype."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pos, self.kind = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(
        self, x: State, level: Mapping[str, Tensor], cond: Condition, previous: State | None
    ) -> dict[str, Tensor]:
        layout, like = x.layout("pos"), x["pos"][..., :1]
        numbers = torch.zeros(layout.batch) if cond is None else cond
        extra = [layout.expand(c, like).expand_as(like) for c in (level["pos"], numbers)]
        h = torch.cat([x["pos"], x["kind"], *extra], -1)
        return {"pos": self.pos(h).sin(), "kind": self.kind(h)}


def denoiser() -> Preconditioned:
    process = Joint(
        {"pos": Gaussian(RectifiedFlow(), ZeroCoM()), "kind": Jump(Cosine(), Categorical(3))}
    )
    return Preconditioned(Net(), process, sigma_data={"pos": 1.0})


def states(dtype: torch.dtype) -> list[State]:
    return [
        State({"pos": f, "kind": torch.zeros_like(f[..., 0], dtype=torch.long)}, layout)
        for f, layout, _ in in_every_layout(dtype=dtype)
    ]


def test_layouts(dtype: torch.dtype) -> None:
    for field, layout, samples in in_every_layout(dtype=dtype):
        check_layout(layout, field, samples)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_coefficients_are_those_of_double_precision(solver: Solver, dtype: torch.dtype) -> None:
    with default_dtype(torch.float64):
        want = measured_order(solver)
    assert measured_order(solver) == want
    check_solver(solver, steps=(2,))


def test_a_denoiser(dtype: torch.dtype) -> None:
    for state in states(dtype):
        check_denoiser(denoiser(), state, torch.arange(float(state.batch)))


def test_training_and_guided_sampling_keep_the_dtype(dtype: torch.dtype) -> None:
    model = denoiser()
    objective = Objective(
        model.process, weight=EDM(), times=LogitNormal(), null=torch.tensor(0.0), drop=0.3
    )
    for state in states(dtype):
        cond, seeds = torch.arange(float(state.batch)), list(range(state.batch))
        loss = objective(model, state, cond, noise=Noise(seeds))
        assert loss.mean.dtype == dtype and bool(loss.mean.isfinite())
        loss.mean.backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in model.parameters())
        guided = CFG(model, cond, torch.zeros(state.batch), 2.0)
        start = model.process.prior(state, Noise(seeds))
        for solver in SOLVERS:
            end = Sampler(solver, 3)(guided, start, seeds).x
            assert isinstance(end, State)
            assert end["pos"].dtype == dtype and end["kind"].dtype == torch.long
            assert bool(state.layout("pos").clean(end["pos"]).isfinite().all())


def test_the_exact_denoiser_works_in_double_precision_within(dtype: torch.dtype) -> None:
    """Rounding enters once, with the value, and once, with the prediction."""
    x, t = randn(8, 2), torch.tensor(0.02, dtype=torch.float64)
    fine, coarse = mixture()(x, t).x0, mixture()(x.to(dtype), t).x0
    assert isinstance(fine, Tensor) and isinstance(coarse, Tensor) and coarse.dtype == dtype
    assert torch.allclose(coarse.double(), fine, rtol=0, atol=2e-6 if dtype == torch.float32 else 0)
