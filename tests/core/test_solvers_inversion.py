"""Inversion: what a run makes of data leads back to them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Preconditioned
from sciffusion.grid import Times
from sciffusion.layout import Dense
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import BDIA, DDIM, Heun, Restart, Sampler, invert, revert
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import split
from tests.core.cases import mixture, name, packed, padded, points, randn, rng

FLOW = RectifiedFlow()
CURVES: list[Schedule] = [FLOW, VP(), VE(), Cosine()]


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def random_network(schedule: Schedule) -> Preconditioned:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2))

        def forward(
            self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None
        ) -> Tensor:
            return self.layers(torch.cat([x, level[:, None].to(x) / 10], 1))

    torch.manual_seed(0)
    return Preconditioned(Net().double(), Gaussian(schedule), sigma_data=1.0)


@pytest.mark.parametrize("known", [True, False], ids=["mixture", "network"])
@pytest.mark.parametrize("schedule", CURVES, ids=name)
def test_what_bdia_encodes_it_decodes_to_rounding_error(schedule: Schedule, known: bool) -> None:
    denoiser: Denoiser = mixture(Gaussian(schedule)) if known else random_network(schedule)
    x0 = mixture().sample(16, rng())
    for steps in (2, 5, 40):
        for gamma, tol in ((1.0, 1e-10), (0.9, 1e-8)):
            sampler = Sampler(BDIA(gamma), steps)
            up = invert(sampler, denoiser, x0)
            assert up.nfe == steps and len(up.path) == steps + 1 and up.path[-1] is up.x
            assert float((tensor(revert(sampler, denoiser, up).x) - x0).abs().max()) < tol


def test_data_that_were_decoded_are_encoded_to_the_same_values() -> None:
    sampler, denoiser, x0 = Sampler(BDIA(), 12), mixture(), mixture().sample(4, rng())
    up = invert(sampler, denoiser, x0)
    again = invert(sampler, denoiser, revert(sampler, denoiser, up).x)
    for a, b in zip(up.path, again.path, strict=True):
        assert torch.allclose(tensor(a), tensor(b), rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", CURVES, ids=name)
def test_more_iterations_make_the_inversion_of_ddim_exact(schedule: Schedule) -> None:
    denoiser = mixture(Gaussian(schedule))
    x0, errors = denoiser.sample(16, rng()), []
    for iterations in (1, 3, 40):
        sampler = Sampler(DDIM(), 20)
        up = invert(sampler, denoiser, x0, iterations=iterations)
        assert up.nfe == 20 * iterations
        errors.append(float((tensor(revert(sampler, denoiser, up).x) - x0).abs().max()))
    assert errors[0] < 0.2 and errors[1] < 0.2 * errors[0] and errors[2] < 1e-12


def test_one_iteration_inverts_ddim_with_an_error_of_first_order() -> None:
    denoiser, errors = mixture(), []
    x0 = denoiser.sample(16, rng())
    for steps in (100, 200):
        sampler = Sampler(DDIM(), steps)
        up = invert(sampler, denoiser, x0)
        errors.append(float((tensor(revert(sampler, denoiser, up).x) - x0).abs().max()))
    assert abs(math.log2(errors[0] / errors[1]) - 1) < 0.15


def test_many_steps_lead_to_the_noise_of_the_closed_form() -> None:
    cov = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
    oracle = GaussianOracle(torch.tensor([0.5, -1.0]).double(), cov, Gaussian(FLOW))
    start, stop = float(FLOW.time(-6.0)), float(FLOW.time(6.0))
    x = randn(8, 2)
    low = oracle.flow(x, start, stop)
    for solver, tol in ((DDIM(), 0.06), (BDIA(), 2e-3)):
        up = invert(Sampler(solver, 200, start=start, stop=stop), oracle, low, iterations=4)
        assert float((tensor(up.x) - x).abs().max()) < tol


def test_encoded_data_have_the_statistics_of_the_prior() -> None:
    denoiser = mixture()
    x0 = denoiser.sample(4000, rng())
    for solver in (DDIM(), BDIA()):
        noise = tensor(invert(Sampler(solver, 100), denoiser, x0, iterations=3).x)
        assert torch.allclose(noise.mean(0), torch.zeros(2).double(), atol=0.08)
        assert torch.allclose(noise.T.cov(), torch.eye(2).double(), atol=0.12)


@pytest.mark.parametrize("solver", [DDIM(), BDIA()], ids=name)
def test_clouds_are_inverted_alone_as_in_any_batch(solver: DDIM | BDIA) -> None:
    class Net(nn.Module):
        def forward(
            self, x: State, level: dict[str, Tensor], cond: Condition, previous: Value | None
        ) -> dict[str, Tensor]:
            return {"pos": x["pos"].sin(), "charge": x["charge"].tanh()}

    process = Joint({"pos": Gaussian(FLOW, ZeroCoM()), "charge": Gaussian(VP())})
    denoiser = Preconditioned(Net(), process, sigma_data={"pos": 1.0, "charge": 0.5})
    samples, sampler = points((4, 2, 1)), Sampler(solver, 12)
    ends, starts = [], []
    for field, layout in (padded(samples), packed(samples), packed(samples[:1])):
        clean = process.field("pos").space.project(field, layout)
        x0 = State({"pos": layout.clean(clean), "charge": layout.clean(field[..., :1])}, layout)
        up = invert(sampler, denoiser, x0, iterations=60)
        down = revert(sampler, denoiser, up).x
        for k in ("pos", "charge"):
            for a, b in zip(split(down, k), split(x0, k), strict=True):
                assert torch.allclose(a, b, rtol=0, atol=1e-8)
        starts.append(split(up.x, "pos"))
        ends.append(down)
    for a, b in zip(starts[0], starts[1], strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)
    assert torch.allclose(starts[2][0], starts[0][0], rtol=0, atol=1e-9)


def test_every_sample_may_be_inverted_on_a_grid_of_its_own() -> None:
    rows = torch.tensor([[0.9, 0.6, 0.3, 0.1, 0.0], [0.9, 0.5, 0.4, 0.2, 0.0]], dtype=torch.float64)
    denoiser, x0 = mixture(), mixture().sample(2, rng())
    for solver in (DDIM(), BDIA()):
        both = Sampler(solver, 4, Times(rows), 0.9)
        up = invert(both, denoiser, x0, iterations=5)
        for i in range(2):
            alone = invert(
                Sampler(solver, 4, Times(rows[i]), 0.9), denoiser, x0[i : i + 1], iterations=5
            )
            assert torch.allclose(tensor(up.x)[i], tensor(alone.x)[0], rtol=0, atol=1e-12)
        if isinstance(solver, BDIA):
            assert torch.allclose(tensor(revert(both, denoiser, up).x), x0, rtol=0, atol=1e-11)


def test_what_cannot_be_undone_is_refused() -> None:
    denoiser, x0 = mixture(), randn(2, 2)
    for sampler in (
        Sampler(Heun(), 5),
        Sampler(DDIM(0.5), 5),
        Sampler(DDIM(), 5, restarts=(Restart(0.2, 0.5),)),
    ):
        with pytest.raises(ValueError, match="only runs of DDIM.. or BDIA.."):
            invert(sampler, denoiser, x0)
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        invert(Sampler(DDIM(), 5), denoiser, x0, iterations=0)
    jump = Jump(FLOW, Categorical(3))

    class Flat(Denoiser):
        process = Joint({"k": jump})

        def forward(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
            raise AssertionError("must not be called")

    classes = State({"k": torch.zeros(2, 1, dtype=torch.long)}, Dense(2))
    with pytest.raises(ValueError, match="the field 'k' is not Gaussian"):
        invert(Sampler(DDIM(), 5), Flat(), classes)
