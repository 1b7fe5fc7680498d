r"""Low-rank adaptation: a trained network learns something new through few parameters (LoRA, Hu et al. 2021).

A weight W becomes :math:`W + s\,UD`, with ``rank`` rows in D and as many columns in U, which starts at zero; only these
are trained. That works for every linear map and every convolution, in any network::

    add_lora(model, rank=8)                                 # then train the model as usual
    export(lora_state(model), "style.safetensors", {})      # of sciffusion.training.export
    load_lora(model, load_weights("style.safetensors")[0])  # into another copy of the network
    scale_lora(model, 0.5)
    merge_lora(model)                                       # no trace of it but in the weights
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["add_lora", "load_lora", "lora_state", "merge_lora", "remove_lora", "scale_lora"]


@final
class _LowRank(nn.Module):
    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        most = min(rows, columns)
        if not 0 < rank <= most:
            raise ValueError(
                f"rank must be between 1 and {most} for a weight of shape {tuple(weight.shape)}, not {rank}"
            )
        self.scale = 1.0
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, 5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down).view_as(weight)


def add_lora(model: nn.Module, rank: int = 8, layers: str = r"(^|\.)(qkv|q|kv|out)$") -> list[str]:
    """Freeze a model, and give all layers whose name matches a low-rank term to train.

    Args:
        model: changed in place: what it computes stays as it is until the terms are trained.
        rank: of the terms.
        layers: a regular expression that is searched in the names of layers; those of attention by default.

    Returns:
        The names of the layers.

    Raises:
        ValueError: no layer with a weight of two or more axes matches, a rank is none of the weight's, or the model
            has low-rank terms already (merge or remove them first).
    """
    _check_bare(model)
    names = [
        name
        for name, module in model.named_modules()
        if re.search(layers, name)
        and isinstance(weight := getattr(module, "weight", None), nn.Parameter)
        and weight.ndim > 1
    ]
    if not names:
        raise ValueError(f"no layer's name matches layers={layers!r}; see model.named_modules()")
    _attach(model, dict.fromkeys(names, rank))
    return names


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The low-rank terms of a model by the names of their layers, ``"layer.down"`` and ``"layer.up"``.

    They hold the scale that is set. Raises ``ValueError`` for a model without such terms.
    """
    found: dict[str, Tensor] = {}
    for name, term, _ in _adapted(model):
        found |= {f"{name}.down": term.down.detach(), f"{name}.up": term.scale * term.up.detach()}
    return found


def load_lora(model: nn.Module, tensors: Mapping[str, Tensor], scale: float = 1.0) -> None:
    """Give a model the low-rank terms that :func:`lora_state` returned; freezes it, as :func:`add_lora` does.

    Raises ``ValueError`` unless the names and shapes fit the model, which must have no such terms yet.
    """
    _check_bare(model)
    layers = dict(model.named_modules())
    names = sorted({key.rpartition(".")[0] for key in tensors})
    for name in names:
        up, down = tensors.get(f"{name}.up"), tensors.get(f"{name}.down")
        weight = getattr(layers.get(name), "weight", None)
        if up is None or down is None or not isinstance(weight, Tensor):
            raise ValueError(f"tensors hold no pair up and down of a layer of the model: {name!r}")
        if (len(up), *down.shape[1:]) != (len(weight), weight[0].numel()):
            raise ValueError(
                f"{name} has a weight of shape {tuple(weight.shape)}, which up {tuple(up.shape)} and down "
                f"{tuple(down.shape)} do not fit"
            )
    _attach(model, {name: len(tensors[f"{name}.down"]) for name in names})
    for name, term, _ in _adapted(model):
        with torch.no_grad():
            term.down.copy_(tensors[f"{name}.down"])
            term.up.copy_(tensors[f"{name}.up"])
        term.scale = scale


def scale_lora(model: nn.Module, scale: float) -> None:
    """Set how much of the low-rank terms acts: 0 is the network without them, 1 as trained."""
    for _, term, _ in _adapted(model):
        term.scale = scale


def merge_lora(model: nn.Module) -> None:
    """Put the low-rank terms into the weights, at the scale that is set; the model is then as any other, but frozen."""
    for _, _, layer in _adapted(model):
        _restore(layer, layer.weight)


def remove_lora(model: nn.Module) -> None:
    """Take the low-rank terms away; the weights are what they were before (and still frozen)."""
    for _, _, layer in _adapted(model):
        _restore(layer, layer.get_parameter("parametrizations.weight.original"))


def _restore(layer: nn.Module, weight: Tensor | nn.Module) -> None:
    """Undo ``register_parametrization``.

    PyTorch's own way changes the class of the layer, which copies of the model have in common.
    """
    assert isinstance(weight, Tensor)
    value = weight.detach()
    del layer.parametrizations
    layer.__class__ = type(layer).__bases__[0]
    layer.weight = nn.Parameter(value, requires_grad=False)


def _check_bare(model: nn.Module) -> None:
    if any(parametrize.is_parametrized(m) for m in model.modules()):
        raise ValueError("the model has low-rank terms already: merge or remove them first")


def _attach(model: nn.Module, ranks: Mapping[str, int]) -> None:
    layers = dict(model.named_modules())
    terms = {name: _LowRank(layers[name].weight, rank) for name, rank in ranks.items()}
    model.requires_grad_(False)
    for name, term in terms.items():
        parametrize.register_parametrization(layers[name], "weight", term)


def _adapted(model: nn.Module) -> list[tuple[str, _LowRank, nn.Module]]:
    """Name, low-rank term and layer of all that have one."""
    found = []
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            term = layer.get_submodule("parametrizations.weight.0")
            if isinstance(term, _LowRank):
                found.append((name, term, layer))
    if not found:
        raise ValueError("the model has no low-rank terms: add_lora or load_lora gives it some")
    return found
