"""Several named fields that are noised and denoised together.

A :class:`State` is an immutable mapping from field names to tensors. Each field knows its layout; ``context`` carries
what is never noised (a cell, edges, statics). A single tensor needs no state: wherever a state may go, a plain tensor
may go too, and comes back as a plain tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciffusion.layout import Dense, Layout

__all__ = ["State", "Value", "batch_of", "cat", "layout_of", "take"]


@final
class State(Mapping[str, Tensor]):
    """An immutable mapping of named fields with their layouts.

    ``layout`` is one layout for every field, or a mapping with one per field (those of other names are left out).
    ``context`` is carried along untouched.
    Raises ``ValueError`` when there is no field, a field has no layout, or the layouts disagree about the batch.
    """

    __slots__ = ("_context", "_fields", "_layouts")

    def __init__(
        self,
        fields: Mapping[str, Tensor],
        layout: Layout | Mapping[str, Layout],
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self._fields = dict(fields)
        self._context = MappingProxyType(dict(context or {}))
        if not self._fields:
            raise ValueError("fields is empty; a state holds at least one field")
        if isinstance(layout, Layout):
            layout = dict.fromkeys(self._fields, layout)
        missing = [name for name in self._fields if name not in layout]
        if missing:
            raise ValueError(f"layout names no layout for the fields {missing}")
        self._layouts = {name: layout[name] for name in self._fields}
        batches = {name: self._layouts[name].batch for name in self._fields}
        if len(set(batches.values())) != 1:
            raise ValueError(f"layout disagrees about the number of samples: {batches}")

    def __getitem__(self, name: str) -> Tensor:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    @property
    def batch(self) -> int:
        """Number of samples, B."""
        return next(iter(self._layouts.values())).batch

    @property
    def context(self) -> Mapping[str, Any]:
        """What travels with the fields and is never noised."""
        return self._context

    def layout(self, name: str) -> Layout:
        """The layout of one field."""
        return self._layouts[name]

    def replace(self, fields: Mapping[str, Tensor]) -> State:
        """The same state with the named fields exchanged. Raises ``KeyError`` for a field that it does not have."""
        unknown = [name for name in fields if name not in self._fields]
        if unknown:
            raise KeyError(f"no field {unknown} in this state; it has {list(self._fields)}")
        return State({**self._fields, **fields}, self._layouts, self._context)

    def map(self, fn: Callable[..., Tensor], *others: Mapping[str, Tensor]) -> State:
        """Apply ``fn(field, *fields of the others with the same name)`` to every field."""
        return self.replace({k: fn(x, *(o[k] for o in others)) for k, x in self._fields.items()})

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{k}: {str(x.dtype)[6:]}{list(x.shape)}" for k, x in self._fields.items()
        )
        return f"State(batch={self.batch}, {fields})"


Value = Tensor | State
"""What is noised: a plain tensor (one dense field) or a state.

Samplers ask which it is several times a step. ``type(x) is State`` serves, since the class is final, and costs a tenth
of ``isinstance``, which goes through the machinery of abstract classes.
"""


def batch_of(x: Value) -> int:
    """Number of samples in a tensor (its leading dimension) or a state."""
    return x.batch if type(x) is State else x.shape[0]


def layout_of(x: Value, name: str | None = None) -> Layout:
    """The layout of a tensor (dense), or of a state's named field."""
    return x.layout(name) if type(x) is State and name is not None else Dense(batch_of(x))


def take(x: Value, index: Tensor) -> Value:
    """The samples of ``x`` that ``index`` (M,) names, in its order and as often as it does.

    Raises ``ValueError`` for a state with a context, of which nobody knows what belongs to which sample.
    """
    if type(x) is not State:
        return Dense(batch_of(x)).take(x, index)[0]
    _without_context(x)
    parts = {k: x.layout(k).take(v, index) for k, v in x.items()}
    return State({k: v for k, (v, _) in parts.items()}, {k: l for k, (_, l) in parts.items()})


def cat(values: Sequence[Value]) -> Value:
    """Batches one after another.

    Raises ``ValueError`` for no batch, for tensors among states, where fields or kinds of layout differ, and for a
    state with a context.
    """
    states = [x for x in values if type(x) is State]
    tensors = [x for x in values if type(x) is not State]
    if bool(states) == bool(tensors):
        raise ValueError(
            f"values holds {len(states)} states and {len(tensors)} tensors; give some, of one kind"
        )
    if not states:
        return torch.cat(tensors)
    kinds = {k: type(states[0].layout(k)) for k in states[0]}
    for x in states:
        _without_context(x)
        if {k: type(x.layout(k)) for k in x} != kinds:
            raise ValueError(
                f"values holds {x}, whose fields or layouts are of other kinds than those of {states[0]}"
            )
    parts = {
        k: states[0].layout(k).cat([x[k] for x in states], [x.layout(k) for x in states])
        for k in states[0]
    }
    return State({k: v for k, (v, _) in parts.items()}, {k: l for k, (_, l) in parts.items()})


def _without_context(x: State) -> None:
    if x.context:
        raise ValueError(
            f"a state with the context {list(x.context)} cannot be rearranged: it may name rows of the batch"
        )


def _flatten(state: State) -> tuple[list[Any], Any]:
    return list(state.values()), (list(state), dict(state._layouts), dict(state.context))


def _unflatten(values: Any, aux: Any) -> State:
    names, layouts, context = aux
    state = object.__new__(State)  # transforms pass placeholders through: no checks here
    state._fields, state._layouts = dict(zip(names, values, strict=True)), layouts
    state._context = MappingProxyType(context)
    return state


pytree.register_pytree_node(State, _flatten, _unflatten)
