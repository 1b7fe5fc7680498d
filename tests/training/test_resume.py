"""The law of the engine: interruptions leave no trace in the weights, the average or the log."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.training import Checkpoints, TrainState, checkpoint

from .process import kill, start, wait_for
from .toy import run

STEPS = "steps=60"  # twelve epochs of five steps
EVERY = "checkpoint_every=7"  # never at the end of an epoch before step 35


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    """The run that nobody interrupts."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, run(directory, STEPS, EVERY, "validate_every=10")


def rows(directory: Path, name: str = "log.csv") -> list[dict[str, str]]:
    with (directory / name).open(newline="") as file:
        return [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)]


def assert_equal(a: tuple[Path, TrainState], b: tuple[Path, TrainState]) -> None:
    first, second = a[1].tensors(), b[1].tensors()
    for file in first:
        assert first[file].keys() == second[file].keys()
        for name, value in first[file].items():
            assert torch.equal(value, second[file][name]), f"{file}: {name}"
    for name in ("log.csv", "validation.csv"):
        assert rows(a[0], name) == rows(b[0], name)


def resume(directory: Path) -> TrainState:
    torch.rand(3)  # another state of the global generator
    return run(directory, STEPS, EVERY, "validate_every=10")


def test_a_run_killed_at_random_moments_ends_bit_for_bit_like_the_whole_run(
    whole: tuple[Path, TrainState], tmp_path: Path
) -> None:
    generator = np.random.default_rng()
    killed = 0
    for _ in range(6):
        process = start(lambda: resume(tmp_path))
        process.join(generator.uniform(0.03, 0.25))
        killed += kill(process) == -signal.SIGKILL
    assert killed
    state = resume(tmp_path)
    assert state.step == 60
    assert_equal(whole, (tmp_path, state))


@pytest.mark.parametrize("first", [1, 5, 14, 35, 59])
def test_a_run_stopped_within_or_between_epochs_and_rows_leaves_no_trace(
    first: int, whole: tuple[Path, TrainState], tmp_path: Path
) -> None:
    class Stopper:
        """Asks to stop after so many steps."""

        def __init__(self, max_seconds: float | None) -> None:
            self.asked = 0

        def __enter__(self) -> Stopper:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        @property
        def reason(self) -> str:
            self.asked += 1
            return "test" if self.asked >= first else ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sciffusion.training.loop.Stop", Stopper)
        assert resume(tmp_path).step == first
    assert_equal(whole, (tmp_path, resume(tmp_path)))


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    whole: tuple[Path, TrainState], tmp_path: Path
) -> None:
    real = checkpoint.save_file

    def fragile(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "00000021" in str(path) and path.name.startswith("optimizer"):
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        real(tensors, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_file", fragile)
        process = start(lambda: resume(tmp_path))
        process.join(60)
    assert process.exitcode == -signal.SIGKILL
    folder = tmp_path / "checkpoints"
    assert any(p.name.startswith(".step-00000021") for p in folder.iterdir())
    latest = Checkpoints(folder, keep=2).latest()
    assert latest is not None
    assert latest.name == "step-00000014"
    assert_equal(whole, (tmp_path, resume(tmp_path)))
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def tear_model(path: Path) -> None:
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate(100)


def tear_record(path: Path) -> None:
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text[: len(text) // 2])


@pytest.mark.parametrize(
    "tear",
    [
        tear_model,
        tear_record,
        lambda path: (path / "state.json").unlink(),
        lambda path: (path / "ema.safetensors").unlink(),
    ],
)
def test_a_torn_checkpoint_is_passed_over_and_then_replaced(
    tear: Callable[[Path], None], whole: tuple[Path, TrainState], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    tear(folder / "step-00000060")
    latest = Checkpoints(folder, keep=2).latest()
    assert latest is not None
    assert latest.name == "step-00000056"
    assert_equal(whole, (tmp_path, resume(tmp_path)))
    assert [p.name for p in Checkpoints(folder, 2).complete()] == ["step-00000056", "step-00000060"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_a_checkpoint_of_its_last_step(
    number: int, tmp_path: Path
) -> None:
    done = tmp_path / "done"

    def program() -> None:
        state = run(tmp_path, "steps=1000000", "checkpoint_every=0", "log_every=1")
        done.write_text(f"{state.step} {state.stopped}")

    process = start(program)
    wait_for(tmp_path / "log.csv", process)
    assert kill(process, number) == 0
    step, reason = done.read_text().split()
    assert reason == signal.Signals(number).name
    latest = Checkpoints(tmp_path / "checkpoints", 1).latest()
    assert latest is not None
    assert latest.name == f"step-{int(step):08d}"
    assert rows(tmp_path)[-1]["step"] == step


def test_the_time_limit_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    state = run(tmp_path, "steps=1000000", "checkpoint_every=0", "max_seconds=0.2")
    assert 0 < state.step < 1_000_000
    assert state.stopped == "time limit of 0.2 s"
    again = run(tmp_path, f"steps={state.step + 1}", "max_seconds=null")
    assert again.step == state.step + 1


def test_signals_mean_again_what_they_meant_before_training(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path, "steps=1")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
