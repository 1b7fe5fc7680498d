"""Models in folders for the Hub: whole, described, and nothing else."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sciffusion.interop import hub
from sciffusion.training.export import export, load_weights

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
META = {"kind": "toy", "model": {"width": 3}}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    export(TENSORS, tmp_path / "toy.safetensors", META)
    return tmp_path / "toy.safetensors"


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return hub.pack(model, tmp_path / "packed", card="# Toy\n")


def test_a_folder_gives_back_the_model_bit_by_bit(folder: Path, model: Path) -> None:
    path = hub.pull(str(folder))
    assert path.read_bytes() == model.read_bytes()
    tensors, meta = load_weights(path)
    assert meta == META
    assert all(torch.equal(tensors[k], v) for k, v in TENSORS.items())


def test_a_folder_holds_config_weights_and_card_alone(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert json.loads((folder / "config.json").read_text())["model"] == META


def test_packing_again_is_packing_once(folder: Path, model: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    hub.pack(model, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["model.pkl", "pytorch_model.bin", "modeling_toy.py", "sub"])
def test_any_other_file_is_refused(folder: Path, model: Path, name: str) -> None:
    (folder / name).mkdir() if name == "sub" else (folder / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"holds {name}"):
        hub.unpack(folder)
    with pytest.raises(ValueError, match=f"holds {name}"):
        hub.pack(model, folder)


def test_what_was_exchanged_or_cut_off_is_refused(folder: Path, tmp_path: Path) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, told = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="another sha256"):
        hub.unpack(folder)
    weights.write_bytes(whole)
    config.write_text(told.replace('"width": 3', '"width": 4'))
    with pytest.raises(ValueError, match="different models"):
        hub.unpack(folder)
    config.write_text("{")
    with pytest.raises(ValueError, match="not the description"):
        hub.unpack(folder)
    config.unlink()
    with pytest.raises(ValueError, match="lacks config.json"):
        hub.unpack(folder)
    with pytest.raises(ValueError, match="not a readable safetensors"):
        (tmp_path / "no").write_bytes(b"no")
        hub.pack(tmp_path / "no", tmp_path / "other")


class Recorder:
    """A Hub that is a folder."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def HfApi(self, library_name: str) -> "Recorder":
        return self

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        self.sent["private"] = private

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        self.sent |= options
        return SimpleNamespace(commit_url="address")

    def snapshot_download(self, repository: str, **options: Any) -> str:
        self.sent |= options
        return str(self.sent["folder_path"])


def test_push_and_pull_move_the_allowed_files_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Recorder()
    monkeypatch.setitem(sys.modules, "huggingface_hub", there)
    assert hub.push(folder, "owner/toy") == "address"
    assert there.sent["private"] is True
    assert there.sent["allow_patterns"] == [
        "config.json",
        "model.safetensors",
        "README.md",
        ".gitattributes",
    ]
    assert hub.pull("owner/toy", "abc") == folder / "model.safetensors"
    assert there.sent["revision"] == "abc"
    (folder / "config.json").unlink()
    there.sent.clear()
    with pytest.raises(ValueError, match="lacks config.json"):
        hub.push(folder, "owner/toy")
    assert not there.sent


def test_the_hub_has_the_functions_that_are_called() -> None:
    real = pytest.importorskip("huggingface_hub")
    import inspect

    def names(function: Any) -> set[str]:
        return set(inspect.signature(function).parameters)

    assert {"private", "exist_ok"} <= names(real.HfApi.create_repo)
    upload = {"repo_id", "folder_path", "allow_patterns", "commit_message"}
    assert upload <= names(real.HfApi.upload_folder)
    download = {"revision", "cache_dir", "allow_patterns", "library_name"}
    assert download <= names(real.snapshot_download)
