"""One-file weights to ship: safetensors with the model's description inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sciffusion.io.atomic import atomic_write

_KEY = "sciffusion"


def export(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    meta: Mapping[str, object],
    dtype: torch.dtype | None = None,
    *,
    exact: Mapping[str, Tensor] | None = None,
) -> None:
    """Write named tensors and JSON metadata to one file, replacing it in one move.

    ``dtype`` (``torch.float16`` or ``torch.bfloat16``) rounds floating tensors to the nearest value
    that the type holds, ties to even: relative error at most 2^-11 or 2^-8 above the type's
    smallest normal number. Tensors in ``exact``, scales or coordinates, stay as they are. Export
    the averaged model with ``with ema.swapped(model): export(model.state_dict(), ...)``.

    Raises:
        ValueError: a finite weight becomes infinite in ``dtype``, a name is in ``exact`` too, or ``meta`` is not JSON.
    """
    stored = {
        name: tensor.detach().cpu().clone().contiguous() for name, tensor in (exact or {}).items()
    }
    if twice := sorted(stored.keys() & tensors.keys()):
        raise ValueError(f"exact repeats names of tensors: {twice}")
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if dtype is not None and value.is_floating_point():
            rounded = value.to(dtype)
            if not torch.equal(rounded.isfinite(), value.isfinite()):
                raise ValueError(f"{name} holds {value.abs().max():.3g}, too large for {dtype}")
            value = rounded
        stored[name] = value.clone().contiguous()
    try:
        text = json.dumps(dict(meta), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"meta must be plain JSON values: {error}") from error
    with atomic_write(path) as part:
        # bytes rather than save_file, which would make the file unreadable for others
        part.write_bytes(save(stored, metadata={_KEY: text}))


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read what :func:`export` wrote: tensors (half precision widened to float32) and metadata.

    Raises:
        ValueError: if the file is not safetensors, or was not written by :func:`export`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors raises its own undocumented types
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ValueError(f"{path} has no sciffusion metadata: it was not written by export()")
    half = (torch.float16, torch.bfloat16)
    wide = {n: t.float() if t.dtype in half else t for n, t in tensors.items()}
    return wide, json.loads(metadata[_KEY])
