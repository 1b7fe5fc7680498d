"""Laws of the judgement of clips: exact accuracies, distances that know their floor, and what the command line does."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.cli import main
from sciffusion.domains import audio
from sciffusion.domains.audio import Clip, Clips, MelConfig
from sciffusion.domains.audio.evaluation import evaluate
from sciffusion.domains.audio.judges import Judge, JudgeConfig, JudgeNet

from .small import tones

RATE = 8000


def speech(n: int, seed: int = 0, speaker: str = "theo") -> Clips:
    """Tones of some lengths with labels as spoken digits have them."""
    rng = np.random.default_rng(seed)
    clips = []
    for i in range(n):
        t = np.arange(int(rng.integers(3500, 4000))) / RATE
        wave = np.sin(2 * np.pi * (200 + 50 * (i % 10)) * t) + 0.1 * rng.standard_normal(len(t))
        clips.append(Clip.of((0.5 * wave).astype(np.float32), RATE))
    return Clips(clips, {"digit": np.arange(n) % 10, "speaker": np.array([speaker] * n)})


@pytest.fixture(scope="module")
def judge() -> Judge:
    """One that hears a 7 in everything."""
    mel = MelConfig(rate=RATE, n_fft=256, hop=128, mels=16)
    classes = (tuple(map(str, range(10))),)
    config = JudgeConfig(mel, 0.5, widths=(4,), attributes=("digit",), classes=classes)
    torch.manual_seed(0)
    net = JudgeNet(config)  # untrained features tell tones from noise as well
    head = net.heads["digit"]
    head.load_state_dict({"weight": torch.zeros(10, 4), "bias": (torch.arange(10) == 7).float()})
    return Judge("seven", config, net.eval(), {"digit": 0.9}, 200)


def test_accuracy_is_the_share_of_labels_that_the_judge_hears(judge: Judge) -> None:
    clips = speech(20)
    report = evaluate(clips, judge=judge)
    assert report["digit_accuracy"].value == pytest.approx(0.1)
    assert report["digit_accuracy"].low < 0.1 < report["digit_accuracy"].high
    assert "of 200 recordings, 90.0 %" in report["digit_accuracy"].what
    sevens = Clips(clips.clips, {"digit": np.full(20, 7)})
    assert evaluate(sevens, judge=judge)["digit_accuracy"].value == 1


def test_without_a_reference_the_judges_own_accuracy_stands_beside(judge: Judge) -> None:
    beside = evaluate(speech(5), judge=judge).ceiling["digit_accuracy"]
    assert beside.value == pytest.approx(0.9) and beside.n == 200
    assert beside.low < 0.9 < beside.high
    own = evaluate(speech(5), speech(30), judge=judge).ceiling["digit_accuracy"]
    assert own.value == pytest.approx(0.1) and own.n == 30


def test_labels_that_the_judge_does_not_know_are_not_judged(judge: Judge) -> None:
    found = evaluate(Clips(speech(5).clips, {"digit": np.array(list("12345") * 1)}), judge=judge)
    assert "digit_accuracy" in found.metrics
    odd = Clips(speech(5).clips, {"digit": np.array(["1", "2", "", "4", "5"])})
    assert "digit_accuracy" not in evaluate(odd, judge=judge).metrics


def test_real_clips_lie_at_the_floor_and_others_far_above(judge: Judge) -> None:
    real, more = speech(80), speech(40, seed=1)
    same = evaluate(more, real, judge=judge, seed=3)
    assert same["frechet"].n == same.ceiling["frechet"].n == 40
    assert same["frechet"].value < 3 * same.ceiling["frechet"].value
    noise = torch.Generator().manual_seed(0)
    hiss = Clips([Clip(torch.randn(c.samples.shape, generator=noise), RATE) for c in more])
    far = evaluate(hiss, real, judge=judge, seed=3)
    assert far["frechet"].value > 20 * far.ceiling["frechet"].value
    assert far["coverage"].value < 0.1 < same["coverage"].value


def test_distances_are_between_equal_numbers(judge: Judge) -> None:
    few = evaluate(speech(10, seed=1), speech(60), judge=judge)
    assert few["frechet"].n == few.ceiling["frechet"].n == 10
    many = evaluate(speech(60, seed=1), speech(30), judge=judge)
    assert many["frechet"].n == many.ceiling["frechet"].n == 15
    assert "frechet" not in evaluate(speech(5), speech(60), judge=judge).metrics


def test_a_seed_makes_the_report(judge: Judge) -> None:
    clips, real = speech(12), speech(30, seed=1)
    again = [evaluate(clips, real, judge=judge, seed=s).to_json() for s in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def notes(pitches: list[int], detune: float = 0.0) -> Clips:
    """Tones with overtones, so many cents too high."""
    t = np.arange(6000) / 16000
    frequencies = [440 * 2 ** ((p - 69 + detune / 100) / 12) for p in pitches]
    overtones = np.arange(1, 5)[:, None]
    waves = [(np.sin(2 * np.pi * f * overtones * t) / overtones**2).sum(0) for f in frequencies]
    clips = [Clip.of((0.3 * w).astype(np.float32), 16000) for w in waves]
    return Clips(clips, {"pitch": np.array(pitches)})


@pytest.mark.parametrize(("detune", "right"), [(0, 1.0), (35, 1.0), (-35, 1.0), (65, 0.0)])
def test_a_pitch_is_right_within_50_cents(judge: Judge, detune: float, right: float) -> None:
    report = evaluate(notes([55, 62, 69, 76], detune), judge=judge, n_pitch=4)
    assert report["pitch"].value == right
    assert report["pitch"].n == 4


def test_silence_has_no_right_pitch(judge: Judge) -> None:
    clips = Clips([Clip(torch.zeros(1, 8000), 16000)], {"pitch": np.array([60])})
    assert evaluate(clips, judge=judge, n_pitch=1)["pitch"].value == 0


def test_what_cannot_be_judged_is_an_error(judge: Judge) -> None:
    with pytest.raises(ValueError, match="no clips to judge"):
        evaluate(speech(5)[:0], judge=judge)
    with pytest.raises(ValueError, match="beside the label pitch; labels: digit, speaker"):
        evaluate(speech(5), judge=judge, n_pitch=3)
    with pytest.raises(ValueError, match="--reference"):
        evaluate(speech(5), judge=judge, n_voices=3)


def test_clips_without_labels_or_a_judge_have_plain_figures() -> None:
    report = tones(6).report()
    assert set(report.metrics) == {"seconds", "sounding"}
    assert report["seconds"].value == pytest.approx(np.mean([c.seconds for c in tones(6)]))


def test_saved_clips_are_read_with_their_labels(tmp_path: Path) -> None:
    clips = speech(12)
    clips.save(tmp_path / "made.wav")
    for source in (tmp_path, tmp_path / "made.wav", tmp_path / "made-*.wav"):
        again = audio.read(source)
        assert [c.samples.shape for c in again] == [c.samples.shape for c in clips]
        assert again.labels["digit"].tolist() == [str(d) for d in clips.labels["digit"]]
        assert again.labels["speaker"].tolist() == ["theo"] * 12
    one = audio.read(tmp_path / "made-03.wav")
    assert (len(one), one.labels["digit"].tolist()) == (1, ["3"])


def test_files_that_no_table_names_have_no_labels(tmp_path: Path) -> None:
    speech(3).save(tmp_path / "made.wav")
    speech(1).save(tmp_path / "other.wav")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert not audio.read(tmp_path).labels
    assert len(audio.read(tmp_path)) == 4


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("gone.wav", FileNotFoundError, "there is no file gone.wav"),
        ("gone.txt", ValueError, "neither a sound"),
        ("fsdd:tset", ValueError, "Did you mean 'fsdd:test'"),
        ("fsd:test", ValueError, "Did you mean 'fsdd:test'"),
        (".", FileNotFoundError, "holds no sound"),
        ("fsdd:test", FileNotFoundError, "sciffusion data get fsdd --path"),
    ],
)
def test_sources_that_are_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: type, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    with pytest.raises(kind, match=message):
        audio.read(source)


def kept(cache: Path, n: int = 16) -> None:
    """Write some recordings where the cache keeps the spoken digits."""
    clips = speech(n)
    (cache / "fsdd").mkdir(parents=True)
    np.savez(
        cache / "fsdd" / "fsdd.npz",
        audio=np.concatenate([clip.pcm()[:, 0] for clip in clips]),
        offsets=np.cumsum([0, *clips.lengths]),
        digit=clips.labels["digit"],
        take=np.arange(n),
        test=np.arange(n) < 10,
        speaker=np.zeros(n, int),
        speaker_names=np.array(["theo"]),
        sample_rate=RATE,
    )


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))

    def command(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        return code or 0, "".join(capsys.readouterr())

    return command


def test_the_command_line_samples_draws_and_judges(run: Run, tmp_path: Path) -> None:
    code, out = run(
        *"sample audio -n 2 --steps 2 --digit 7 --out a.wav --report r.json".split(),
        *"--picture a.png".split(),
    )
    assert code == 0, out
    stored = json.loads((tmp_path / "r.json").read_text())
    assert {"digit_accuracy", "speaker_accuracy"} <= set(stored["metrics"])
    assert stored["about"]["judge"] == "fsdd"
    assert (tmp_path / "a.png").stat().st_size > 1000
    kept(tmp_path / "cache")
    code, out = run(*"evaluate audio a.wav --reference fsdd:test --out e.json".split())
    assert code == 0, out
    assert json.loads((tmp_path / "e.json").read_text())["about"]["reference"] == 10
    assert "digit accuracy" in out and "real data" in out
    code, out = run(*"evaluate audio a.wav --piches 3".split())
    assert code and "--pitch" in out


def test_the_demonstration_speaks_ten_digits(tmp_path: Path) -> None:
    report = audio.demo(tmp_path)
    assert len(list(tmp_path.glob("digit-*.wav"))) == 10
    assert {"digits.png", "report.json", "digit.csv"} <= {p.name for p in tmp_path.iterdir()}
    assert report["digit_accuracy"].value >= 0.8
