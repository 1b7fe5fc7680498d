"""Laws of judging films: real ones pass, spoilt ones fail in the figure that is meant to see it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.cli import main
from sciffusion.domains import video
from sciffusion.domains.video import Films, MovingDigits, digits
from sciffusion.domains.video.classifier import accuracy, centred, reader, train_reader
from sciffusion.domains.video.motion import centres
from sciffusion.report import Report


@pytest.fixture(scope="module")
def real() -> Films:
    return MovingDigits(digits("test")).films(24, frames=8, seed=1)


@pytest.fixture(scope="module")
def judged(real: Films) -> Report:
    other = MovingDigits(digits("test")).films(24, frames=8, seed=2)
    return real.report(other)


def test_the_shipped_reader_reads_held_out_digits() -> None:
    assert accuracy(reader(), digits("test")) > 0.98


def test_a_reader_learns_and_is_the_same_for_the_same_seed() -> None:
    short = [train_reader(digits(), steps=40, seed=s) for s in (0, 0)]
    assert accuracy(short[0], digits("test")) > 0.6
    for a, b in zip(short[0].parameters(), short[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_reading_does_not_depend_on_where_the_digit_is(real: Films) -> None:
    x = real.stack().float() / 255
    seen = centred(x)
    middle = centres(seen[:, :, None])
    assert float((middle - 7.5).abs().mean()) < 0.2  # not 0: what sticks out is cut
    wide = torch.nn.functional.pad(x, (7, 3, 0, 11))
    torch.testing.assert_close(centred(wide), seen, atol=1e-4, rtol=0)


def test_real_films_pass(judged: Report) -> None:
    assert judged["agreement"].value > 0.97
    assert judged["identity"].value > 0.99
    assert judged["likeness"].value > 0.99
    assert judged["straight"].value > 0.98
    assert judged["jitter"].value < 0.02
    assert judged["warp_error"].value < 0.2
    assert set(judged.ceiling) == set(judged.metrics)


@pytest.fixture(scope="module")
def spoilt(real: Films) -> dict[str, Report]:
    x = real.stack()
    t = x.shape[1]
    draw = torch.Generator().manual_seed(3)
    other_half = x.clone()
    other_half[:, t // 2 :] = x.roll(1, 0)[:, t // 2 :]
    noise = 60 * torch.randn(x.shape, generator=draw)
    films = {
        "swapped": other_half,  # halfway another film begins
        "shuffled": x[:, torch.randperm(t, generator=draw)],
        "noisy": (x + noise).clamp(0, 255).to(torch.uint8),
    }
    made = {k: Films.of(v, 8.0, real.labels) for k, v in films.items()}
    wrong = {"digit": (np.asarray(real.labels["digit"]) + 1) % 10}
    made["mislabelled"] = Films(real.films, wrong)
    reference = MovingDigits(digits("test")).films(24, frames=8, seed=2)
    return {k: v.report(reference) for k, v in made.items()}


@pytest.mark.parametrize(
    ("how", "figure", "worse"),
    [
        ("mislabelled", "agreement", lambda v, was: v < 0.1),
        ("swapped", "identity", lambda v, was: v < was - 0.2),
        ("swapped", "likeness", lambda v, was: v < was - 0.05),
        ("shuffled", "jitter", lambda v, was: v > was + 0.3),
        ("noisy", "warp_error", lambda v, was: v > was + 0.2),
        ("noisy", "frechet_pooled", lambda v, was: v > 3 * was),
        ("shuffled", "frechet_pooled", lambda v, was: v > 2 * was),
    ],
)
def test_spoilt_films_fail(
    spoilt: dict[str, Report],
    judged: Report,
    how: str,
    figure: str,
    worse: Callable[[float, float], bool],
) -> None:
    assert worse(spoilt[how][figure].value, judged[figure].value)


def test_films_without_digits_are_judged_by_what_applies() -> None:
    colours = torch.randint(
        0, 256, (20, 3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    report = Films.of(colours).report(Films.of(colours.flip(0)))
    assert set(report.metrics) == {"warp_error", "frechet_pooled"}
    with pytest.raises(ValueError, match="reference has 1 channels, the films 3"):
        Films.of(colours).report(Films.of(colours[:, :, :1]))


def test_the_command_line_judges_files_and_parts_of_data(
    real: Films, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = real[:4].save(tmp_path / "films.npz")
    assert main(["evaluate", "video", str(path), "--out", str(tmp_path / "report.json")]) == 0
    assert Report.load(tmp_path / "report.json")["agreement"].n == 4
    assert "warp error" in capsys.readouterr().out
    assert main(["evaluate", "video", "moving-digit:test"]) == 2
    assert "Did you mean 'moving-digits'" in capsys.readouterr().err
    assert main(["sample", "video", "--out", str(tmp_path / "films.txt")]) == 2
    assert "end it with one of .gif, .mp4, .npz" in capsys.readouterr().err


def test_what_the_command_line_needs_is_there() -> None:
    assert set(video.COMMANDS) == {"data", "demo", "evaluate", "sample", "train"}
    assert set(video.DATASETS) == {"moving-digits", "sprites", "fruits360-films"}
