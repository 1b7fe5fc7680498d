r"""What is observed of the data: :math:`y = A(x_0) + n`.

An operator maps a batch of values to a batch of observations, sample by sample. A tensor gives a tensor. A state gives
a state: the observed fields, each with the layout that its observations need (a mask keeps the field's own), so that
residuals and dot products are taken sample by sample in every layout. Only the forward map is written down; its
derivative and the transpose of that come from automatic differentiation (:class:`Linearised`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Dense, Layout
from sciffusion.state import State, Value, layout_of

__all__ = ["Each", "FieldOperator", "Function", "Linearised", "Mask", "Operator"]


class Operator(ABC):
    """A map from data to observations. ``linear``: whether A(x + y) = A(x) + A(y)."""

    linear: bool = True

    @abstractmethod
    def __call__(self, x: Value) -> Value:
        """Observe a batch."""

    def valid(self, y: Value) -> Value:
        """``y`` with the entries that observe nothing set to zero, whatever they hold, NaN included."""
        return y


class Linearised:
    r"""An operator at a point x: its value there, :math:`u \mapsto Ju` and :math:`v \mapsto J^Tv`.

    ``x`` must belong to a graph (or require gradients itself). ``differentiable`` keeps graphs of the results.
    """

    def __init__(self, operator: Operator, x: Value, *, differentiable: bool = False) -> None:
        self._operator, self._x, self._keep = operator, x, differentiable
        with torch.enable_grad():
            self.value = operator(x)

    def transpose(self, v: Value) -> Value:
        """:math:`J^Tv`, like x; zero where nothing is observed."""
        return pull(self.value, self._x, v, differentiable=self._keep)

    def forward(self, u: Value) -> Value:
        """:math:`Ju`, like y."""
        if self._operator.linear:
            return self._operator(u)
        # J u is the derivative of v -> <J^T v, u>, which is linear in v
        with torch.enable_grad():
            v = [torch.zeros_like(y).requires_grad_() for y in tensors(self.value)]
            back = pull(self.value, self._x, like(self.value, v), differentiable=True)
        linked = [(g, d) for g, d in zip(tensors(back), tensors(u), strict=True) if g.requires_grad]
        if not linked:
            return like(self.value, [torch.zeros_like(y) for y in v])
        grads = torch.autograd.grad(
            [g for g, _ in linked],
            v,
            [d for _, d in linked],
            create_graph=self._keep,
            allow_unused=True,
            materialize_grads=True,
        )
        return like(self.value, grads)


def tensors(x: Value) -> list[Tensor]:
    """The fields of a value in order."""
    return list(x.values()) if type(x) is State else [x]


def like(x: Value, fields: Sequence[Tensor]) -> Value:
    """A value like ``x`` with other fields, in order."""
    return x.replace(dict(zip(x, fields, strict=True))) if type(x) is State else fields[0]


def pull(out: Value, x: Value, v: Value, *, differentiable: bool) -> Value:
    r""":math:`(\partial\,\mathrm{out}/\partial x)^T v`, like ``x``; zero for fields without a gradient."""
    into = [d for d in tensors(x) if d.requires_grad]
    paths = [(y, d) for y, d in zip(tensors(out), tensors(v), strict=True) if y.requires_grad]
    grads: list[Tensor] = []
    if into and paths:
        grads = list(
            torch.autograd.grad(
                [y for y, _ in paths],
                into,
                [d for _, d in paths],
                retain_graph=True,
                create_graph=differentiable,
                allow_unused=True,
                materialize_grads=True,
            )
        )
    found = iter(grads or [torch.zeros_like(d) for d in into])
    return like(x, [next(found) if d.requires_grad else torch.zeros_like(d) for d in tensors(x)])


class FieldOperator(Operator):
    """An operator on a plain tensor, or on one named field of a state."""

    field: str | None

    @abstractmethod
    def apply(self, x: Tensor, layout: Layout) -> Tensor:
        """Observe one field."""

    def observed(self, y: Tensor, layout: Layout) -> Layout:
        """The layout of the observations ``y`` of a field in ``layout``."""
        return layout

    def __call__(self, x: Value) -> Value:
        if type(x) is not State:
            assert isinstance(x, Tensor)
            return self.apply(x, layout_of(x))
        if self.field is None or self.field not in x:
            raise ValueError(f"field must name one of {list(x)} for a state, got {self.field!r}")
        y = self.apply(x[self.field], x.layout(self.field))
        return State({self.field: y}, self.observed(y, x.layout(self.field)))


@final
@dataclass(frozen=True, eq=False)
class Mask(FieldOperator):
    """Some entries as they are: inpainting, sparse stations, fixed atoms.

    ``mask`` is boolean with as many dimensions as the field, of its size or 1 in each: True where an entry is observed.
    Observations have the shape of the field, zero elsewhere; what ``y`` holds elsewhere is ignored, be it NaN.
    Raises ``ValueError`` for a mask of another kind.
    """

    mask: Tensor
    field: str | None = None

    def __post_init__(self) -> None:
        check_boolean(self.mask)

    def apply(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.clean(x.masked_fill(~fitted(self.mask, x), 0))

    def valid(self, y: Value) -> Value:
        return self(y)


@final
@dataclass(frozen=True)
class Each(Operator):
    """Observations of several fields of a state, by field: ``Each({"pos": Mask(m, "pos"), ...})``.

    Raises ``ValueError`` unless every operator observes the field under whose name it stands.
    """

    operators: Mapping[str, FieldOperator]

    def __post_init__(self) -> None:
        wrong = [k for k, o in self.operators.items() if o.field != k]
        if wrong or not self.operators:
            raise ValueError(
                f"operators must hold field operators under their fields' names; wrong: {wrong}"
            )

    def _gather(self, parts: Mapping[str, Value]) -> State:
        states = {k: v for k, v in parts.items() if isinstance(v, State)}
        return State(
            {k: v[k] for k, v in states.items()}, {k: v.layout(k) for k, v in states.items()}
        )

    def __call__(self, x: Value) -> Value:
        return self._gather({k: operator(x) for k, operator in self.operators.items()})

    def valid(self, y: Value) -> Value:
        return self._gather({k: operator.valid(y) for k, operator in self.operators.items()})


@final
@dataclass(frozen=True)
class Function(Operator):
    """Any differentiable function of a batch, sample by sample; non-linear ones are linearised where they are used.

    ``fn`` maps a value to a value with the same batch: a tensor (B, ...) or a state. Class probabilities of a state's
    jump fields may be read, as constants. ``linear=True`` promises linearity (no constant term), which saves work.
    """

    fn: Callable[[Value], Value]
    linear: bool = False

    def __call__(self, x: Value) -> Value:
        return self.fn(x)


def need_dense(layout: Layout, what: str) -> None:
    """Raise ``ValueError`` for a ragged layout."""
    if not isinstance(layout, Dense):
        raise ValueError(
            f"{what} acts on regular grids and needs a dense field, got {type(layout).__name__}; wrap your own map in "
            "Function"
        )


def check_boolean(mask: Tensor) -> None:
    """Raise ``ValueError`` for a mask of another type."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True where an entry is known; got {mask.dtype}")


def fitted(mask: Tensor, x: Tensor) -> Tensor:
    """``mask`` on the device of the field ``x``. Raises ``ValueError`` unless each of its sizes is 1 or the field's."""
    sizes = zip(mask.shape, x.shape, strict=False)
    if mask.ndim != x.ndim or any(m not in (1, n) for m, n in sizes):
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not fit a field of shape {tuple(x.shape)}; give one of as many "
            "dimensions, each of the field's size or 1"
        )
    return mask.to(x.device)
