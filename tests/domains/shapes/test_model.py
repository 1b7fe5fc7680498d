"""A model of shapes: what its whole sampler must not depend on, its verbs, its file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.shapes import ShapeModel, Shapes, load, superquadrics
from sciffusion.domains.shapes.adapter import shape_state
from sciffusion.layout import Packed
from sciffusion.noise import Noise
from sciffusion.state import State
from tests.domains.shapes.small import shaken

STEPS = 4


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    return shaken()


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def run(model: ShapeModel, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the sampler makes of a start, whatever stands in the padding."""
    cond = model.condition({"label": "box"}, len(x))
    start = shape_state(x, mask)
    dirty = torch.where(mask[..., None], start["points"], 1e6)
    state = State({"points": dirty}, start.layout("points"))
    made = model.sampling.sampler(STEPS)(model.guided(cond, 2.0), state).x
    assert type(made) is State
    return made["points"]


def test_permuted_noise_makes_the_permuted_shape(model: ShapeModel) -> None:
    x, order = torch.randn(2, 11, 3, generator=torch.Generator().manual_seed(0)), torch.randperm(11)
    mask = torch.ones(2, 11, dtype=torch.bool)
    made = run(model, x, mask)
    close(run(model, x[:, order], mask), made[:, order])
    assert float((made[:, order] - made).abs().max()) > 0.1


def test_padding_changes_nothing_and_stays_empty(model: ShapeModel) -> None:
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    alone = run(model, x, torch.ones(2, 7, dtype=torch.bool))
    wide = torch.cat([x, torch.zeros(2, 5, 3)], 1)
    made = run(model, wide, (torch.arange(12) < 7).expand(2, 12))
    close(made[:, :7], alone)
    assert not made[:, 7:].isnan().any()


def test_the_network_leaves_the_padding_zero(model: ShapeModel) -> None:
    mask = torch.tensor([[True, True, True, False]])
    state = shape_state(torch.randn(1, 4, 3), mask)
    out = model.denoiser(state, torch.tensor(0.5), model.condition({}, 1)).x0
    assert type(out) is State and not out["points"][~mask].any()
    close(out["points"].sum(1), torch.zeros(1, 3))


def test_samples_depend_on_the_seed_and_their_number_alone(model: ShapeModel) -> None:
    sizes = [5, 12, 3, 8]
    asked = {"label": ["box", "ellipsoid", None, "cylinder"]}
    whole = model.sample(4, given=asked, points=sizes, seed=3, steps=STEPS)
    parted = model.sample(4, given=asked, points=sizes, seed=3, steps=STEPS, batch_size=1)
    close(whole.points, parted.points)
    first = model.sample(
        2, given={"label": ["box", "ellipsoid"]}, points=sizes[:2], seed=3, steps=STEPS
    )
    close(first.points, whole[:2].points)
    other = model.sample(4, given=asked, points=sizes, seed=4, steps=STEPS)
    assert float((other.points - whole.points).abs().min()) > 0
    assert whole.sizes.tolist() == sizes and whole.labels["label"].tolist() == [
        "box",
        "ellipsoid",
        "",
        "cylinder",
    ]


def test_samples_are_centred_and_as_many_points_as_training_data_have(model: ShapeModel) -> None:
    made = model.sample(6, steps=2)
    assert set(made.sizes) == {9}
    assert list(made.labels["label"][:5]) == sorted(set(superquadrics(5).labels["label"]))
    for x in made.parts():
        assert float(x.mean(0).abs().max()) < 1e-5


def test_the_class_that_is_asked_for_changes_the_shape(model: ShapeModel) -> None:
    box, ball = (model.sample(1, given={"label": k}, steps=STEPS) for k in ("box", "ellipsoid"))
    assert float((box.points - ball.points).abs().max()) > 1e-3


def test_a_state_lives_where_the_noise_does(model: ShapeModel) -> None:
    state = model.encode(superquadrics(3, points=9))
    close(model.denoiser.process.prior(state, Noise(0))["points"].sum(1), torch.zeros(3, 3))  # type: ignore[index]
    packed = State({"points": torch.zeros(4, 3)}, Packed(torch.tensor([0, 0, 1, 1]), 2))
    with pytest.raises(ValueError, match="Dense or Masked"):
        model.denoiser(packed, torch.tensor(0.5), model.condition({}, 2))


