"""A trained model in one line, as an interpreter or a notebook shows it: not its weights, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

__all__ = ["described"]


def described(model: object, network: nn.Module, *facts: str, asked: Sequence[str] = ()) -> str:
    """The type of a model, its facts, how many parameters its network has, and what it may be asked by.

    >>> class Model: ...
    >>> described(Model(), nn.Linear(99, 10), "28 x 28", asked=["label"])
    'Model(28 x 28, 1,000 parameters, asked by label)'
    """
    count = sum(p.numel() for p in network.parameters())
    by = [f"asked by {', '.join(asked)}"] if asked else []
    return f"{type(model).__name__}({', '.join([*facts, f'{count:,} parameters', *by])})"
