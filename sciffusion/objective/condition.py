"""What is asked of a condition in training: one entry per sample, some of which are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciffusion.denoiser import Condition
from sciffusion.layout import Dense, Layout, Masked
from sciffusion.state import State

__all__ = ["check_entries", "drop_condition", "drop_entries"]


def check_entries(cond: Condition, batch: int, name: str = "cond") -> None:
    """Raise ``ValueError`` unless every tensor of the condition has one entry per sample."""
    if isinstance(cond, State):
        if cond.batch != batch:
            raise ValueError(f"{name} holds {cond.batch} samples for a batch of {batch}")
    elif isinstance(cond, Mapping):
        for key, value in cond.items():
            check_entries(value, batch, f"{name}[{key!r}]")
    elif isinstance(cond, Tensor) and (cond.ndim == 0 or cond.shape[0] != batch):
        raise ValueError(
            f"{name} has shape {tuple(cond.shape)} for a batch of {batch}; give one entry per sample"
        )


def drop_condition(cond: Condition, null: Condition, dropped: Tensor, name: str = "null") -> Any:
    """``cond`` with the samples named by ``dropped`` (B,) replaced by the null condition.

    ``null`` holds numbers, or tensors shaped like the condition of one sample; for a state's padded or packed fields,
    like that of one point. Raises ``ValueError`` where ``null`` has no entry for a part of the condition, or one of
    another shape.
    """
    if isinstance(cond, Mapping):
        missing = [k for k in cond if not isinstance(null, Mapping) or k not in null]
        if missing:
            raise ValueError(f"{name} has no entry for {missing}, which the condition has")
        if isinstance(cond, State):
            return cond.replace(
                {k: _drop(v, null[k], dropped, cond.layout(k), name) for k, v in cond.items()}
            )
        return {k: drop_condition(v, null[k], dropped, f"{name}[{k!r}]") for k, v in cond.items()}
    return _drop(cond, null, dropped, Dense(len(dropped)), name)


def drop_entries(cond: Condition, null: Condition, dropped: Mapping[str, Tensor]) -> Any:
    """``cond`` with entries replaced by those of ``null``, each for the samples (B,) that ``dropped`` names for it.

    Raises ``ValueError`` for an entry that the condition does not have, and as :func:`drop_condition` does.
    """
    known = cond if isinstance(cond, Mapping) else {}
    for name, rows in dropped.items():
        if name not in known:
            raise ValueError(f"drop names {name!r}; the condition has {list(known)}")
        entry = drop_condition({name: known[name]}, null, rows)
        known = {**known, **entry}
    return known


def _drop(cond: Tensor, null: Any, dropped: Tensor, layout: Layout, name: str) -> Tensor:
    value = torch.as_tensor(null, dtype=cond.dtype, device=cond.device)
    shape = cond.shape[2 if isinstance(layout, Masked) else 1 :]
    if value.ndim and value.shape != shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; the condition needs {tuple(shape)}"
        )
    return torch.where(layout.expand(dropped.to(cond.device), cond), value, cond)
