"""What a checkpoint holds, which ones are kept, and when a resume is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sciffusion.config import load, read_yaml
from sciffusion.training import Task, TrainConfig, checkpoint, train

from .toy import Net, Toy, config, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    run(directory, "steps=10", "keep=2")
    return directory


def checkpoints(directory: Path) -> list[str]:
    return sorted(p.name for p in (directory / "checkpoints").iterdir())


def test_only_the_newest_checkpoints_are_kept_and_one_is_written_at_the_end(trained: Path) -> None:
    assert checkpoints(trained) == ["step-00000008", "step-00000010"]


def test_no_file_of_a_checkpoint_can_run_code(trained: Path) -> None:
    files = [p for p in trained.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".safetensors", ".json", ".yaml", ".csv"}
    for path in files:
        assert not zipfile.is_zipfile(path), path
        assert not path.read_bytes().startswith(b"\x80"), path  # the opcode that starts a pickle
        if path.suffix == ".safetensors":
            assert load_file(path)
        if path.suffix == ".json":
            assert json.loads(path.read_text())["step"] in (8, 10)


def test_a_checkpoint_tells_what_made_it(trained: Path, tmp_path: Path) -> None:
    folder = trained / "checkpoints" / "step-00000010"
    record = json.loads((folder / "state.json").read_text())
    assert (record["step"], record["epoch"], record["processes"]) == (10, 2.0, 1)
    assert record["versions"]["torch"] == torch.__version__
    settings = read_yaml(folder / "config.yaml")
    assert settings["task"] == {"noise": 0.1}
    (tmp_path / "train.yaml").write_text(json.dumps(settings["train"]))
    assert load(TrainConfig, tmp_path / "train.yaml") == config("steps=10", "keep=2")


def test_weights_and_average_have_the_names_of_the_model(trained: Path) -> None:
    folder = trained / "checkpoints" / "step-00000010"
    for name in ("model", "ema"):
        Net(0.1).load_state_dict(load_file(folder / f"{name}.safetensors"))


def test_changed_settings_are_refused_by_name(trained: Path) -> None:
    with pytest.raises(ValueError, match="cannot resume") as error:
        run(trained, "steps=10", "lr=0.02", "optimizer.weight_decay=0.5", task=Toy(noise=0.2))
    for part in (
        "train.lr: 0.01 -> 0.02",
        "train.optimizer.weight_decay: 0.0 -> 0.5",
        "task.noise: 0.1 -> 0.2",
    ):
        assert part in str(error.value)
    assert "steps" not in str(error.value)


def test_another_optimizer_or_no_average_is_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.optimizer\.kind: 'adamw' -> 'muon'"):
        run(trained, "steps=10", "optimizer={kind: muon}")
    with pytest.raises(ValueError, match=r"train\.ema"):
        run(trained, "steps=10", "ema=null")


def test_harmless_settings_may_change(trained: Path) -> None:
    state = run(
        trained, "steps=10", "log_every=1", "keep=5", "max_seconds=9", "threads=1", "accumulate=2"
    )
    assert state.step == 10


@pytest.mark.parametrize(("edit", "message"), [("", ""), ("  old_knob: 3\n", "old_knob: unknown")])
def test_a_setting_that_did_not_exist_yet_has_its_default_and_a_removed_one_is_named(
    edit: str, message: str, tmp_path: Path
) -> None:
    run(tmp_path, "steps=4")
    folder = tmp_path / "checkpoints" / "step-00000004"
    text = (folder / "config.yaml").read_text()
    assert "  precision: fp32\n" in text
    (folder / "config.yaml").write_text(text.replace("  precision: fp32\n", edit))
    record = json.loads((folder / "state.json").read_text())
    record["files"]["config.yaml"] = (folder / "config.yaml").stat().st_size
    (folder / "state.json").write_text(json.dumps(record))
    if message:
        with pytest.raises(ValueError, match=message):
            run(tmp_path, "steps=8")
    else:
        assert run(tmp_path, "steps=8").step == 8
        with pytest.raises(ValueError, match=r"train\.precision: 'fp32' -> 'bf16'"):
            run(tmp_path, "steps=12", "precision=bf16")


def test_a_directory_with_a_run_is_refused_without_resume(trained: Path) -> None:
    with pytest.raises(ValueError, match="already holds a run"):
        train(Toy(), config("steps=10"), trained, resume=False)


class Wider(Toy):
    """The same task with another model, which its description hides."""

    def model(self) -> nn.Module:
        net = Net(self.dropout)
        net.head = nn.Linear(16, 2)
        net.extra = nn.Linear(1, 1)
        del net.unused
        return net


def test_weights_of_another_model_are_refused_by_name(trained: Path) -> None:
    task: Task = Wider()
    with pytest.raises(ValueError, match="do not fit") as error:
        run(trained, "steps=10", task=task)
    for part in (
        "extra.weight is missing",
        "unused is not part of the model",
        "head.weight has shape (1, 16), the model needs (2, 16)",
    ):
        assert part in str(error.value)


def test_a_checkpoint_of_another_format_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(ValueError, match="has format 1, this version reads 2"):
        run(trained, "steps=10")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that advances by one second at each look."""
    now = [0.0]

    def look() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr("sciffusion.training.loop.time.monotonic", look)
    yield now


def test_checkpoints_come_by_the_clock_too(tmp_path: Path, clock: list[float]) -> None:
    run(tmp_path, "steps=30", "checkpoint_every=0", "checkpoint_seconds=20", "keep=9")
    assert len(checkpoints(tmp_path)) > 2
