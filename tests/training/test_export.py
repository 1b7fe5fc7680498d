"""Weights to ship: one file, exact or rounded as documented, with its description."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sciffusion.ema import EMA, Constant
from sciffusion.training import export, load_weights

META = {"domain": "toy", "units": {"length": "angstrom"}, "sizes": [1, 2], "ä": None}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    exponents = torch.linspace(-4, 4, 200)
    return {
        "w": (1 + torch.rand(200, generator=generator)) * 10**exponents,  # normal in float16
        "count": torch.arange(5),
        "mask": torch.tensor([True, False]),
    }


def test_weights_and_description_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    export(tensors(), path, META)
    found, meta = load_weights(path)
    assert meta == META
    for name, value in tensors().items():
        assert torch.equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
def test_half_precision_is_half_the_size_and_rounds_within_its_bound(
    dtype: torch.dtype, error: float, tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    export(tensors(), path, META, dtype)
    found, _ = load_weights(path)
    assert found["w"].dtype == torch.float32
    relative = (found["w"] / tensors()["w"] - 1).abs().max()
    assert 0 < relative <= error * (1 + 1e-6)
    assert torch.equal(found["count"], tensors()["count"])
    big = {"w": torch.zeros(10_000)}
    export(big, tmp_path / "a", META)
    export(big, tmp_path / "b", META, dtype)
    assert (tmp_path / "b").stat().st_size < 0.52 * (tmp_path / "a").stat().st_size


def test_exact_tensors_are_not_rounded(tmp_path: Path) -> None:
    exact = {"scale": torch.tensor([5304.123, 1 / 3], dtype=torch.float64)}
    export(tensors(), tmp_path / "a", META, torch.float16, exact=exact)
    found, _ = load_weights(tmp_path / "a")
    assert torch.equal(found["scale"], exact["scale"]) and found["scale"].dtype == torch.float64
    assert not torch.equal(found["w"], tensors()["w"])
    with pytest.raises(ValueError, match="exact repeats names of tensors: \\['w'\\]"):
        export(tensors(), tmp_path / "a", META, exact={"w": torch.zeros(1)})


def test_rounding_twice_changes_nothing_more(tmp_path: Path) -> None:
    export(tensors(), tmp_path / "a", META, torch.float16)
    once, _ = load_weights(tmp_path / "a")
    export(once, tmp_path / "b", META, torch.float16)
    twice, _ = load_weights(tmp_path / "b")
    assert torch.equal(once["w"], twice["w"])


def test_a_weight_too_large_for_float16_is_refused_by_name(tmp_path: Path) -> None:
    big = {"head.weight": torch.tensor([1.0, 7e4])}
    with pytest.raises(
        ValueError, match=r"head\.weight holds 7e\+04, too large for torch\.float16"
    ):
        export(big, tmp_path / "a", META, torch.float16)
    assert not list(tmp_path.iterdir())
    export(big, tmp_path / "a", META, torch.bfloat16)


def test_the_averaged_model_with_tied_weights_can_be_exported(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    ema = EMA(model, Constant(value=0.5))
    with torch.no_grad():
        layer.weight.add_(2.0)
    ema.update(model)
    with ema.swapped(model):
        export(model.state_dict(), tmp_path / "a", {})
    other = nn.Sequential(layer, nn.Tanh(), layer)
    expected = layer.weight.detach() - 1.0
    other.load_state_dict(load_weights(tmp_path / "a")[0])
    assert torch.allclose(layer.weight, expected)


@pytest.mark.parametrize("meta", [{"a": torch.zeros(1)}, {"a": float("nan")}, {"a": {1, 2}}])
def test_a_description_that_is_not_json_is_refused(meta: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain JSON"):
        export(tensors(), tmp_path / "a", meta)


def test_other_files_are_refused_with_their_name(tmp_path: Path) -> None:
    foreign, broken = tmp_path / "foreign.safetensors", tmp_path / "broken.safetensors"
    save_file(tensors(), foreign)
    broken.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(ValueError, match=r"foreign.*not written by export"):
        load_weights(foreign)
    with pytest.raises(ValueError, match=r"broken.*not a readable safetensors"):
        load_weights(broken)
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none")


def test_a_shipped_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    export({"w": torch.zeros(2)}, tmp_path / "model.safetensors", {})
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
