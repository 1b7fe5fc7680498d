"""Laws of models of scenes: what is given comes back, halves tell each other what they should, and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.attributes import Attributes
from sciffusion.cli import main
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.domains.audio import Clip
from sciffusion.domains.audiovisual import (
    ObjectiveConfig,
    SceneModel,
    SceneNet,
    Scenes,
    SceneTask,
    classify,
    load,
    recipe,
    train,
)
from sciffusion.domains.audiovisual.adapter import pair
from sciffusion.domains.audiovisual.classify import inferred
from sciffusion.domains.audiovisual.task import laws
from sciffusion.domains.video import Films, VideoModel, VideoTask, VideoTraining
from sciffusion.domains.video import ModelConfig as VideoConfig
from sciffusion.domains.video.networks import FilmNet, TransformerConfig, walls
from sciffusion.inverse import KnownFields
from sciffusion.layout import Dense
from sciffusion.networks.modulation import modulated
from sciffusion.networks.patches import join, split
from sciffusion.noise import Noise, sample_seeds
from sciffusion.state import State, Value

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


def left_open(model: SceneModel) -> Denoiser:
    return model.denoiser.given(model.config.asked.condition({}, 2))


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
    open_model = left_open(model)
    alone = KnownFields(open_model, x, {}, {"sound": torch.tensor(True)})(x, t).x0
    other = x.replace({"sound": -x["sound"]})
    again = KnownFields(open_model, other, {}, {"sound": torch.tensor(True)})(other, t).x0
    both, joint = (open_model(v, t).x0 for v in (x, other))
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
    plain = left_open(model)(x, base).x0
    assert isinstance(plain, State)
    for name in base:
        moved = left_open(model)(x, base | {name: torch.tensor([0.2, 0.5])}).x0
        assert isinstance(moved, State)
        for field in base:
            assert not torch.allclose(moved[field][0], plain[field][0])
            torch.testing.assert_close(moved[field][1], plain[field][1])


def test_time_is_one_axis_for_both(model: SceneModel) -> None:
    net = model.denoiser.net
    assert isinstance(net, SceneNet)
    places = net._places(torch.zeros(1, 1, 12, 32, 32), (12, 2, 2), model.config.spectra)
    pairs = net.rotary.pairs
    film, sound = places["film"][::4, :pairs], places["sound"][:, :pairs]
    # a token of sound holds 4 spectra of 32 ms, so the first frame at 0.125 s lies a little before the second token
    wanted = film[1][None] ** (0.128 / 0.125)
    torch.testing.assert_close(sound[1][:1], wanted[0][:1])
    # and neighbours among them are as far apart as patches are
    right = places["film"][1, 2 * pairs : 3 * pairs]
    torch.testing.assert_close(places["sound"][1, 2 * pairs : 3 * pairs], right)


def film_task(attributes: tuple[str, ...] = ("digit",), **network: int) -> VideoModel:
    """An untrained model of films of the size of the scenes', whose output is not zero."""
    shape = {"patch": 16, "width": 24, "depth": 1, "heads": 2, "embedding": 16} | network
    config = VideoTraining(
        VideoConfig(
            network=TransformerConfig(attention="full", **shape),  # type: ignore[arg-type]
            attributes=attributes,
        )
    )
    task = VideoTask(config, config.data.lessons())
    generator = torch.Generator().manual_seed(1)
    weights = {
        k: v + 0.05 * torch.randn(v.shape, generator=generator)
        for k, v in task.model().state_dict().items()
    }
    return VideoModel.from_training(task, weights)