def test_completion_keeps_the_known_points_bit_by_bit(model: ShapeModel) -> None:
    whole = superquadrics(2, points=12)
    known = Shapes.of([whole.parts()[0][:4], whole.parts()[1][:7]], {"label": ["box", "cylinder"]})
    made = model.complete(known, 12, steps=STEPS, rounds=2)
    assert made.sizes.tolist() == [12, 12]
    assert made.labels["label"].tolist() == ["box", "cylinder"]
    for x, y in zip(known.parts(), made.parts(), strict=True):
        assert (y[: len(x)] == x).all()
        assert float(y[len(x) :].std()) > 1e-2
    alone = model.complete(known[:1], 12, steps=STEPS, rounds=2)
    close(alone.points, made[:1].points)
    moved = model.complete(known, 12, seed=1, steps=STEPS, rounds=2)
    assert float((moved.parts()[0][4:] - made.parts()[0][4:]).abs().max()) > 1e-3


def test_what_is_completed_stays_as_large_as_the_known_half_is() -> None:
    whole = superquadrics(2, seed=1, points=20)
    upper = [x[x[:, 2].argsort(descending=True)[:10]] for x in whole.parts()]
    made = load("superquadrics").complete(Shapes.of(upper, whole.labels), 20, rounds=10)
    reach = [float(x.points.norm(dim=1).max()) for x in (whole, made)]
    assert reach[1] < 2 * reach[0]


def test_interpolation_ends_at_both_shapes_whatever_the_order_of_their_points() -> None:
    model = shaken()
    with torch.no_grad():  # a gentle network, whose steps are easily undone
        for p in model.denoiser.parameters():
            p.mul_(0.1)
    a, b = superquadrics(2, seed=1, points=9), superquadrics(2, seed=2, points=9)
    made = model.interpolate(a, b, 3, steps=8, iterations=20)
    assert made.labels["share"].tolist() == [0, 0.5, 1] * 2
    assert made.labels["pair"].tolist() == [0, 0, 0, 1, 1, 1]
    parts = made.parts()
    torch.testing.assert_close(parts[0], a.parts()[0], atol=1e-2, rtol=0)
    end, target = parts[2], b.parts()[0]
    apart = torch.cdist(end, target)
    assert float(apart.amin(1).max()) < 1e-2 and sorted(apart.argmin(1).tolist()) == list(range(9))
    turned = Shapes.of([x.flip(0) for x in b.parts()])
    close(model.interpolate(a, turned, 3, steps=8, iterations=20).points, made.points)


def test_a_file_brings_the_model_back(model: ShapeModel, tmp_path: Path) -> None:
    back = load(model.save(tmp_path / "model.safetensors"))
    assert back.config == model.config
    a, b = (m.sample(2, steps=STEPS).points for m in (model, back))
    torch.testing.assert_close(a, b, atol=2e-2, rtol=0)  # weights are rounded to float16
    with pytest.raises(
        FileNotFoundError,
        match="no model 'none': not a file, and none that ships .primitives, superquadrics.",
    ):
        load("none")


def test_wrong_requests_are_told(model: ShapeModel) -> None:
    with pytest.raises(ValueError, match="label must be one of box, .* Did you mean 'box'"):
        model.sample(1, given={"label": "boxx"})
    with pytest.raises(ValueError, match="given names 'lable', .* Did you mean 'label'"):
        model.sample(1, given={"lable": "box"})
    with pytest.raises(ValueError, match="label has 2 values for 3 samples"):
        model.sample(3, given={"label": ["box", "box"]})
    with pytest.raises(ValueError, match="points must be at least 2"):
        model.sample(2, points=[5, 1])
    with pytest.raises(ValueError, match="n must be at least 1"):
        model.sample(0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        model.sample(1, steps=0)
    known = superquadrics(1, points=6)
    with pytest.raises(ValueError, match="more than the 6 that are known, got 6"):
        model.complete(known, 6)
    with pytest.raises(ValueError, match="as many shapes of as many points"):
        model.interpolate(known, superquadrics(1, points=7))
    assert np.isfinite(model.unit)
