"""Laws of digits that say their name, of their files, and of the judges that look and listen."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.audio import Clip, Clips, MelConfig
from sciffusion.domains.audiovisual import Scene, Scenes, TalkingDigits
from sciffusion.domains.audiovisual.data import EARLIEST, LATEST
from sciffusion.domains.audiovisual.evaluation import appearance, onset, seen
from sciffusion.domains.video import Film, Films, MovingDigits, digits

from .small import RATE, scenes, voices


@pytest.fixture(scope="module")
def made() -> Scenes:
    return scenes().scenes(12, seed=3)


def test_scene_i_depends_on_the_seed_and_i_alone(made: Scenes) -> None:
    fewer = scenes().scenes(3, seed=3)
    for a, b in zip(fewer, made[:3], strict=True):
        assert torch.equal(a.film.frames, b.film.frames)
        assert torch.equal(a.sound.samples, b.sound.samples)
    assert not torch.equal(scenes().scenes(1, seed=4).films[0].frames, made.films[0].frames)


def test_a_scene_is_dark_and_silent_until_its_moment_and_neither_afterwards(made: Scenes) -> None:
    for scene, moment in zip(made, made.labels["moment"].tolist(), strict=True):
        assert EARLIEST <= moment <= LATEST
        light = scene.film.frames.float().flatten(1).sum(1)
        times = torch.arange(len(scene.film)) / scene.film.rate
        assert torch.equal(light > 0, times >= moment)
        wave = scene.sound.samples[0]
        begin = round(moment * scene.sound.rate)
        assert not wave[:begin].any()
        assert wave[begin : begin + 200].any()


def test_the_digit_flies_as_it_would_have_done_unseen() -> None:
    u = torch.rand(1, 7, generator=torch.Generator().manual_seed(0)).double()
    made = scenes().render(u, 12, (32, 32), MelConfig(rate=RATE, hop=64))
    free, _ = MovingDigits(digits("test")).render(u[:, None, :5], 12, (32, 32))
    first = int(np.ceil(float(made.moments) * 8))
    assert torch.equal(made.films[:, first:], free[:, first:])


def test_what_is_heard_is_the_digit_that_is_seen() -> None:
    u = torch.rand(20, 7, generator=torch.Generator().manual_seed(1)).double()
    made = scenes().render(u, 12, (32, 32), MelConfig(rate=4000, hop=64))
    said = np.asarray(voices().labels["digit"])[made.voices.numpy()]
    assert said.tolist() == made.digits.tolist()
    for wave, d in zip(made.waves, made.digits.tolist(), strict=True):
        pitch = float(torch.fft.rfft(wave, 8000).abs().argmax()) / 2
        assert abs(pitch - (200 + 60 * d)) < 6


def test_the_judges_see_when_digits_appear_and_when_sounds_begin(made: Scenes) -> None:
    moment = np.asarray(made.labels["moment"])
    late = appearance(made.films) - moment
    assert (late >= 0).all()
    assert (late < 1 / 8).all()
    begun = np.array([onset(clip) for clip in made.sounds])
    assert (np.abs(begun - moment) < 0.02).all()
    assert (seen(made.films) == made.labels["digit"]).mean() > 0.8
    dark = Films.of(torch.zeros(1, 5, 1, 32, 32, dtype=torch.uint8))
    assert seen(dark).tolist() == [-1]
    assert np.isnan(appearance(dark)).all()


def test_shuffled_sounds_neither_agree_nor_begin_with_their_films(shared_data: object) -> None:
    path = shared_data("audio/fsdd/fsdd.npz")  # type: ignore[operator]
    real = TalkingDigits.of("test", path).scenes(24, seed=1)
    other = Scenes(real.films, real.sounds[np.roll(np.arange(24), 5)])
    good, bad = real.report(other), other.report()
    assert good["agreement"].value > 0.85
    assert bad["agreement"].value < 0.4
    assert good["together"].value > bad["together"].value + 0.3
    assert good["lag"].value < 0.1
    assert good.ceiling["agreement"].value == bad["agreement"].value


def test_an_mp4_holds_the_film_and_the_sound(made: Scenes, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = made[0].save(tmp_path / "scene.mp4")
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]
        heard = container.streams.audio[0]
        assert heard.rate == 8000  # the lowest that AAC knows
        parts = [f.to_ndarray() for f in container.decode(heard)]
    wave = torch.from_numpy(np.concatenate(parts, 1))[0].float()
    wanted = made[0].sound.resample(8000)
    assert len(wave) >= wanted.samples.shape[1] - 1024
    begun = onset(Clip(wave[None] / wave.abs().max(), wanted.rate))
    assert abs(begun - onset(wanted)) < 0.3  # players skip what AAC puts before a sound
    film = Film.read(path)
    assert len(film) == len(made[0].film)
    assert film.rate == 8
    many = made[:2].save(tmp_path / "s.mp4")
    assert len(list(tmp_path.glob(many.name))) == 2


def test_scenes_are_a_sequence_and_show_themselves(made: Scenes) -> None:
    assert len(made[2:5]) == 3
    assert made[np.array([4])].labels["digit"][0] == made.labels["digit"][4]
    assert isinstance(made[0], Scene)
    assert len(list(made)) == 12
    pytest.importorskip("matplotlib")
    assert len(made[:2].plot().axes) == 4
    assert "<audio" in made[:1]._repr_html_()


def test_what_makes_no_sense_is_refused(made: Scenes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="12 films, but 3 of sounds"):
        Scenes(made.films, made.sounds[:3])
    with pytest.raises(ValueError, match="1 of digit"):
        Scenes(made.films, made.sounds, {"digit": np.zeros(1)})
    with pytest.raises(ValueError, match=r"end it with \.mp4"):
        made[0].save(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="label digit"):
        TalkingDigits(digits(), Clips(voices().clips))
    with pytest.raises(ValueError, match="voices say no 8, 9"):
        TalkingDigits(digits(), voices()[:16])
    with pytest.raises(ValueError, match="n must be at least 1"):
        scenes().scenes(0)
