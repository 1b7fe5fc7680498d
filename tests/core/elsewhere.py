"""A device that is not the CPU, where there is none: tensors that say they lie elsewhere, and mix with no others.

A :class:`Far` tensor computes on the CPU and calls its device ``meta``. An operation that takes far and near tensors
together fails, as CUDA's do (single numbers and indices are excepted); factories obey ``device=``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

__all__ = ["Far", "far", "somewhere_else"]

_MIXES = ("aten::_to_copy", "aten::copy_", "aten::index.Tensor", "aten::index_put_")
"""Operations that may take tensors of two devices."""


class Far(Tensor):
    """A tensor elsewhere."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    near: Tensor

    @staticmethod
    def __new__(cls: type[Far], near: Tensor) -> Far:
        out = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            dtype=near.dtype,
            device=torch.device("meta"),
        )
        assert isinstance(out, Far)
        out.near = near
        return out

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Elsewhere(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    away = any(isinstance(x, Far) for x in tensors)
    full, name = [x for x in tensors if x.ndim], func.name()
    mixed = len({isinstance(x, Far) for x in full}) > 1
    # the CPU may index what lies elsewhere, not the other way round
    if mixed and (
        not name.startswith(_MIXES) or ("index" in name and not isinstance(args[0], Far))
    ):
        raise RuntimeError(f"{name} takes tensors of two devices")
    if kwargs.get("device") is not None:
        away = torch.device(kwargs["device"]).type == "meta"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = pytree.tree_map(lambda x: x.near if isinstance(x, Far) else x, (args, kwargs))
    with _disable_current_modes():
        out = func(*args, **kwargs)
    changed = next((x for x in tensors if isinstance(x, Far) and x.near is out), None)
    if changed is not None:
        return changed
    return pytree.tree_map(lambda x: Far(x) if away and isinstance(x, Tensor) else x, out)


def far(x: Tensor) -> Tensor:
    """``x``, elsewhere."""
    return Far(x.detach().clone())


def _made(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.tensor`` and its kind, which ask no mode for what they make on ``meta``."""

    def wrapped(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        out = make(data, **kwargs)
        away = device is not None and torch.device(device).type == "meta"
        return Far(out) if away and not isinstance(out, Far) else out

    return wrapped


@contextmanager
def somewhere_else() -> Iterator[None]:
    """Where far tensors can be made and used."""
    listed = Tensor.tolist
    with (
        mock.patch.object(torch, "tensor", _made(torch.tensor)),
        mock.patch.object(torch, "as_tensor", _made(torch.as_tensor)),
        mock.patch.object(Tensor, "tolist", lambda x: listed(x.near if isinstance(x, Far) else x)),
        _Elsewhere(),
    ):
        yield
