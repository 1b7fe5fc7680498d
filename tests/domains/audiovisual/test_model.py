"""Laws of models of scenes: what is given comes back, halves tell each other what they should, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.cli import main
from sciffusion.domains.audio import Clip
from sciffusion.domains.audiovisual import (
    ObjectiveConfig,
    SceneModel,
    SceneNet,
    Scenes,
    SceneTask,
    load,
    recipe,
    train,
)
from sciffusion.domains.audiovisual.adapter import pair
from sciffusion.domains.audiovisual.task import laws
from sciffusion.inverse import KnownFields
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.state import State

from .small import answering, scenes, settings


@pytest.fixture(scope="module")
def model() -> SceneModel:
    return answering()


@pytest.fixture(scope="module")
def real() -> Scenes:
    return scenes().scenes(3, frames=12, seed=2)


def near(a: Scenes, b: Scenes) -> None:
    """Equal up to rounding."""
    for x, y in zip(a, b, strict=True):
        assert int((x.film.frames.int() - y.film.frames.int()).abs().max()) <= 1
        torch.testing.assert_close(x.sound.samples, y.sound.samples, atol=1e-3, rtol=0)


def noised(model: SceneModel, n: int) -> State:
    noise = Noise(list(range(n)))
    return model._blank(n).map(lambda x: noise.normal(x, Dense(n)))


def test_scene_i_depends_on_the_seed_and_i_alone(model: SceneModel) -> None:
    many = model.sample(3, seed=3, steps=2, batch_size=2)
    near(many[:2], model.sample(2, seed=3, steps=2))
    assert not torch.equal(many[0].film.frames, many[1].film.frames)
    assert many[0].film.frames.shape == (12, 1, 32, 32)
    assert many[0].sound.seconds == many[0].film.seconds == 1.5


def test_what_is_given_comes_back_and_acts_on_the_other_half(
    model: SceneModel, real: Scenes
) -> None:
    heard = model.sound_of(real.films, steps=2, seed=1)
    for a, b in zip(heard.films, real.films, strict=True):
        assert a is b
    same = model.sound_of([real.films[1]] * 3, steps=2, seed=1)
    assert torch.equal(heard.sounds[1].samples, same.sounds[1].samples)
    assert not torch.equal(heard.sounds[0].samples, same.sounds[0].samples)
    shown = model.film_of(real.sounds, steps=2, seed=1)
    assert shown.sounds[2] is real.sounds[2]
    alike = model.film_of([real.sounds[1]] * 3, steps=2, seed=1)
    near(shown[1:2], Scenes(alike.films[1:2], real.sounds[1:2]))
    assert not torch.equal(shown.films[0].frames, alike.films[0].frames)


def test_a_short_sound_is_one_that_is_followed_by_silence(model: SceneModel, real: Scenes) -> None:
    short = Clip(real.sounds[0].samples[:, :4000], real.sounds[0].rate)
    padded = Clip(torch.nn.functional.pad(short.samples, (0, 1500)), short.rate)
    a, b = (model.film_of([c], steps=2) for c in (short, padded))
    assert torch.equal(a.films[0].frames, b.films[0].frames)


def test_fields_made_apart_know_nothing_of_each_other(model: SceneModel) -> None:
    # with the sound hidden, no noise of it reaches the film
    x, t = noised(model, 2), torch.tensor(0.6)
    alone = KnownFields(model.denoiser, x, {}, {"sound": torch.tensor(True)})(x, t).x0
    other = x.replace({"sound": -x["sound"]})
    again = KnownFields(model.denoiser, other, {}, {"sound": torch.tensor(True)})(other, t).x0
    both, joint = (model.denoiser(v, t).x0 for v in (x, other))
    assert isinstance(alone, State) and isinstance(again, State)
    assert isinstance(both, State) and isinstance(joint, State)
    assert torch.equal(alone["film"], again["film"])
    assert not torch.allclose(both["film"], joint["film"])
    apart, together = (
        model.sample(2, seed=3, steps=2, apart=a, guidance=1.0) for a in (True, False)
    )
    assert not torch.equal(apart.films[0].frames, together.films[0].frames)


def test_a_network_is_told_the_noise_level_of_each_field(model: SceneModel) -> None:
    x = noised(model, 2)
    base = {"film": torch.tensor(0.5), "sound": torch.tensor(0.5)}
    plain = model.denoiser(x, base).x0
    assert isinstance(plain, State)
    for name in base:
        moved = model.denoiser(x, base | {name: torch.tensor([0.2, 0.5])}).x0
        assert isinstance(moved, State)
        for field in base:
            assert not torch.allclose(moved[field][0], plain[field][0])
            torch.testing.assert_close(moved[field][1], plain[field][1])


def test_time_is_one_axis_for_both(model: SceneModel) -> None:
    net = model.denoiser.net
    assert isinstance(net, SceneNet)
    places = net._places(torch.zeros(1, 1, 12, 32, 32), (12, 2, 2), model.config.spectra)
    pairs = net.rotary.pairs
    film, sound = places[: 12 * 4 : 4, :pairs], places[12 * 4 :, :pairs]
    # a token of sound holds 4 spectra of 32 ms, so the first frame at 0.125 s lies a little before the second token
    wanted = film[1][None] ** (0.128 / 0.125)
    torch.testing.assert_close(sound[1][:1], wanted[0][:1])


def test_shares_of_known_and_hidden_fields_are_those_that_are_asked_for() -> None:
    u = torch.linspace(0, 1, 10_001)[:-1]
    shown, hidden = laws(u, ObjectiveConfig(known=0.4, alone=0.2))
    for name in ("film", "sound"):
        assert abs(float(shown[name].double().mean()) - 0.2) < 1e-3
        assert abs(float(hidden[name].double().mean()) - 0.1) < 1e-3
    total = sum(m.int() for m in (*shown.values(), *hidden.values()))
    assert isinstance(total, torch.Tensor)
    assert int(total.max()) == 1
    with pytest.raises(ValueError, match="known and alone must be shares"):
        ObjectiveConfig(known=0.9, alone=0.2)


def test_what_is_shown_or_hidden_costs_nothing(model: SceneModel) -> None:
    task = SceneTask(settings(), scenes())
    batch = task.batch(np.arange(4), 0, torch.device("cpu"))
    yes, no = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    for name, other in (("film", "sound"), ("sound", "film")):
        for shown, hidden in (({name: yes}, {}), ({}, {name: yes})):
            logs = task.loss(task.model(), replace(batch, shown=shown, hidden=hidden), 1).logs
            assert float(logs[name]) == 0
            assert float(logs[other]) > 0
    logs = task.loss(task.model(), replace(batch, shown={"film": no}, hidden={}), 1).logs
    assert min(float(v) for v in logs.values()) > 0


def test_a_batch_has_unit_variance_and_a_row_is_a_picture(model: SceneModel) -> None:
    task = SceneTask(settings(), scenes())
    x = task.batch(np.arange(64), 0, torch.device("cpu")).x
    for field in x.values():
        assert abs(float(field.mean())) < 0.2
        assert abs(float(field.std()) - 1) < 0.2
    again = task.batch(np.arange(64), 0, torch.device("cpu")).x
    assert torch.equal(x["film"], again["film"])
    assert not torch.equal(x["film"], task.batch(np.arange(64), 1, torch.device("cpu")).x["film"])


def test_a_saved_model_makes_the_same_scenes(model: SceneModel, tmp_path: Path) -> None:
    halves = {k: v.half().float() for k, v in model.denoiser.state_dict().items()}
    again = load(model.save(tmp_path / "model.safetensors"))
    model = replace(model, denoiser=model.config.denoiser().eval())
    model.denoiser.load_state_dict(halves)
    assert again.config == model.config
    near(again.sample(1, steps=2), model.sample(1, steps=2))
    with pytest.raises(FileNotFoundError, match="no model 'talking'"):
        load("talking")


def test_training_writes_a_model_that_the_command_line_samples(tmp_path: Path) -> None:
    made, state = train(settings(), tmp_path / "run", scenes(), scenes())
    assert state.step == 3
    weights = tmp_path / "run" / "model.safetensors"
    near(load(weights).sample(1, steps=1), made.sample(1, steps=1))
    out = tmp_path / "s.mp4"
    args = ["sample", "audiovisual", "--model", str(weights), "-n", "1", "--steps", "1"]
    pytest.importorskip("av")
    assert main([*args, "--out", str(out)]) == 0
    assert out.is_file()


def test_the_recipe_is_read() -> None:
    assert recipe("talking-digits").model.spectra == 128


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(0), "n must be at least 1"),
        (lambda m: m.sample(1, given={"digit": 3}), "film_of"),
        (lambda m: m.film_of([]), "sounds must hold"),
        (lambda m: m.film_of([Clip(torch.ones(1, 9000), 4000)]), "must last 1.536 s at most"),
        (
            lambda m: m.sound_of(scenes().scenes(1, frames=5).films),
            r"films must be \(12, 1, 32, 32\)",
        ),
        (
            lambda m: m.denoiser.net(pair(torch.zeros(1, 2, 1, 20, 32), torch.zeros(1, 4, 16)), {}),
            "multiples of 16",
        ),
    ],
)
def test_calls_that_make_no_sense_are_refused(
    model: SceneModel, call: Callable[[SceneModel], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)
