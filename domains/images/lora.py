"""What a model learned through few parameters: an adapter, low-rank terms in a file of their own (LoRA).

A recipe with ``base`` and ``rank`` trains one, and the base stays as it is; :meth:`.ImageModel.adapted` puts it into a
model. (Hu et al. 2021; the terms are :mod:`sciffusion.networks.lora`'s.)
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from sciffusion.denoiser import Preconditioned
from sciffusion.networks import add_lora, load_lora, lora_state, merge_lora
from sciffusion.training import ModelFile, write_model

__all__ = ["Adapter", "with_terms"]

LAYERS = r"(conv[12]|film|qkv|out|down\.\d+|up\.\d+|bridge\.\d+|wide|narrow|modulation\.linear)$"
"""The layers that are given terms: convolutions, attention, and how the condition steers them."""


def with_terms(base: Preconditioned, rank: int) -> Preconditioned:
    """A copy of a denoiser that learns through low-rank terms only, and computes the same before it does.

    Raises ``ValueError`` for a rank that is none of a layer's.
    """
    model = deepcopy(base)
    add_lora(model, rank, LAYERS)
    return model


@final
@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank terms by the names of their layers, and what is told of them."""

    terms: Mapping[str, Tensor]
    info: Mapping[str, Any] | None = None

    @classmethod
    def from_training(
        cls,
        model: Preconditioned,
        weights: Mapping[str, Tensor],
        info: Mapping[str, Any] | None = None,
    ) -> Adapter:
        """What :func:`with_terms` and (averaged) weights make."""
        model.load_state_dict(dict(weights))
        return cls(lora_state(model), info)

    def into(self, denoiser: Preconditioned, scale: float = 1.0) -> Preconditioned:
        """A copy of a denoiser with ``scale`` of the terms in its weights.

        Raises ``ValueError`` for a network that they do not fit.
        """
        model = deepcopy(denoiser)
        learn = {name for name, p in model.named_parameters() if p.requires_grad}
        load_lora(model, self.terms, scale)
        merge_lora(model)
        for name, p in model.named_parameters():
            p.requires_grad_(name in learn)
        return model

    def save(self, path: str | Path) -> Path:
        """Write the terms to one safetensors file, rounded to float16."""
        return write_model(
            path, "images-adapter", {"info": dict(self.info or {})}, {"terms": self.terms}
        )

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, "images-adapter", "an adapter of a model of images")
        return cls(file.part("terms"), file.meta["info"])