def test_the_stream_of_films_begins_as_the_network_of_films(tmp_path: Path) -> None:
    path = film_task().save(tmp_path / "film.safetensors")
    film = VideoModel.from_file(path)
    task = SceneTask(replace(settings(), start=str(path)), scenes())
    net = task.model().net
    assert isinstance(net, SceneNet)
    x, level = torch.randn(2, 12, 1, 32, 32), torch.tensor([0.3, -1.0])
    cond = {"digit": torch.tensor([3, 10]), "speaker": torch.tensor([0, 2])}
    seen, grid = x.transpose(1, 2), (12, 2, 2)
    # what all blocks of the film do without those of the sound: the attention among its own tokens
    vector = net._vector({"film": level, "sound": torch.tensor([2.0, 0.5])}, cond, 2)
    tokens = net.first["film"](split(torch.cat((seen, walls(seen)), 1), (1, 16, 16)))
    places = net._places(seen, grid, 48)["film"]
    for block in net._pairs():
        tokens = block._stream("film")(tokens, vector, places, None, None, None)
    done = net.last["film"](modulated(tokens, *net.modulation["film"](vector)))
    made = join(done, (1, 16, 16), grid).transpose(1, 2)
    torch.testing.assert_close(made, film.denoiser.net(x, level, cond))
    assert torch.equal(task.pixels.mean, film.codec.affine.mean)


def test_a_film_model_of_another_architecture_is_refused() -> None:
    net = SceneTask(settings(), scenes()).model().net
    assert isinstance(net, SceneNet)
    for network in ({"depth": 2}, {"width": 32}, {"patch": 8}):
        other = film_task((), **network).denoiser.net
        assert isinstance(other, FilmNet)
        with pytest.raises(ValueError, match=r"transformer of 1 blocks|another architecture"):
            net.begin_with(other)


def test_a_scene_follows_what_is_asked_of_it_and_not_what_is_asked_of_others(
    model: SceneModel,
) -> None:
    asked = model.sample(2, {"digit": [3, None], "speaker": "bob"}, seed=3, steps=2)
    assert asked.labels["digit"].tolist() == ["3", ""]
    assert asked.labels["speaker"].tolist() == ["bob", "bob"]
    near(asked[:1], model.sample(1, {"digit": 3, "speaker": "bob"}, seed=3, steps=2))
    other = model.sample(2, {"digit": [3, 5], "speaker": "bob"}, seed=3, steps=2)
    near(asked[:1], other[:1])
    for a, b in ((asked.films, other.films), (asked.sounds, other.sounds)):
        one, two = (v.stack() if isinstance(v, Films) else v[1].samples for v in (a, b))
        assert not torch.equal(one[-1], two[-1])
    free = model.sample(2, {"digit": None, "speaker": "bob"}, seed=3, steps=2)
    assert not torch.equal(free.films[0].frames, asked.films[0].frames)
    near(free[1:], Scenes(asked.films[1:], asked.sounds[1:]))


def test_what_is_not_asked_is_drawn_evenly_and_by_the_scene_s_own_seed(model: SceneModel) -> None:
    seeds = sample_seeds(0, 2000)
    drawn = model._asked({"speaker": "bob"}, seeds)
    sizes = model.config.asked.sizes
    assert set(drawn["speaker"].tolist()) == {model.config.asked.index("speaker", "bob")}
    counts = torch.bincount(drawn["digit"], minlength=sizes["digit"])
    assert len(counts) == sizes["digit"]  # none is left open
    even = 2000 / sizes["digit"]
    assert bool(((counts - even).abs() < 4.5 * even**0.5).all())
    assert torch.equal(model._asked({}, seeds[:5])["digit"], drawn["digit"][:5])
    made = model.sample(3, seed=3, steps=1)
    assert (
        made.labels["digit"].tolist()
        == model.sample(4, seed=3, steps=1).labels["digit"][:3].tolist()
    )
    assert "" not in made.labels["speaker"].tolist()


def test_a_half_is_made_as_is_asked(model: SceneModel, real: Scenes) -> None:
    ann, bob = (
        model.sound_of(real.films, {"speaker": who}, steps=2, seed=1) for who in ("ann", "bob")
    )
    assert not torch.equal(ann.sounds[0].samples, bob.sounds[0].samples)
    three, five = (model.film_of(real.sounds, {"digit": d}, steps=2, seed=1) for d in (3, 5))
    assert not torch.equal(three.films[0].frames, five.films[0].frames)


