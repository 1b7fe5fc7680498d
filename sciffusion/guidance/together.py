"""Several conditions in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.state import Value, batch_of, cat, take

__all__ = ["together"]


def together(
    denoiser: Denoiser,
    x_t: Value,
    t: Tensor,
    conds: Sequence[Condition],
    previous: Value | None = None,
) -> list[Prediction]:
    """One prediction per condition from a single call with the batch repeated.

    Raises:
        ValueError: conditions that are not tensors or equal nests of tensors, or a state with a context.
    """
    n, batch = len(conds), batch_of(x_t)
    wide = cat([x_t] * n)
    out = denoiser(
        wide,
        t if t.ndim == 0 else torch.cat([t] * n),
        _stack(conds, batch),
        None if previous is None else cat([previous] * n),
    )
    process, predictions = denoiser.process, []
    for i in range(n):
        mine = torch.arange(i * batch, (i + 1) * batch)
        x0 = process.rebuild(x_t, process.fields(take(out.x0, mine)))
        at = x_t
        if out.x_t is not wide:
            at = process.rebuild(x_t, process.fields(take(out.x_t, mine)))
        predictions.append(Prediction(x0, at, t, process))
    return predictions


def _stack(conds: Sequence[Condition], batch: int) -> Condition:
    """The conditions one after another, every one with a row per sample."""
    nests = [pytree.tree_flatten(c) for c in conds]
    if any(spec != nests[0][1] for _, spec in nests):
        raise ValueError(
            "conditions that go into one call must be tensors or equal nests of tensors, the null condition too; "
            "use batched=False"
        )
    stacked: list[Tensor | None] = []
    for leaves in zip(*(leaves for leaves, _ in nests), strict=True):
        if all(leaf is None for leaf in leaves):
            stacked.append(None)
            continue
        if not all(isinstance(leaf, Tensor) for leaf in leaves):
            kinds = sorted({type(leaf).__name__ for leaf in leaves})
            raise ValueError(
                f"conditions that go into one call must be tensors, got {kinds}; use batched=False"
            )
        rows = torch.broadcast_tensors(*(leaf.to(leaves[0].device) for leaf in leaves))
        if rows[0].ndim == 0 or rows[0].shape[0] == 1:
            rows = tuple(r.expand(batch, *r.shape[1:]) for r in rows)
        stacked.append(torch.cat(rows))
    return pytree.tree_unflatten(stacked, nests[0][1])
