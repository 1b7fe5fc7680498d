"""Checkpoints: complete or absent, readable without running code, free of the number of processes.

``DIR/checkpoints/step-00001234/`` holds ``model.safetensors``, ``ema.safetensors``,
``optimizer.safetensors``, ``config.yaml`` and, written last, ``state.json`` with the size of each
file. All is written to a hidden folder, flushed to the disk, and renamed; a folder whose files do
not match its ``state.json`` is ignored.

``torch.distributed.checkpoint`` is not used for the files, because its metadata is a pickle.
Sharded tensors are gathered one at a time and written by the first process; on loading each process
reads the files (they must be visible to all) and keeps its shard.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sciffusion.config import dump, flatten, parse, read_yaml, to_dict

from .config import MAY_CHANGE, TrainConfig
from .distributed import World
from .state import TrainState
from .task import Task

FORMAT = 1


@final
@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a folder, of a run with these settings; the newest ``keep`` are kept."""

    directory: Path
    keep: int = 1
    settings: Mapping[str, object] = field(default_factory=dict)

    def complete(self) -> list[Path]:
        """Return the usable checkpoints, oldest first."""
        return [p for p in sorted(self.directory.glob("step-*")) if read_state(p) is not None]

    def latest(self) -> Path | None:
        """Return the newest usable checkpoint."""
        return next(iter(reversed(self.complete())), None)

    def save(self, state: TrainState, epoch: float, world: World) -> None:
        """Write the state and then remove old checkpoints (a call for all processes)."""
        files = state.tensors()
        record = {
            "format": FORMAT,
            "step": state.step,
            "epoch": epoch,
            "logged": state.logged,
            "processes": world.size,
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
        }
        if world.rank == 0:
            final_path = self.directory / f"step-{state.step:08d}"
            if read_state(final_path) is None:
                self._write(final_path, files, record)
            for old in self.complete()[: -self.keep]:
                shutil.rmtree(old)
        world.max(0)  # wait for the first process

    def _write(
        self, path: Path, files: Mapping[str, dict[str, Tensor]], record: Mapping[str, object]
    ) -> None:
        temporary = self.directory / f".{path.name}"
        for leftover in (*self.directory.glob(".step-*"), path):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, tensors in files.items():
            save_file(tensors, temporary / f"{name}.safetensors")
        (temporary / "config.yaml").write_text(dump(self.settings), encoding="utf-8")
        sizes = {p.name: p.stat().st_size for p in sorted(temporary.iterdir())}
        text = json.dumps({**record, "files": sizes}, indent=1)
        (temporary / "state.json").write_text(text, encoding="utf-8")
        for part in (*temporary.iterdir(), temporary):
            _flush(part)
        temporary.rename(path)
        _flush(self.directory)

    def resume(self, state: TrainState, world: World) -> bool:
        """Put the newest checkpoint into ``state``; tell whether there was one.

        Raises:
            ValueError: naming the settings that differ, or the tensors that do not fit.
        """
        found = self.latest()
        step = world.max(-1 if found is None else int(found.name.removeprefix("step-")))
        if step < 0:
            return False
        path = self.directory / f"step-{step:08d}"
        record = read_state(path)
        if record is None:
            raise ValueError(f"{path} is complete for another process, but not for this one")
        if record["format"] != FORMAT:
            raise ValueError(f"{path} has format {record['format']}, this version reads {FORMAT}")
        same_settings(read_yaml(path / "config.yaml"), self.settings, path)
        state.load({p.stem: load_file(p) for p in path.glob("*.safetensors")}, step)
        state.logged = list(record["logged"])
        return True


def settings(task: Task, config: TrainConfig) -> dict[str, object]:
    """Return all settings of a run as plain values: ``train`` and what the task describes."""
    return {"train": to_dict(config), "task": to_dict(task.describe())}


def same_settings(old: Mapping[str, Any], new: Mapping[str, object], path: Path) -> None:
    """Refuse to continue a run under other settings than those that may change.

    A setting of :class:`TrainConfig` that did not exist then has its default.
    """
    train = to_dict(parse(TrainConfig, old["train"], source=f"{path}/config.yaml"))
    before, after = flatten({**old, "train": train}), flatten(new)
    changed = [
        f"{key}: {before.get(key, 'absent')!r} -> {after.get(key, 'absent')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, "absent") != after.get(key, "absent")
        and key.removeprefix("train.").partition(".")[0] not in MAY_CHANGE
    ]
    if changed:
        listed = "\n  ".join(changed)
        raise ValueError(
            f"cannot resume {path} with changed settings:\n  {listed}\n"
            "Restore them, or train in a new directory."
        )


def read_state(path: Path) -> dict | None:
    """Return the record of a complete checkpoint, None for a torn or foreign folder."""
    try:
        record = json.loads((path / "state.json").read_text(encoding="utf-8"))
        sizes = {name: (path / name).stat().st_size for name in record["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if sizes == record["files"] else None


def _flush(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
