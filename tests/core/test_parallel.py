"""Runs with all their times at once: the sequential run's end, in fewer rounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import Times, Uniform
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import DDIM, Heun, Multistep, Restart, Sampler
from sciffusion.samplers.parallel import Parallel
from sciffusion.schedule import RectifiedFlow, TrigFlow
from sciffusion.solver import Solver
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State, Value
from tests.core.cases import mixture, name, packed, padded, points, randn

FLOW = RectifiedFlow()


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


class Spread(Denoiser):
    """The exact denoiser of data whose numbers are independent, N(0, 0.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.process = Gaussian(FLOW)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        alpha, sigma = (c.reshape(-1, 1) for c in self.process.clock(t))
        gain = 0.3 * alpha / (0.3 * alpha**2 + sigma**2)
        return Prediction(gain * tensor(x_t), x_t, t, self.process)


SOLVERS = [DDIM(), DDIM(1.0), Multistep(2), Multistep(2, 1.0)]


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_without_tolerance_the_end_is_that_of_the_sequential_run(solver: Solver) -> None:
    sampler, x, seeds = Sampler(solver, 12), randn(5, 2), [3, 1, 4, 1, 5]
    want = tensor(sampler(mixture(), x, seeds).x)
    got = Parallel(sampler, 0.0)(mixture(), x, seeds)
    assert torch.allclose(tensor(got.x), want, rtol=0, atol=1e-12)
    # every round settles one more value, whose prediction need not be repeated
    assert got.rounds <= 12 and got.nfe <= sum(12 - i for i in range(got.rounds))


def test_how_far_a_sample_moves_does_not_depend_on_how_many_numbers_it_has() -> None:
    sampler, x = Sampler(DDIM(), 30, Uniform()), randn(3, 1)
    one, many = (Parallel(sampler, 1e-3)(Spread(), v) for v in (x, x.repeat(1, 400)))
    assert one.rounds == many.rounds < 30
    assert torch.allclose(tensor(many.x), tensor(one.x).expand(3, 400), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_the_end_is_within_the_tolerance_and_takes_fewer_rounds_than_steps(
    tolerance: float,
) -> None:
    sampler, x = Sampler(DDIM(), 100, Uniform()), randn(16, 2)
    want = tensor(sampler(mixture(), x).x)
    got = Parallel(sampler, tolerance)(mixture(), x)
    assert float((tensor(got.x) - want).abs().max()) < 10 * tolerance
    assert got.rounds < 50


def test_batch_mates_change_nothing() -> None:
    parallel, x = Parallel(Sampler(DDIM(0.5), 20), 1e-2), randn(4, 2)
    whole = tensor(parallel(mixture(), x, [1, 2, 3, 4]).x)
    for i in range(4):
        alone = tensor(parallel(mixture(), x[i : i + 1], [i + 1]).x)
        assert torch.allclose(alone, whole[i : i + 1], rtol=0, atol=1e-12)


def test_states_with_classes_and_clouds_run_in_every_layout() -> None:
    process = Joint(
        {"pos": Gaussian(FLOW, ZeroCoM()), "kind": Jump(TrigFlow(), Categorical(4))}, clock="pos"
    )

    class Both(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = process
            self.cloud = oracle.PointCloud(1.3, process, "pos")
            self.classes = oracle.Categorical(torch.tensor([0.4, 0.3, 0.2, 0.1]), process, "kind")

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            pos, kind = self.cloud(x_t, t).x0, self.classes(x_t, t).x0
            assert isinstance(pos, State) and isinstance(kind, State)
            return Prediction(pos.replace({"kind": kind["kind"]}), x_t, t, process)

    for field, layout in (packed(points()), padded(points())):
        like = State({"pos": field, "kind": torch.zeros_like(field[..., 0]).long()}, layout)
        start = process.prior(like, Noise([1, 2, 3, 4]))
        sampler = Sampler(DDIM(0.5), 6)
        want = sampler(Both(), start, [5, 6, 7, 8]).x
        got = Parallel(sampler, 0.0)(Both(), start, [5, 6, 7, 8]).x
        assert isinstance(got, State) and isinstance(want, State)
        assert torch.allclose(got["pos"], want["pos"], rtol=0, atol=1e-12)
        assert torch.equal(got["kind"], want["kind"])


def test_samples_may_follow_grids_of_their_own() -> None:
    times = torch.stack([torch.linspace(1, 0, 9), torch.linspace(1, 0, 9) ** 2]).double()
    sampler, x = Sampler(Multistep(2), 8, Times(times)), randn(2, 2)
    got = Parallel(sampler, 0.0)(mixture(), x).x
    assert torch.allclose(tensor(got), tensor(sampler(mixture(), x).x), rtol=0, atol=1e-12)


class Leaning(Denoiser):
    """Certain that the data are the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.process = Gaussian(FLOW)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor) and len(cond) in (1, len(x_t))
        return Prediction(0.9 * cond + 0.1 * x_t, x_t, t, self.process)


def test_the_condition_is_laid_out_for_every_time() -> None:
    sampler, x, cond = Sampler(DDIM(), 7), randn(3, 2), randn(3, 2, seed=1)
    got = Parallel(sampler, 0.0)(Leaning(), x, cond=cond).x
    want = sampler(Leaning().given(cond), x).x
    assert torch.allclose(tensor(got), tensor(want), rtol=0, atol=1e-12)
    bound = Parallel(sampler, 0.0)(Leaning(), x, cond=cond, bind=lambda d, c: d.given(2 * c)).x
    twice = sampler(Leaning().given(2 * cond), x).x
    assert torch.allclose(tensor(bound), tensor(twice), rtol=0, atol=1e-12)
    one = Parallel(sampler, 0.0)(Leaning(), x, cond=cond[:1]).x
    same = sampler(Leaning().given(cond[:1].expand(3, 2)), x).x
    assert torch.allclose(tensor(one), tensor(same), rtol=0, atol=1e-12)
    for rows in (2, 6):
        with pytest.raises(ValueError, match=rf"cond holds a tensor of shape \({rows}, 2\)"):
            Parallel(sampler, 0.0)(Leaning(), x, cond=randn(rows, 2))


def test_a_condition_that_is_a_state_is_laid_out_sample_by_sample() -> None:
    class Centred(Denoiser):
        """Certain that the data are the mean over the condition's points."""

        def __init__(self) -> None:
            super().__init__()
            self.process = Gaussian(FLOW)

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            layout, x = cond.layout("pos"), tensor(x_t)
            total = layout.pool(cond["pos"]) / layout.points(cond["pos"])[:, None]
            return Prediction(0.9 * total + 0.1 * x, x_t, t, self.process)

    sampler, x = Sampler(DDIM(), 5), randn(4, 3)
    field, layout = packed(points())
    cond = State({"pos": field}, layout)
    got = Parallel(sampler, 0.0)(Centred(), x, cond=cond).x
    want = sampler(Centred().given(cond), x).x
    assert torch.allclose(tensor(got), tensor(want), rtol=0, atol=1e-12)


class Moving(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.process = Gaussian(FLOW)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        return Prediction(x_t, x_t + 1, t, self.process)


def test_what_cannot_run_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance must not be negative"):
        Parallel(Sampler(DDIM()), -1.0)
    with pytest.raises(ValueError, match="take a solver with one evaluation"):
        Parallel(Sampler(Heun(), 4))(mixture(), randn(2, 2))
    restarted = Sampler(DDIM(), 4, restarts=(Restart(0.25, 0.75),))
    with pytest.raises(ValueError, match="without churn and restarts"):
        Parallel(restarted)(mixture(), randn(2, 2))
    with pytest.raises(ValueError, match="moves the point"):
        Parallel(Sampler(DDIM(), 4))(Moving(), randn(2, 2))
    state = State({"a": randn(2, 2)}, Dense(2), {"edges": torch.zeros(1)})
    joint = Joint({"a": Gaussian(FLOW)})
    cov = torch.eye(2).double()
    with pytest.raises(ValueError, match="cannot be rearranged"):
        exact = oracle.Gaussian(torch.zeros(2).double(), cov, joint)
        Parallel(Sampler(DDIM(), 4))(exact, state)
