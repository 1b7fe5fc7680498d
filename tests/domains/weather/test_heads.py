"""How residuals are made and scored: by diffusion, in one pass, as a mean."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sciffusion.domains.weather.finetune import rollout_loss
from sciffusion.domains.weather.heads import Ensemble, SpectralScore, almost_fair_crps
from sciffusion.domains.weather.task import ObjectiveConfig
from sciffusion.harmonics import Harmonics, SphereGrid
from sciffusion.noise import Noise
from sciffusion.space import SphereField
from sciffusion.state import layout_of
from tests.domains.weather.tiny import config, task, untrained, world


@pytest.mark.parametrize("members", [2, 5])
def test_the_fair_score_of_perfect_members_does_not_depend_on_their_number(members: int) -> None:
    g = torch.Generator().manual_seed(0)
    drawn = torch.randn(200_000, members, generator=g)
    truth = torch.randn(200_000, generator=g)
    one = torch.ones(())
    fair = float(almost_fair_crps(drawn, truth, 1.0, one))
    assert fair == pytest.approx(1 / math.sqrt(math.pi), abs=5e-3)
    biased = float(almost_fair_crps(drawn, truth, 0.0, one))
    assert biased == pytest.approx(fair + 1 / (members * math.sqrt(math.pi)), abs=5e-3)


def test_weights_weigh_cells() -> None:
    drawn = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    truth = torch.tensor([[1.0, 3.0]])
    assert float(almost_fair_crps(drawn, truth, 1.0, torch.tensor([2.0, 0.0]))) == 1.0


def test_the_spectral_score_sees_what_cells_hardly_see() -> None:
    harmonics = Harmonics(SphereGrid.gauss(16, 32), 10, torch.float32)
    spectrum = torch.logspace(0, -3, 11)[None]
    space = SphereField(harmonics, spectrum)
    like = torch.empty(64, 1, 16, 32)
    truth = space.prior(like, layout_of(like), Noise(0))
    drawn = torch.stack([space.prior(like, layout_of(like), Noise(k)) for k in (1, 2)], 1)
    a = harmonics.analysis(drawn)
    smooth = harmonics.synthesis(a * (harmonics.degrees < 6)).to(drawn)
    score = SpectralScore(1.0, harmonics, spectrum)
    cells = [float(almost_fair_crps(x, truth, 1.0, torch.ones(()))) for x in (drawn, smooth)]
    coefficients = [float(score(x, truth, 1.0)) for x in (drawn, smooth)]
    assert abs(cells[1] / cells[0] - 1) < 0.05
    assert coefficients[1] > 1.15 * coefficients[0]
    assert coefficients[0] == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)


@pytest.mark.parametrize("head", ["ensemble", "mean"])
def test_one_step_of_a_rollout_is_the_plain_loss(head: str) -> None:
    made = task(config(head=head, targets=(12, 24)))
    module = untrained(made.config.model).module
    x, base = made.batch(np.arange(4), 0, torch.device("cpu"))
    weights = made.frame.weights(made.grid)
    plain = made.head.loss(
        module,
        made.frame.residual(x.targets, base),
        made.frame.condition(x.inputs, x.times, made.grid),
        Noise(3),
        weights,
    )
    rolled = rollout_loss(
        made.head, module, made.frame, x.inputs, x.targets, x.times, Noise(3), weights
    )
    assert float(rolled) == pytest.approx(float(plain), rel=1e-4)


def test_a_rollout_is_made_of_its_own_states() -> None:
    made = task(config(head="mean", targets=(12,)), objective=ObjectiveConfig(rollout=2))
    module = untrained(made.config.model).module
    x, _ = made.batch(np.arange(2), 0, torch.device("cpu"))
    assert x.targets.shape[1] == 2
    weights = made.frame.weights(made.grid)

    def loss(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return rollout_loss(
            made.head, module, made.frame, inputs, targets, x.times, Noise(0), weights
        )

    # the error of the second step does not depend on the first step's truth, but on the inputs
    moved = x.targets.clone()
    moved[:, 0] += 1.0
    second = 2 * loss(x.inputs, moved) - loss(x.inputs, moved[:, :1])
    assert float(second) == pytest.approx(
        float(2 * loss(x.inputs, x.targets) - loss(x.inputs, x.targets[:, :1])), rel=1e-3
    )
    inputs = x.inputs.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(
        2 * loss(inputs, x.targets) - loss(inputs, x.targets[:, :1]), inputs
    )
    assert float(gradient[:, -1].abs().max()) > 0


def test_a_diffusion_has_no_rollout() -> None:
    made = task(config(head="diffusion", targets=(12,)), objective=ObjectiveConfig(rollout=2))
    batch = made.batch(np.arange(2), 0, torch.device("cpu"))
    with pytest.raises(ValueError, match="set objective.rollout to 1"):
        made.loss(made.model(), batch, 0)


def test_without_noise_all_members_are_one_and_more_noise_spreads_them() -> None:
    model = untrained(config(head="ensemble", targets=(12,)))
    spreads = []
    for strength in (0.0, 0.5, 1.0):
        sampling = replace(model.sampling, strength=strength)
        out = replace(model, sampling=sampling).forecast(world(), 1, 4)
        spreads.append(float(out.z500.std("member").mean()))
    assert spreads[0] < 1e-3 < spreads[1] < spreads[2]


@pytest.mark.parametrize("head", ["ensemble", "mean", "diffusion"])
def test_nothing_is_made_beyond_the_degree_that_is_resolved(head: str) -> None:
    # the small world's equiangular grid of 8 rows has a quadrature for degrees up to 3
    model = untrained(
        config(head=head, inputs=(), targets=(0,), base="zero", lmax=2, noise="sphere")
    )
    times = np.array(["2001-01-05"], "datetime64[ns]")
    out = model.sample(2, times) if head != "mean" else model.sample(1, times)
    assert model.frame.grid is not None and model.frame.grid.sphere is not None
    x = torch.from_numpy(out.z500.values) - model.frame.scales.mean[0]
    harmonics = Harmonics(model.frame.grid.sphere, 3)
    power = harmonics.analysis(x.double()).square()
    assert float(power[..., harmonics.degrees == 3].max()) < 1e-8 * float(power.max())


def test_an_ensemble_without_spectral_score_is_its_cells_alone() -> None:
    g = torch.Generator().manual_seed(0)
    drawn, truth = torch.randn(3, 2, 1, 4, 4, generator=g), torch.randn(3, 1, 4, 4, generator=g)
    head = Ensemble()
    expected = almost_fair_crps(drawn, truth, head.fairness, torch.ones(()))
    assert torch.equal(head.score(drawn, truth, torch.ones(())), expected)
