"""One file for a trained model: parts and settings come back, and another kind is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from sciffusion.config import ConfigError
from sciffusion.training import ModelFile, write_model


@dataclass(frozen=True)
class Settings:
    width: int = 3
    names: tuple[str, ...] = ("a", "b")


def test_parts_and_settings_come_back_and_exact_tensors_are_not_rounded(tmp_path: Path) -> None:
    net, scale = nn.Linear(2, 2), torch.tensor([1 + 2.0**-20])
    path = tmp_path / "model.safetensors"
    meta = {"model": Settings(5), "info": {"steps": 7}}
    assert write_model(path, "toy", meta, {"net": net.state_dict()}, {"": {"scale": scale}}) == path
    file = ModelFile.read(path, "toy", "a toy")
    assert file.config(Settings, "model") == Settings(5)
    assert file.meta["info"] == {"steps": 7}
    assert file.part("net").keys() == net.state_dict().keys()
    torch.testing.assert_close(
        file.part("net")["weight"], net.weight.detach(), rtol=2.0**-11, atol=1e-7
    )
    assert torch.equal(file.tensors["scale"], scale)
    # a part within a part is a part of its own
    inner = ModelFile(path, file.meta, {f"mean.{k}": v for k, v in file.tensors.items()})
    assert (
        ModelFile(path, file.meta, inner.part("mean")).part("net").keys() == net.state_dict().keys()
    )


def test_another_kind_and_settings_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, "toy", {"model": {"wdith": 3}}, {"": {"w": torch.zeros(1)}})
    with pytest.raises(ValueError, match="holds 'toy', not a model of films"):
        ModelFile.read(path, "video", "a model of films")
    with pytest.raises(ConfigError, match="wdith"):
        ModelFile.read(path, "toy", "a toy").config(Settings, "model")
