"""Laws of models of films: given frames come back bit by bit, films depend on nothing but what they should."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from sciffusion.cli import main
from sciffusion.denoiser import Denoiser
from sciffusion.domains.video import Film, Films, TransformerConfig, VideoModel, load
from sciffusion.inverse import Known
from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Sampler, Solution

from .small import NETWORK, answering, film


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return answering()


def near(a: Films, b: Films) -> None:
    """Equal up to one grey level of rounding."""
    for x, y in zip(a, b, strict=True):
        assert int((x.frames.int() - y.frames.int()).abs().max()) <= 1


def test_film_i_depends_on_the_seed_and_i_alone(model: VideoModel) -> None:
    many = model.sample(5, seed=3, steps=3, batch_size=2)
    near(many[:2], model.sample(2, seed=3, steps=3))
    assert many.labels["digit"][:2].tolist() == model.sample(2, seed=3).labels["digit"].tolist()
    other = model.sample(2, seed=4, steps=3)
    assert not torch.equal(many[0].frames, other[0].frames)
    assert not torch.equal(many[0].frames, many[1].frames)


def test_one_model_makes_films_of_any_length_and_size(model: VideoModel) -> None:
    for frames, size in ((3, (24, 24)), (9, (16, 40)), (1, (21, 30))):
        made = model.sample(2, {"digit": [1, None]}, frames=frames, size=size, steps=2)
        assert made.stack().shape == (2, frames, 1, *size)
        assert made.labels["digit"].tolist() == ["1", ""]


def test_what_is_asked_for_acts(model: VideoModel) -> None:
    a, b = (model.sample(1, {"digit": d}, steps=2, guidance=2.0) for d in (1, 8))
    assert not torch.equal(a[0].frames, b[0].frames)
    plain = model.sample(1, {"digit": 1}, steps=2, guidance=1.0)
    assert not torch.equal(a[0].frames, plain[0].frames)


def test_digits_nobody_asked_for_come_as_often_as_in_the_data(model: VideoModel) -> None:
    skewed = replace(model, shares={"digit": torch.tensor([0.0, 0.75] + [0.0] * 7 + [0.25])})
    cond = skewed.condition({}, 400, Noise(list(range(400))))["digit"]
    assert set(cond.tolist()) == {1, 9}
    assert 0.65 < float((cond == 1).double().mean()) < 0.85


def test_frames_of_one_noise_level_are_a_film_of_that_level(model: VideoModel) -> None:
    x = Noise(0).normal(torch.zeros(2, 5, 1, 24, 24), Dense(2))
    cond = model.condition({}, 2)
    whole = model.denoiser(x, torch.tensor(0.4), cond).x0
    each = model.denoiser(x, torch.full((2, 5), 0.4), cond).x0
    torch.testing.assert_close(whole, each)
    other = model.denoiser(x, torch.tensor([[0.1, 0.4, 0.4, 0.4, 0.4]] * 2), cond).x0
    assert not torch.allclose(whole, other)


def test_a_networks_films_do_not_see_each_other(model: VideoModel) -> None:
    x = Noise(0).normal(torch.zeros(3, 4, 1, 24, 24), Dense(3))
    t, cond = torch.tensor([0.2, 0.5, 0.9]), model.condition({"digit": [1, 2, 3]}, 3)
    whole = model.denoiser(x, t, cond).x0
    alone = model.denoiser(x[1:2], t[1:2], {"digit": cond["digit"][1:2]}).x0
    torch.testing.assert_close(whole[1:2], alone)


@pytest.mark.parametrize("kind", [Film.bytes, Film.floats])
def test_an_animated_picture_is_the_first_frame_bit_by_bit(
    model: VideoModel, kind: Callable[[Film], Film]
) -> None:
    picture = kind(film()).frames[2]
    made = model.animate(picture, 2, frames=5, steps=2)
    assert made.stack().shape == (2, 5, 1, 24, 24)
    for one in made:
        assert one.frames.dtype == picture.dtype
        assert torch.equal(one.frames[0], picture)
    assert not torch.equal(made[0].frames, made[1].frames)
    near(
        Films([f.bytes() for f in model.animate(film()[:3], 1, frames=5, steps=2)]),
        Films([made[0].bytes()]),
    )


def test_what_is_given_acts_on_what_follows(model: VideoModel) -> None:
    a, b = (model.animate(film(seed=s).frames[0], 1, frames=5, steps=2)[0] for s in (1, 2))
    assert not torch.equal(a.frames[1:], b.frames[1:])


def test_an_extended_film_begins_as_given_and_does_not_depend_on_how_far_it_goes(
    model: VideoModel,
) -> None:
    given = film(frames=8)
    short = model.extend(given, 11, 2, steps=2)
    long = model.extend(given, 17, 2, steps=2)
    assert short.stack().shape[1] == 11
    assert long.stack().shape[1] == 17
    for one in long:
        assert torch.equal(one.frames[:8], given.frames)
    near(short, Films([one[:11] for one in long]))
    near(short[:1], model.extend(given, 11, 1, steps=2))


def test_windows_that_would_see_made_frames_only_see_the_last_given_ones_too(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[torch.Tensor] = []

    def spied(denoiser: Denoiser, x: torch.Tensor, mask: torch.Tensor) -> Known:
        shown.append(x[0, mask])
        return Known(denoiser, x, mask)

    monkeypatch.setattr("sciffusion.domains.video.verbs.Known", spied)
    given = film(frames=5)
    model.extend(given, 17, 1, context=4, anchors=2, steps=1)
    clean = model.encode([given])[0]
    assert torch.equal(shown[0], clean[1:5])
    for later in shown[1:]:
        assert len(later) == 4 and torch.equal(later[:2], clean[3:5])
        assert not (later[2:, None] == clean).flatten(2).all(2).any()
    shown.clear()
    model.extend(given, 17, 1, context=4, anchors=0, steps=1)
    assert len(shown) > 2 and not (shown[2][:, None] == clean).flatten(2).all(2).any()


class Recorder:
    """A sampler that keeps where it starts, and from what, and makes nothing of it."""

    def __init__(self) -> None:
        self.starts: list[torch.Tensor] = []
        self.denoisers: list[Denoiser] = []

    def __call__(self, denoiser: Denoiser, x: torch.Tensor, noise: Noise) -> Solution:
        self.starts.append(x)
        self.denoisers.append(denoiser)
        return Solution(torch.zeros_like(x), 0)


def test_windows_of_an_extension_have_noise_of_their_own(model: VideoModel) -> None:
    many, one = Recorder(), Recorder()
    model.extend(film(), 12, 2, sampler=cast(Sampler, many))
    model.extend(film(), 12, 1, sampler=cast(Sampler, one))
    first, second = many.starts
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[:1], one.starts[0])
    assert torch.equal(second[:1], one.starts[1])


def test_the_numbers_that_choose_digits_are_not_those_of_the_noise(model: VideoModel) -> None:
    seen = Recorder()
    model.sample(2, seed=3, sampler=cast(Sampler, seen))
    start = seen.starts[0]
    other = model.denoiser.process.prior(start, Noise(sample_seeds(3, 2)))
    assert isinstance(other, torch.Tensor)
    assert not torch.equal(start, other)


def test_given_frames_stay_in_a_slowed_film(model: VideoModel) -> None:
    given = film(frames=4)
    made = model.interpolate_time(given, 3, 2, steps=2)
    for one in made:
        assert len(one) == 10
        assert one.rate == 3 * given.rate
        assert torch.equal(one.frames[::3], given.frames)
        assert not torch.equal(one.frames[1], given.frames[0])


def test_only_what_is_masked_is_painted_and_it_is_not_looked_at(model: VideoModel) -> None:
    given = film()
    mask = torch.zeros(6, 24, 24, dtype=torch.bool)
    mask[1] = True
    mask[3, 4:12, :10] = True
    made = model.inpaint(given, mask, 2, steps=3)
    for one in made:
        assert torch.equal(one.frames[:, 0][~mask], given.frames[:, 0][~mask])
        assert not torch.equal(one.frames[:, 0][mask], given.frames[:, 0][mask])
    noisy = given.frames.clone()
    noisy[:, 0][mask] = 255
    near(made, model.inpaint(Film(noisy), mask, 2, steps=3))
    frames = torch.tensor([False, True, True, False, False, False])
    filled = model.inpaint(given, frames, steps=2)[0]
    assert torch.equal(filled.frames[~frames], given.frames[~frames])


def test_a_saved_model_makes_the_same_films(model: VideoModel, tmp_path: Path) -> None:
    again = load(model.save(tmp_path / "model.safetensors"))
    assert again.config == model.config
    assert again.sampling == model.sampling
    halves = {k: v.half().float() for k, v in model.denoiser.state_dict().items()}
    model = replace(model, denoiser=model.config.denoiser().eval())
    model.denoiser.load_state_dict(halves)
    near(again.sample(2, steps=2), model.sample(2, steps=2))
    with pytest.raises(FileNotFoundError, match="no model 'moving-digit'"):
        load("moving-digit")


def test_attention_may_be_full_and_the_walls_unseen() -> None:
    for network in (replace(NETWORK, attention="full"), replace(NETWORK, walls=False)):
        assert isinstance(network, TransformerConfig)
        made = answering(network=network).sample(1, steps=2)
        assert made.stack().shape == (1, 6, 1, 24, 24)


def test_a_network_told_of_the_walls_knows_where_it_is() -> None:
    x = torch.zeros(1, 2, 1, 24, 24)
    for walls in (True, False):
        model = answering(network=replace(NETWORK, walls=walls))
        y = model.denoiser(x, torch.tensor(0.5), model.condition({}, 1)).x0
        corner, middle = y[..., :8, :8], y[..., 8:16, 8:16]
        assert torch.allclose(corner, middle, atol=1e-4) != walls


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(0), "n must be at least 1"),
        (lambda m: m.sample(1, frames=0), "must be positive"),
        (lambda m: m.sample(1, {"digit": 11}), "digit must be one of 0, 1"),
        (lambda m: m.sample(1, {"digits": 1}), "Did you mean 'digit'"),
        (lambda m: m.sample(3, {"digit": [1, 2]}), "digit has 2 values for 3 samples"),
        (lambda m: m.sample(1, steps=0), "steps must be at least 1"),
        (lambda m: m.animate(torch.zeros(24, 24)), r"tensor \(C, H, W\) or a film"),
        (lambda m: m.animate(torch.full((1, 24, 24), 7.0)), "look like bytes"),
        (lambda m: m.animate(film().frames[0], frames=1), "frames must be at least 2"),
        (lambda m: m.animate(torch.zeros(3, 24, 24)), "films of 1 channels, these have 3"),
        (lambda m: m.extend(film(), 8, 0), "n must be at least 1"),
        (lambda m: m.extend(film(), 6), "frames must exceed the 6 of the film"),
        (lambda m: m.extend(film(), 8, context=6), "context must lie from 1 to 5"),
        (lambda m: m.extend(film(), 8, context=3, anchors=3), "anchors must lie from 0 to 2"),
        (lambda m: m.interpolate_time(film(), 1), "factor must be at least 2"),
        (
            lambda m: m.extend(film(), 8.5),
            "frames must be an integer, the length of the whole, got 8.5",
        ),
        (lambda m: m.extend(film().frames, 8), "film must be a Film, got Tensor: Film.of makes"),
        (lambda m: m.interpolate_time(film().frames, 2), "film must be a Film, got Tensor"),
        (lambda m: m.inpaint(film().frames, torch.ones(6) > 0), "film must be a Film, got Tensor"),
        (lambda m: m.inpaint(film(), torch.ones(6)), "mask must be boolean"),
        (lambda m: m.inpaint(film(), torch.ones(5, dtype=torch.bool)), r"\(6,\) for frames"),
        (lambda m: m.inpaint(film(), torch.ones(6, dtype=torch.bool)), "True somewhere"),
        (lambda m: m.encode([film(), film(frames=3)]), "one shape"),
    ],
)
def test_calls_that_make_no_sense_are_refused(
    model: VideoModel, call: Callable[[VideoModel], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_the_command_line_samples_what_is_asked_for(
    model: VideoModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = model.save(tmp_path / "m.safetensors"), tmp_path / "films.npz"
    asked = ["--model", str(weights), "--digit", "7", "-n", "2", "--steps", "2"]
    assert main(["sample", "video", *asked, "--out", str(out)]) == 0
    films = Films.read(out)
    assert films.labels["digit"].tolist() == ["7", "7"]
    near(films, model.sample(2, {"digit": 7}, steps=2))
    assert main(["sample", "video", *asked, "--out", str(tmp_path / "films.gif")]) == 0
    assert len(Film.read(tmp_path / "films.gif")) == 6
    assert "2 samples" in capsys.readouterr().out


def test_guidance_lies_between_what_the_posterior_says_told_and_untold(model: VideoModel) -> None:
    mask = torch.zeros(6, 24, 24, dtype=torch.bool)
    mask[:, 4:12, 4:12] = True
    t = torch.full((1,), 0.7, dtype=torch.float64)

    def said(given: dict[str, object], scale: float) -> torch.Tensor:
        one = Recorder()
        model.inpaint(film(), mask, 1, given, guidance=scale, sampler=cast(Sampler, one))
        with torch.no_grad():
            x0 = one.denoisers[0](one.starts[0], t).x0
        assert isinstance(x0, torch.Tensor)
        return x0

    untold = said({}, 1.0)
    between = untold + 4.0 * (said({"digit": 3}, 1.0) - untold)
    torch.testing.assert_close(said({"digit": 3}, 4.0), between, rtol=1e-4, atol=1e-4)
