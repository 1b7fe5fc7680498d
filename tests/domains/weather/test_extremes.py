"""Rare events of a Gaussian climate, whose probabilities are known, drawn by guidance and weighted back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.domains.weather.extremes import (
    Extremes,
    Tail,
    Tilted,
    Weighted,
    box_mean,
    tilt_for,
    tilted,
)
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.domains.weather.scales import Scales
from sciffusion.oracle import Gaussian as Oracle
from sciffusion.process import Gaussian
from sciffusion.samplers import Ancestral, Sampler
from sciffusion.schedule import RectifiedFlow
from tests.domains.weather.tiny import config, task

C, H, W = 2, 2, 2
SHAPE = (C, H, W)
SCALES = Scales(
    torch.tensor([5500.0, 280.0]).double()[:, None, None],
    torch.tensor([80.0, 3.0]).double()[:, None, None],
)
AREA = torch.tensor([[0.8], [1.2]]).double()
WARM = box_mean(AREA, torch.tensor([[True, True], [True, False]]), 1)
SETTINGS = Extremes(Sampler(Ancestral(1.0), 32), particles=16, replicas=24, together=24)


def climate() -> tuple[Oracle, float, float]:
    """A denoiser with correlated cells, and the mean and deviation of the functional under it.

    Its direction has unit variance in normalised units, for which the sampler's steps are exact; all others have half.
    """
    units = SCALES.restore(torch.eye(8).double().reshape(8, *SHAPE))
    mean = float(WARM(SCALES.restore(torch.zeros(1, *SHAPE).double())))
    row = WARM(units) - mean
    along = row / row.norm()
    cov = 0.5 * (torch.eye(8) + torch.outer(along, along))
    oracle = Oracle(torch.zeros(8).double(), cov, Gaussian(RectifiedFlow()))
    return oracle, mean, float(row.norm())


def normal_tail(deviations: float) -> float:
    return 0.5 * math.erfc(deviations / 2**0.5)


def run(tilt: float, settings: Extremes = SETTINGS, seed: int = 0) -> Tilted:
    return tilted(climate()[0], SCALES, WARM, tilt, SHAPE, settings, seed, dtype=torch.float64)


def test_a_tail_that_plain_sampling_never_sees_comes_out_within_its_error() -> None:
    """Three and four deviations: 1 in 741 and 1 in 31574; 384 particles."""
    _, mean, deviation = climate()
    plain, steered = run(0.0), run(3.5 / deviation)
    for far in (3.0, 4.0):
        threshold = mean + far * deviation
        assert plain.weighted.tail(threshold).probability == 0
        found = steered.weighted.tail(threshold)
        assert 0 < found.error < 0.25 * found.probability
        assert found.probability == pytest.approx(normal_tail(far), abs=3 * found.error)
        assert found.ess > 30
        period, low, high = found.return_period(every=0.5)
        assert low < period < high
        assert period == pytest.approx(0.5 / found.probability)
        level = steered.weighted.return_level(found.probability)
        assert level == pytest.approx(threshold, abs=0.2 * deviation)


def test_weights_bring_back_the_mean_of_the_prior() -> None:
    _, mean, deviation = climate()
    mild = run(0.7 / deviation)
    assert float(mild.weighted.values.mean()) > mean + 0.4 * deviation
    for normalised in (False, True):
        got, error = mild.weighted.expectation(mild.weighted.values - mean, normalised=normalised)
        assert abs(got) < 4 * error
        assert error < 0.2 * deviation
    one, error = mild.weighted.expectation(torch.ones_like(mild.weighted.values), normalised=True)
    assert one == pytest.approx(1) and error == pytest.approx(0, abs=1e-9)
    total, error = mild.weighted.expectation(torch.ones_like(mild.weighted.values))
    assert total == pytest.approx(1, abs=4 * error)


def test_without_a_tilt_all_particles_weigh_the_same() -> None:
    plain = run(0.0)
    assert torch.allclose(
        plain.weighted.log_weights, torch.full_like(plain.weighted.log_weights, -math.log(16))
    )
    assert plain.ess == pytest.approx(16)
    median = plain.weighted.tail(climate()[1])
    assert median.probability == pytest.approx(0.5, abs=4 * median.error)


def test_fields_are_those_that_the_values_belong_to() -> None:
    out = run(1.0, Extremes(Sampler(Ancestral(1.0), 8), particles=3, replicas=4, together=3))
    assert out.fields.shape == (4, 3, *SHAPE)
    assert torch.allclose(WARM(out.fields.flatten(0, 1)), out.weighted.values.flatten())


def test_a_replica_depends_on_its_seed_and_number_alone() -> None:
    sampler = Sampler(Ancestral(1.0), 8)
    a = run(2.0, Extremes(sampler, particles=4, replicas=5, together=5), seed=3)
    b = run(2.0, Extremes(sampler, particles=4, replicas=2, together=1), seed=3)
    assert torch.allclose(a.fields[:2], b.fields)
    assert torch.allclose(a.weighted.log_weights[:2], b.weighted.log_weights)
    assert not torch.allclose(run(2.0, Extremes(sampler, 4, 2), seed=4).fields, b.fields)


def test_the_suggested_tilt_centres_the_values_on_the_threshold() -> None:
    oracle, mean, deviation = climate()
    threshold = mean + 2 * deviation
    tilt = tilt_for(
        oracle,
        SCALES,
        WARM,
        threshold,
        SHAPE,
        Sampler(Ancestral(1.0), 16),
        samples=256,
        dtype=torch.float64,
    )
    assert tilt == pytest.approx(2 / deviation, rel=0.3)
    assert float(run(tilt).weighted.values.mean()) == pytest.approx(threshold, abs=0.5 * deviation)


def test_box_means_are_weighted_by_area() -> None:
    x = torch.arange(8.0).double().reshape(1, *SHAPE)
    assert float(WARM(x)) == pytest.approx((0.8 * (4 + 5) + 1.2 * 6) / 2.8)
    window: Tensor = torch.stack([x, x + 2], 1)
    assert float(WARM(window)) == pytest.approx(float(WARM(x)) + 1)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="replicas must be at least 2"):
        Extremes(replicas=1)
    with pytest.raises(ValueError, match="tilt must be finite"):
        run(float("nan"))
    with pytest.raises(ValueError, match="box must be a boolean mask"):
        box_mean(AREA, torch.zeros(2, 2) > 0, 0)
    with pytest.raises(ValueError, match="which these particles resolve"):
        run(0.0).weighted.return_level(1e-9)
    assert Tail(0.0, 0.0, 0.0, 0.0).return_period() == (math.inf, math.inf, math.inf)


BOX = (slice(2, 5), slice(3, 9))


def mild(fields: Mapping[str, Tensor]) -> Tensor:
    """A mean of heights over a box."""
    return fields["z500"][..., *BOX].flatten(1).mean(1)


@pytest.fixture(scope="module")
def gaussian() -> tuple[WeatherModel, float, float]:
    """A prior whose network makes zeros: by its preconditioning the exact denoiser of white residuals.

    With it the mean and the deviation of the functional.
    """
    settings = config(
        head="diffusion", inputs=(), targets=(0,), base="cell", schedule="rectified-flow"
    )
    made = task(settings)
    weights = {k: torch.zeros_like(v) for k, v in made.model().state_dict().items()}
    model = WeatherModel.from_training(made, weights)
    frame = model.frame
    assert frame.cell is not None
    cell = frame.decode(frame.cell)[0][BOX]
    deviation = float(frame.scales.std[0] * frame.spread[0, 0]) / cell.numel() ** 0.5
    return model, float(cell.mean()), deviation


def test_a_model_draws_its_tail_and_knows_how_rare_it_is(
    gaussian: tuple[WeatherModel, float, float],
) -> None:
    """Three deviations, 1 in 741, out of 192 members."""
    model, mean, deviation = gaussian
    settings = Extremes(Sampler(Ancestral(1.0), 24), particles=16, replicas=12, together=12)
    level, time = mean + 3 * deviation, np.datetime64("2003-01-15")
    out = model.extremes(mild, time, threshold=level, settings=settings)
    assert dict(out.sizes) == {"member": 192, "time": 1, "lat": 8, "lon": 16}
    assert out.attrs["tilt"] == pytest.approx(3 / deviation, rel=0.5)
    fields = {"z500": torch.from_numpy(out.z500.values[:, 0])}
    np.testing.assert_allclose(out.value, mild(fields), rtol=1e-5)
    assert float((out.value > level).mean()) > 0.2
    found = Weighted.of(out).tail(level)
    assert 0 < found.error < 0.5 * found.probability
    assert found.probability == pytest.approx(normal_tail(3), abs=3 * found.error)
    assert float(out.weight[out.value > level].sum()) == pytest.approx(found.probability)
    assert found.return_period()[0] == pytest.approx(1 / found.probability)
    with pytest.raises(ValueError, match="keep all"):
        Weighted.of(out.isel(member=slice(1, None)))
    with pytest.raises(ValueError, match="no coordinates"):
        Weighted.of(out.drop_vars("weight"))


def test_a_prior_of_windows_is_tilted_as_a_whole() -> None:
    made = task(config(head="diffusion", inputs=(), targets=(0, 12), base="cell"))
    model = WeatherModel.from_training(made, made.model().state_dict())
    settings = Extremes(Sampler(Ancestral(1.0), 4), particles=2, replicas=2)
    out = model.extremes(mild, np.datetime64("2003-01-15"), tilt=0.01, settings=settings)
    assert out.z500.dims == ("member", "time", "prediction_timedelta", "lat", "lon")
    both = torch.from_numpy(out.z500.values[:, 0])
    np.testing.assert_allclose(out.value, mild({"z500": both}), rtol=1e-5)


def test_the_verb_says_what_it_needs(gaussian: tuple[WeatherModel, float, float]) -> None:
    model, time = gaussian[0], np.datetime64("2003-01-15")
    with pytest.raises(ValueError, match="either tilt, or threshold"):
        model.extremes(mild, time)
    with pytest.raises(ValueError, match="one date"):
        model.extremes(mild, [time, time + 1], tilt=0.0)
    with pytest.raises(ValueError, match="one number for each sample"):
        model.extremes(lambda f: f["z500"], time, tilt=0.0)
    made = task(config(head="mean", targets=(12,)))
    with pytest.raises(ValueError, match="needs a prior"):
        WeatherModel.from_training(made, made.model().state_dict()).extremes(mild, time, tilt=1.0)
