"""What a network sees of the data, and what comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciffusion.domains.weather.adapter import ModelConfig
from sciffusion.domains.weather.fields import Fields
from sciffusion.domains.weather.frame import Frame
from sciffusion.domains.weather.measure import measure
from tests.domains.weather.tiny import config, world


def framed(model: ModelConfig | None = None) -> Frame:
    return measure(model or config(), Fields.of(world(), ("z500", "u850")))[0]


def test_a_network_sees_every_channel_with_mean_zero_and_unit_deviation_by_area() -> None:
    fields = Fields.of(world(), ("z500", "u850"))
    frame = framed()
    z = frame.encode(fields.read(np.arange(len(fields))))
    area = fields.grid.area.float()
    mean, square = (area * z).mean((0, 2, 3)), (area * z.square()).mean((0, 2, 3))
    assert torch.allclose(mean, torch.zeros(2), atol=1e-4)
    assert torch.allclose(square, torch.ones(2), atol=1e-3)


def test_decoding_undoes_encoding() -> None:
    x = Fields.of(world(), ("z500", "u850")).read(np.arange(5))
    frame = framed()
    assert torch.allclose(frame.decode(frame.encode(x)), x, rtol=1e-6, atol=1e-3)


def test_what_is_seen_as_a_logarithm_comes_back_and_is_never_negative() -> None:
    ds = world()
    ds["u850"] = ds["u850"].clip(min=0)
    frame = measure(config(log1p=("u850",)), Fields.of(ds, ("z500", "u850")))[0]
    x = Fields.of(ds, ("z500", "u850")).read(np.arange(5))
    z = frame.encode(x)
    assert torch.allclose(frame.decode(z), x, rtol=1e-4, atol=2e-3)
    assert not torch.allclose(z[:, 1] * frame.scales.std[1] + frame.scales.mean[1], x[:, 1])
    assert float(frame.decode(z - 9)[:, 1].min()) == 0.0
    with pytest.raises(ValueError, match="u850 is seen as log"):
        frame.encode(x - 1000)


@pytest.mark.parametrize("base", ["zero", "cell", "last"])
def test_targets_come_back_from_their_residuals(base: str) -> None:
    inputs = () if base in ("zero", "cell") else (-12, 0)
    frame, cases = measure(config(inputs=inputs, targets=(12, 24), base=base), Fields.of(world()))
    batch = cases.batch(np.arange(4))
    b = frame.base(batch.inputs, batch.times, frame.grid)
    r = frame.residual(batch.targets, b)
    assert r.shape == (4, 4, 8, 16)
    assert torch.allclose(frame.targets(r, b), batch.targets, atol=1e-5)


def test_residuals_have_unit_mean_square_by_area() -> None:
    frame, cases = measure(config(targets=(12, 24)), Fields.of(world()))
    batch = cases.batch(np.arange(len(cases)))
    r = frame.residual(batch.targets, frame.base(batch.inputs, batch.times, frame.grid))
    assert frame.grid is not None
    assert torch.allclose(
        (frame.grid.area.float() * r.square()).mean((0, 2, 3)), torch.ones(4), atol=1e-4
    )


def test_an_interpolation_starts_from_the_line_between_its_inputs() -> None:
    frame, cases = measure(config(inputs=(0, 24), targets=(12,), base="linear"), Fields.of(world()))
    batch = cases.batch(np.arange(3))
    base = frame.base(batch.inputs, batch.times, frame.grid)
    assert torch.allclose(base[:, 0], batch.inputs.mean(1), atol=1e-6)


def test_boxes_average_by_area_and_a_linear_map_survives_refinement() -> None:
    frame = framed(config(inputs=(0,), targets=(0,), coarse=2, base="coarse"))
    assert frame.grid is not None
    area = frame.grid.area
    x = torch.randn(3, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    box = frame.coarsen(x, frame.grid)
    two = (area[:2] * x[0, :2, :2]).sum() / (2 * area[:2].sum())
    assert torch.allclose(box[0, 0, 0], two)
    north = torch.arange(8, dtype=torch.float64)[:, None].expand(8, 16)
    flat = replace(frame, grid=None)
    fine = frame.refine(flat.coarsen(north, None), frame.grid)
    assert torch.allclose(fine[1:-1], north[1:-1])  # rows that lie between centres of boxes
    with pytest.raises(ValueError, match="boxes of 2 x 2 cells do not fill"):
        frame.coarsen(x[:, :7], None)


def test_refinement_goes_around_the_globe() -> None:
    frame = framed(config(inputs=(0,), targets=(0,), coarse=2, base="coarse"))
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        frame.refine(x.roll(1, -1), frame.grid), frame.refine(x, frame.grid).roll(2, -1)
    )


def test_land_has_no_sea_temperature() -> None:
    ds = world()
    ds["z500"] = ds["z500"].where(ds.lon > 100)
    fields = Fields.of(ds, ("z500", "u850"))
    frame, cases = measure(config(targets=(12,)), fields)
    assert frame.mask is not None and not frame.mask[0, :, :5].any() and frame.mask[1].all()
    batch = cases.batch(np.arange(3))
    r = frame.residual(batch.targets, frame.base(batch.inputs, batch.times, frame.grid))
    assert float(r[:, 0, :, :5].abs().max()) == 0.0
    weights = frame.weights(frame.grid)
    assert float(weights[0, :, :5].max()) == 0.0 and weights.mean() == pytest.approx(1.0, rel=1e-5)
    assert frame.decode(batch.targets)[:, :, 0, :, :5].isnan().all()
    assert not frame.decode(batch.targets)[:, :, 1].isnan().any()


def test_what_is_stored_is_restored() -> None:
    frame = framed(config(inputs=(), base="cell"))
    again = Frame.restored(frame.config, frame.names, frame.units, frame.tensors())
    for name, value in frame.tensors().items():
        assert torch.equal(again.tensors()[name], value), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ()}, "targets is empty"),
        ({"inputs": (0, -12)}, "inputs must be rising"),
        ({"inputs": (), "base": "last"}, "there are none"),
        ({"inputs": (0, 12), "targets": (24,), "base": "linear"}, "between the inputs"),
        ({"coarse": 4}, "belong together"),
        ({"members": 1}, "members at least 2"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_a_channel_that_never_changes_is_refused() -> None:
    ds = world()
    ds["u850"] = 0 * ds["u850"]
    with pytest.raises(ValueError, match="u850 is the same everywhere"):
        measure(config(), Fields.of(ds, ("z500", "u850")))
