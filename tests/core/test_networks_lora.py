"""Laws of low-rank terms: they start as nothing, train alone, and are saved, scaled, merged and removed."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sciffusion.networks import (
    DiT,
    UNet,
    add_lora,
    load_lora,
    lora_state,
    merge_lora,
    remove_lora,
    scale_lora,
)
from sciffusion.training.export import export, load_weights

from .networks import close, draw, shaken

EVERYTHING = "."


def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "DiT":
        return shaken(DiT(3, 2, width=24, depth=2, heads=2, embedding=6))
    return shaken(
        UNet(3, 2, widths=(8, 16), blocks=1, attention=(False, True), head_width=8, embedding=6)
    )


def trained(model: nn.Module, steps: int = 3) -> nn.Module:
    """The model after some steps towards noise."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(*given()) - draw(2, 2, 4, 6, seed=5)).square().mean().backward()
        optimizer.step()
    return model


def given() -> tuple[Tensor, Tensor]:
    return draw(2, 3, 4, 6), draw(2, 6)


@pytest.mark.parametrize("name", ["U-Net", "DiT"])
@pytest.mark.parametrize("layers", [r"(^|\.)(qkv|q|kv|out)$", EVERYTHING])
def test_they_change_nothing_at_first_and_are_all_that_is_trained(name: str, layers: str) -> None:
    model = net(name)
    y, before = model(*given()), {k: v.clone() for k, v in model.state_dict().items()}
    names = add_lora(model, rank=2, layers=layers)
    assert torch.equal(model(*given()), y)
    assert 0 < len(names)
    trained(model)
    assert (model(*given()) - y).abs().max() > 1e-4
    moved = {k for k, p in model.named_parameters() if p.grad is not None}
    terms = {f"{n}.parametrizations.weight.0.{part}" for n in names for part in ("up", "down")}
    assert moved == terms
    remove_lora(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)


@pytest.mark.parametrize("name", ["U-Net", "DiT"])
def test_merged_terms_give_the_same_network_with_plain_weights(name: str) -> None:
    model, names = net(name), net(name).state_dict().keys()
    add_lora(model, rank=2, layers=EVERYTHING)
    trained(model)
    y = model(*given())
    merge_lora(model)
    assert model.state_dict().keys() == names
    close(model(*given()), y)
    with pytest.raises(ValueError, match="no low-rank terms"):
        merge_lora(model)


def test_scales_interpolate_the_weights_and_zero_is_the_network_without() -> None:
    model = net("DiT")
    y = model(*given())
    add_lora(model, rank=2)
    trained(model)
    whole = deepcopy(model)
    merge_lora(whole)  # leaves what it was copied from as it is
    scale_lora(model, 0.0)
    assert torch.equal(model(*given()), y)
    scale_lora(model, 0.5)
    merge_lora(model)
    plain, half = net("DiT").state_dict(), model.state_dict()
    for name, value in whole.state_dict().items():
        close(half[name], (plain[name] + value) / 2)


def test_they_are_saved_and_loaded_into_another_copy(tmp_path: Path) -> None:
    model, other = net("DiT"), net("DiT")
    names = add_lora(model, rank=3)
    trained(model)
    scale_lora(model, 0.7)
    export(lora_state(model), tmp_path / "style.safetensors", {"rank": 3})
    tensors, _ = load_weights(tmp_path / "style.safetensors")
    assert len(tensors) == 2 * len(names)
    load_lora(other, tensors)
    close(other(*given()), model(*given()))
    scale_lora(other, 0.0)
    assert torch.equal(other(*given()), net("DiT")(*given()))


def test_their_number_is_that_of_their_rank() -> None:
    model = net("DiT")
    add_lora(model, rank=2, layers=r"blocks\.\d+\.own\.qkv$")
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == 2 * 2 * (24 + 72)


def test_they_compile_to_one_graph() -> None:
    model = net("DiT")
    add_lora(model, rank=2)
    trained(model)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    close(compiled(*given()), model(*given()))


def test_what_does_not_fit_is_refused_by_name() -> None:
    model = net("DiT")
    with pytest.raises(ValueError, match=r"no layer's name matches layers='conv'"):
        add_lora(model, layers="conv")
    with pytest.raises(ValueError, match="rank must be between 1 and 24 .* not 25"):
        add_lora(model, rank=25)
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="no low-rank terms"):
        lora_state(model)
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="has low-rank terms already"):
        add_lora(model, rank=2)
    state = lora_state(model)
    with pytest.raises(ValueError, match="no pair up and down of a layer of the model"):
        load_lora(net("U-Net"), state)
    name = next(iter(state))
    with pytest.raises(ValueError, match="do not fit"):
        load_lora(net("DiT"), state | {name: state[name][:, :-1]})
