"""Laws of judges: they learn, hear each clip by itself, and keep what they got right of held-out clips."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.config import load
from sciffusion.domains import audio
from sciffusion.domains.audio import Clip, Clips, DataConfig, MelConfig
from sciffusion.domains.audio.judge_task import JudgeTask, JudgeTraining
from sciffusion.domains.audio.judges import Judge, JudgeConfig, judges, suited
from sciffusion.training import TrainConfig, export

from .small import MEL, tones

CONFIG = JudgeConfig(MEL, seconds=0.3, widths=(8, 8), attributes=("pitch", "attack"))
SETTINGS = JudgeTraining(
    model=CONFIG,
    data=DataConfig(valid=None),
    delay=2,
    train=TrainConfig(steps=30, batch_size=12, lr=2e-2, warmup=3, ema=None, validate_every=30),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Judge, Path]:
    folder = tmp_path_factory.mktemp("judge")
    judge, _ = audio.train(SETTINGS, folder, tones(48), tones(48, seed=1))
    assert isinstance(judge, Judge)
    return judge, folder


def test_a_judge_learns_to_tell_high_from_low(trained: tuple[Judge, Path]) -> None:
    judge, _ = trained
    assert judge.held_out["pitch"] == 1
    test = tones(20, seed=2)
    assert judge(test).right("pitch", test.labels["pitch"]).mean() == 1
    wrong = np.where(test.labels["pitch"] == "high", "low", "high")
    assert judge(test).right("pitch", wrong).mean() == 0
    assert judge.clips_held_out == 48


def test_a_clip_is_heard_alike_in_any_company_at_any_level(trained: tuple[Judge, Path]) -> None:
    judge, clips = trained[0], tones(10, seed=3)
    all_, alone = judge(clips, batch_size=3), judge(clips[4:5])
    np.testing.assert_allclose(all_.features[4], alone.features[0], rtol=1e-4, atol=1e-6)
    quiet = judge([Clip(clips[4].samples * 0.01, clips[4].rate)])
    np.testing.assert_allclose(quiet.features, alone.features, rtol=1e-3, atol=1e-5)


def test_what_lies_beyond_its_time_is_not_heard(trained: tuple[Judge, Path]) -> None:
    judge = trained[0]
    wave = torch.cat([0.5 * torch.sin(torch.arange(240.0)), torch.zeros(100)])[None]
    longer = wave.clone()
    longer[:, 240:] = 0.3
    a, b = judge([Clip(wave, 800)]).features, judge([Clip(longer, 800)]).features
    np.testing.assert_array_equal(a, b)


def test_a_file_restores_a_judge_up_to_half_precision(trained: tuple[Judge, Path]) -> None:
    judge, folder = trained
    again, clips = Judge.load(folder / "model.safetensors"), tones(12, seed=4)
    np.testing.assert_allclose(again(clips).features, judge(clips).features, rtol=0.02, atol=0.01)
    assert (again.config, again.held_out) == (judge.config, judge.held_out)
    assert again.name == "model"


def test_a_task_delays_clips_by_silence_alone() -> None:
    task = JudgeTask(SETTINGS, tones(6))
    x, labels = task.batch(np.arange(6), 7, torch.device("cpu"))
    silent = float((CONFIG.floor + 4) / 3)
    delays = set()
    for row, heard in zip(x, task.heard, strict=True):
        fits = [
            k
            for k in range(SETTINGS.delay + 1)
            if torch.equal(row[:, k:], heard[:, : heard.shape[1] - k])
            and bool((row[:, :k] == silent).all())
        ]
        assert fits
        delays.add(fits[0])
    assert len(delays) > 1
    assert labels["pitch"].tolist() == [1, 0] * 3  # classes by name: high, low


def test_bad_settings_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        JudgeTask(SETTINGS, tones()[:0])
    with pytest.raises(ValueError, match="'digit'; labels of the data: pitch, attack"):
        wrong = replace(SETTINGS, model=replace(CONFIG, attributes=("digit",)))
        JudgeTask(wrong, tones())
    with pytest.raises(ValueError, match="classes lists 1"):
        JudgeConfig(classes=(("a",),))
    with pytest.raises(ValueError, match="seconds must leave a frame"):
        JudgeConfig(seconds=0.01)
    with pytest.raises(FileNotFoundError, match="no judge 'fsd'.*Did you mean 'fsdd'"):
        Judge.load("fsd")
    export({}, tmp_path / "a.safetensors", {"kind": "audio"})
    with pytest.raises(ValueError, match="'audio', not a judge"):
        Judge.load(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="at least one clip to judge"):
        Judge.load("fsdd")([])


def test_judges_that_ship_are_small_good_and_made_by_the_recipe_of_their_name() -> None:
    recipes = Path(audio.__file__).parent / "recipes"
    assert set(judges()) == {"fsdd", "notes"}
    for name, path in judges().items():
        judge = Judge.load(name)
        assert path.stat().st_size < 300_000
        settings = load(JudgeTraining, recipes / f"judge-{name}.yaml")
        assert settings.model == replace(judge.config, classes=())
        assert settings.data.source.endswith(":train")  # never what is judged with
        assert judge.clips_held_out >= 148
        assert min(judge.held_out.values()) > 0.9


def test_the_judge_is_chosen_that_knows_the_labels() -> None:
    def labels(**values: list[object]) -> dict[str, np.ndarray]:
        return {k: np.array(v) for k, v in values.items()}

    digits = labels(digit=[1, 7], speaker=["theo", "lucas"])
    notes = labels(instrument=["flute", "harp"], pitch=[60, 61], velocity=[60, 60])
    found = [suited(digits), suited(notes), suited({}, digits), suited(labels(digit=["12"]))]
    assert [judge and judge.name for judge in found] == ["fsdd", "notes", "fsdd", None]


def test_tones_of_another_rate_are_brought_to_the_judge() -> None:
    wave = 0.5 * torch.sin(2 * torch.pi * 300 * torch.arange(16000) / 16000)
    clip = Clip(wave[None], 16000)
    config = JudgeConfig(MelConfig(rate=8000, n_fft=256, hop=128, mels=64), classes=((), ()))
    heard = config.heard(clip)
    assert heard.shape == (64, 64)
    same = config.heard(clip.resample(8000))
    torch.testing.assert_close(heard, same)


def test_clips_are_heard_in_order() -> None:
    clips: Clips = tones(5)
    x = torch.stack([CONFIG.heard(c) for c in clips])
    assert not torch.equal(x[0], x[1])
