"""The number of processes changes the speed and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sciffusion

from .test_loop import rows
from .toy import run

# One process that cuts its batches in two has the parts, and so the noise, of two processes.
ALONE = ("steps=12", "accumulate=2", "validate_every=5")
PARALLEL = ["ddp", "fsdp"]


def launch(program: str, *arguments: str) -> None:
    """Run a program of this folder in two processes."""
    done = subprocess.run(
        [
            sys.executable,
            *"-m torch.distributed.run --standalone --nproc-per-node 2".split(),
            str(Path(__file__).with_name(program)),
            *arguments,
        ],
        env=os.environ | {"PYTHONPATH": str(Path(sciffusion.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr  # all of it: torchrun's own report comes last


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs: alone, by two processes, and each continued by the other."""
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "alone", *ALONE)
    run(folder / "alone-parts", "steps=12", "accumulate=4")
    for parallel in PARALLEL:
        run(folder / f"{parallel}-second", "steps=5", "accumulate=2")  # between two rows
    launch("world.py", str(folder))
    for parallel in PARALLEL:
        run(folder / f"{parallel}-first", *ALONE)
    return folder


def assert_same(a: Path, b: Path) -> None:
    for name in ("model", "ema", "optimizer"):
        file = Path("checkpoints") / "step-00000012" / f"{name}.safetensors"
        first, second = load_file(a / file), load_file(b / file)
        assert first.keys() == second.keys()
        for key in first:
            if key != "calls":  # counted on each process
                torch.testing.assert_close(first[key], second[key], rtol=0, atol=1e-6, msg=key)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_train_like_one(parallel: str, runs: Path) -> None:
    assert_same(runs / "alone", runs / parallel)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_that_accumulate_two_parts_train_like_one_with_four(
    parallel: str, runs: Path
) -> None:
    assert_same(runs / "alone-parts", runs / f"{parallel}-parts")


@pytest.mark.parametrize("part", ["", "-first", "-second"])
@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_record_what_one_records(parallel: str, part: str, runs: Path) -> None:
    for table in ["log.csv"] if part else ["log.csv", "validation.csv"]:
        alone, both = rows(runs / "alone", table), rows(runs / f"{parallel}{part}", table)
        for a, b in zip(alone, both, strict=True):
            a.pop("seconds", None), b.pop("seconds", None)
            assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_one_process_continues_the_run_of_two(parallel: str, runs: Path) -> None:
    assert_same(runs / "alone", runs / f"{parallel}-first")


@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_continue_the_run_of_one(parallel: str, runs: Path) -> None:
    assert_same(runs / "alone", runs / f"{parallel}-second")


def test_the_noise_of_the_toy_is_strong_enough_to_tell_runs_apart(
    runs: Path, tmp_path: Path
) -> None:
    run(tmp_path, "steps=12", "accumulate=1")
    with pytest.raises(AssertionError):
        assert_same(runs / "alone", tmp_path)


def test_a_signal_to_one_process_stops_all_at_the_same_step(runs: Path) -> None:
    first, second = ((runs / f"stopped-{rank}").read_text().split(":") for rank in (0, 1))
    assert first[0] == second[0] == "3"
    assert second[1] == "SIGTERM"
    assert first[1] == "another process was asked to stop"
    assert (runs / "stopped" / "checkpoints" / "step-00000003" / "state.json").exists()


@pytest.mark.parametrize(("parallel", "late"), [("ddp", 0), ("fsdp", 1)])
def test_processes_may_end_apart_and_while_a_call_ends(
    parallel: str, late: int, tmp_path: Path
) -> None:
    launch("leave.py", str(tmp_path), parallel, str(late))