def test_what_is_not_named_is_told_by_the_half_that_is_there_or_left_open(
    model: SceneModel, real: Scenes
) -> None:
    told = model.sound_of(real.films, {"speaker": None}, steps=1, seed=1)
    assert told.labels["speaker"].tolist() == ["", "", ""]
    assert set(told.labels["digit"].tolist()) <= {str(d) for d in range(10)}
    same = model.sound_of([real.films[1]] * 3, {"speaker": None}, steps=1, seed=1)
    assert same.labels["digit"][1] == told.labels["digit"][1]  # by the film, the seed and i
    shown = model.film_of(real.sounds, {"digit": [None, 3, None]}, steps=1, seed=1)
    assert shown.labels["digit"].tolist() == ["", "3", ""]
    assert set(shown.labels["speaker"].tolist()) <= {"ann", "bob"}
    for halves in (real.films, real.sounds):
        chances = model.classify(halves, seed=3)
        assert {k: v.shape for k, v in chances.items()} == {"digit": (3, 10), "speaker": (3, 2)}
        for name, p in chances.items():
            np.testing.assert_allclose(p.sum(1), 1)
            np.testing.assert_allclose(model.classify(halves[:2], seed=3)[name], p[:2], atol=1e-4)
            assert not np.allclose(p[0], p[1])


class Prototypes(Denoiser):
    """Every half is made of ones times its digit; the speaker changes the sound alone, by a third."""

    def __init__(self, model: SceneModel) -> None:
        super().__init__()
        self.process = model.denoiser.process

    def forward(
        self,
        x_t: Value,
        t: torch.Tensor | Mapping[str, torch.Tensor],
        cond: Condition = None,
        previous: Value | None = None,
    ) -> Prediction:
        assert isinstance(x_t, State) and isinstance(t, Mapping)
        assert [float(v.min()) == 1 for v in t.values()].count(True) == 1  # one half is hidden
        levels = {"film": cond["digit"], "sound": cond["digit"] + cond["speaker"] / 3}
        x0 = {
            k: torch.ones_like(x) * levels[k].reshape(-1, *[1] * (x.ndim - 1))
            for k, x in x_t.items()
        }
        return Prediction(x_t.replace(x0), x_t, t["film"], self.process)


def test_a_half_tells_its_class_whatever_the_other_holds(model: SceneModel) -> None:
    asked, seeds = model.config.asked, list(range(4))
    ones = model._blank(4).map(torch.ones_like)
    digit, speaker = torch.tensor([7, 0, 3, 9]), torch.tensor([1, 0, 1, 0])
    film = digit[:, None, None, None, None] * ones["film"]
    sound = (digit + speaker / 3)[:, None, None] * ones["sound"]
    stub = Prototypes(model)
    for other in (0.0, 5.0):
        seen = inferred(stub, asked, pair(film, other * ones["sound"]), "film", {}, 1.0, seeds)
        assert torch.equal(seen["digit"], digit)
        heard = inferred(
            stub,
            asked,
            pair(other * ones["film"], sound),
            "sound",
            {"digit": digit.tolist()},
            1.0,
            seeds,
        )
        assert torch.equal(heard["speaker"], speaker)
    # guidance of 0 draws evenly, each scene by its own seed
    many = pair(film[:1].expand(200, -1, -1, -1, -1), sound[:1].expand(200, -1, -1))
    free = inferred(stub, asked, many, "film", {"digit": 1}, 0.0, list(range(200)))
    assert abs(int(free["speaker"].sum()) - 100) < 32
    assert torch.equal(free["digit"], torch.ones(200, dtype=torch.long))


