"""Snapshots that a training leaves, and the averages that are made of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from sciffusion.ema import EMA, Constant, Power
from sciffusion.posthoc import posthoc
from sciffusion.training import PostHoc, Snapshots

from .toy import run

TRACKED = "posthoc={sigma_rels: [0.05, 0.1], every: 5}"
SETTINGS = (TRACKED, "ema={kind: power, sigma_rel: 0.07}", "checkpoint_every=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tracks two widths, and as its ordinary average a third one."""
    folder = tmp_path_factory.mktemp("run")
    run(folder, "steps=80", *SETTINGS)
    return folder


def test_a_run_leaves_a_snapshot_of_every_width_at_every_time(trained: Path) -> None:
    found = Snapshots(trained / "snapshots").load()
    assert [(s.updates, s.sigma_rel) for s in found] == [
        (t, s) for t in range(5, 81, 5) for s in (0.05, 0.1)
    ]
    assert found[0].copied == {"calls"}


def test_a_run_whose_length_is_no_multiple_stores_its_end(tmp_path: Path) -> None:
    run(tmp_path, "steps=12", *SETTINGS)
    assert {s.updates for s in Snapshots(tmp_path / "snapshots").load()} == {5, 10, 12}


def test_the_average_made_afterwards_is_near_the_one_that_the_run_kept(trained: Path) -> None:
    state = run(trained, "steps=80", *SETTINGS)
    assert state.ema is not None
    true, last = state.ema.state_dict(), state.model.state_dict()
    made = posthoc(Snapshots(trained / "snapshots").load(), 0.07)
    assert set(made) == set(true)
    for name, value in true.items():
        if name == "calls":
            assert torch.equal(made[name], value)
        elif name != "unused":
            moved = float((last[name] - value).norm())
            assert float((made[name] - value).norm()) < 0.05 * moved
    state.model.load_state_dict(made)


def test_a_run_that_was_interrupted_leaves_the_same_snapshots(tmp_path: Path) -> None:
    for folder, ends in (("twice", (20, 33)), ("once", (33,))):
        for steps in ends:
            run(tmp_path / folder, f"steps={steps}", *SETTINGS, "schedule=constant")
    once, twice = (Snapshots(tmp_path / f / "snapshots").load() for f in ("once", "twice"))
    assert [s.updates for s in once] == [s.updates for s in twice]
    for a, b in zip(once, twice, strict=True):
        for name, value in a.read().items():
            assert torch.equal(value, b.read()[name])


def test_a_checkpoint_carries_the_tracked_averages(trained: Path, tmp_path: Path) -> None:
    newest = sorted((trained / "checkpoints").iterdir())[-1]
    assert {p.stem for p in newest.glob("*.safetensors")} == {
        "model",
        "ema",
        "ema-0.05",
        "ema-0.1",
        "optimizer",
    }
    shutil.copytree(trained, tmp_path / "copy")
    with pytest.raises(ValueError, match=r"train\.posthoc"):
        run(tmp_path / "copy", "steps=81", "ema={kind: power, sigma_rel: 0.07}")


def test_a_snapshot_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    ema = EMA(model, Power(sigma_rel=0.1))
    ema.update(model)
    snapshots = Snapshots(tmp_path)
    path = snapshots.save(ema)
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr("sciffusion.training.snapshots.save_file", fail)
        snapshots.save(ema)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def fail(*args: object) -> None:
    raise OSError("disk full")


def test_only_one_process_writes(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    ema = EMA(model, Power(sigma_rel=0.1))
    ema.update(model)
    assert not Snapshots(tmp_path).save(ema, write=False).exists()


def test_averages_that_cannot_be_combined_are_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only averages with a Power profile"):
        Snapshots(tmp_path).save(EMA(nn.Linear(1, 1), Constant()))
    with pytest.raises(ValueError, match="has not been updated"):
        Snapshots(tmp_path).save(EMA(nn.Linear(1, 1), Power()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PostHoc(sigma_rels=()), "one or more widths"),
        (lambda: PostHoc(sigma_rels=(0.1, 0.1)), "one or more widths"),
        (lambda: PostHoc(sigma_rels=(0.1, 0.4)), "sigma_rel must lie in"),
        (lambda: PostHoc(every=0), "every must be at least 1"),
    ],
)
def test_settings_without_meaning_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