def test_guidance_says_how_sharply_attributes_are_drawn_from_what_a_half_tells(
    model: SceneModel, real: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(
        _: Denoiser, asked: Attributes, x: State, field: str, cond: object, name: str, seeds: object
    ) -> torch.Tensor:
        p = torch.full((x.batch, asked.sizes[name]), -20.0)
        p[:, 1] = 0  # surely the second class
        return p

    monkeypatch.setattr(classify, "chances", told)
    verbs: list[Callable[[float], Scenes]] = [
        lambda g: model.sound_of(real.films, guidance=g, steps=1, seed=1),
        lambda g: model.film_of(real.sounds, guidance=g, steps=1, seed=1),
    ]
    for verb in verbs:
        sure, free = verb(1.0).labels, verb(0.0).labels
        assert sure["digit"].tolist() == ["1"] * 3 and sure["speaker"].tolist() == ["bob"] * 3
        assert len(set(free["digit"].tolist())) > 1


def test_attributes_of_a_batch_are_those_of_the_voices_and_dropped_each_by_itself() -> None:
    source, config = scenes(), settings()
    task = SceneTask(config, source)
    batch = task.batch(np.arange(64), 0, torch.device("cpu"))
    u = torch.rand(40, 7, generator=torch.Generator().manual_seed(2)).double()
    made = source.render(u, 12, (32, 32), config.model.mel)
    _, _, cond = task._made(source, u)
    assert cond["digit"].tolist() == made.digits.tolist()
    assert cond["speaker"].tolist() == (made.voices % 2).tolist()  # ann and bob in turn
    assert {int(d) for d in batch.cond["digit"]} == set(range(10))
    told: list[dict[str, torch.Tensor]] = []
    model = task.model()
    model.net.register_forward_pre_hook(
        lambda _, args, kwargs: told.append(args[2]), with_kwargs=True
    )
    for key in range(20):
        task.loss(model, batch, key)
    digit, speaker = (
        torch.cat([c[k] for c in told]) == n for k, n in (("digit", 10), ("speaker", 2))
    )
    for lost in (digit, speaker):
        assert abs(float(lost.double().mean()) - 0.3) < 0.05
    assert abs(float((digit & speaker).double().mean()) - 0.09) < 0.03


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
    assert recipe("talking-digits").model.spectra == 126


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(0), "n must be at least 1"),
        (lambda m: m.sample(1, {"digit": 12}), "digit must be one of"),
        (lambda m: m.sample(1, {"voice": "ann"}), "this model knows digit, speaker"),
        (lambda m: m.sample(2, {"digit": [1, 2, 3]}), "digit has 3 values for 2 samples"),
        (lambda m: m.sound_of([]), "films must hold"),
        (lambda m: m.film_of([]), "sounds must hold"),
        (lambda m: m.classify([]), "sounds must hold"),
        (
            lambda m: m.classify(
                [*scenes().scenes(1, frames=12).films, Clip(torch.ones(1, 9), 4000)]
            ),
            "halves must be films or sounds, got 1 and 1",
        ),
        (lambda m: m.film_of([Clip(torch.ones(1, 9000), 4000)]), "must last 1.536 s at most"),
        (
            lambda m: m.sound_of(scenes().scenes(1, frames=5).films),
            r"films must be \(12, 1, 32, 32\)",
        ),
        (
            lambda m: m.denoiser.net(pair(torch.zeros(1, 2, 1, 20, 32), torch.zeros(1, 4, 16)), {}),
            "multiples of 16",
        ),
        (
            lambda m: m.denoiser(m._blank(1), torch.tensor(0.5), {"digit": torch.tensor([1])}),
            r"no entry for \['speaker'\]",
        ),
    ],
)
def test_calls_that_make_no_sense_are_refused(
    model: SceneModel, call: Callable[[SceneModel], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_one_film_or_clip_in_the_place_of_several_is_refused(
    model: SceneModel, real: Scenes
) -> None:
    with pytest.raises(ValueError, match=r"got one film: give \[film\]"):
        model.sound_of(real.films[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got one clip: give \[clip\]"):
        model.film_of(real.sounds[0])  # type: ignore[arg-type]
