r"""Exponential moving average of a model's weights, kept by parameter name.

After update n, with decay :math:`\beta_n` from a profile,

.. math:: \bar\theta_n = \beta_n \bar\theta_{n-1} + (1 - \beta_n) \theta_n, \qquad \bar\theta_0 =
\theta_0.

Parameters are averaged; buffers (running statistics, frozen tables) are copied, since their average
belongs to no model. Averages are kept by name, so another order of registration changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor, nn


class Profile(ABC):
    """How quickly the average forgets: a decay for each update, counted from 1."""

    @abstractmethod
    def decay(self, update: int) -> float:
        """Return the weight of the old average at this update, in [0, 1)."""


@final
@dataclass(frozen=True)
class Constant(Profile):
    """The same decay at every update; remembers about 1 / (1 - value) updates."""

    kind: Literal["constant"] = "constant"
    value: float = 0.999

    def __post_init__(self) -> None:
        if not 0.0 <= self.value < 1.0:
            raise ValueError(f"value must lie in [0, 1), got {self.value}")

    def decay(self, update: int) -> float:
        """Return ``value``."""
        return self.value


@final
@dataclass(frozen=True)
class WarmUp(Profile):
    """``min(value, (1 + n) / (10 + n))``: early weights are forgotten quickly."""

    kind: Literal["warm-up"] = "warm-up"
    value: float = 0.9999

    def __post_init__(self) -> None:
        if not 0.0 <= self.value < 1.0:
            raise ValueError(f"value must lie in [0, 1), got {self.value}")

    def decay(self, update: int) -> float:
        """Return the smaller of ``value`` and ``(1 + n) / (10 + n)``."""
        return min(self.value, (1 + update) / (10 + update))


@final
@dataclass(frozen=True)
class Power(Profile):
    r"""Power-law average whose width is a fixed fraction of the training so far.

    :math:`\beta_n = (1 - 1/n)^{\gamma + 1}`, so that :math:`\bar\theta_n \propto \sum_k k^\gamma
    \theta_k` for large n; ``sigma_rel`` is the standard deviation of that weight, divided by n, and
    :math:`\gamma` follows from :math:`\sigma_{rel}^{-2} = (\gamma+2)^2 (\gamma+3) / (\gamma+1)`.
    The initial weights drop out at the first update. (Karras et al. 2024, arXiv 2312.02696.) Stored
    averages of this kind can be combined to others: :mod:`sciffusion.posthoc`.
    """

    kind: Literal["power"] = "power"
    sigma_rel: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_rel < 12.0**-0.5:
            raise ValueError(f"sigma_rel must lie in (0, 0.288), got {self.sigma_rel}")

    @property
    def gamma(self) -> float:
        """Exponent of the power law."""
        t = self.sigma_rel**-2
        return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())

    def decay(self, update: int) -> float:
        """Return ``(1 - 1/n) ** (gamma + 1)``."""
        return float((1.0 - 1.0 / update) ** (self.gamma + 1.0))


@final
class EMA:
    """The averaged weights of one model.

    >>> model = nn.Linear(2, 1)
    >>> ema = EMA(model, Constant(value=0.9))
    >>> ema.update(model)            # after each optimizer step
    >>> with ema.swapped(model):     # evaluate with the averaged weights
    ...     _ = model(torch.zeros(1, 2))

    Averages of half-precision parameters are kept in float32. The parameters may be sharded tensors
    (``DTensor``); each process then averages its own shard.
    """

    def __init__(self, model: nn.Module, profile: Profile) -> None:
        self.profile = profile
        self.updates = 0
        self._swapped = False
        self._average = {n: _wide(p.detach()).clone() for n, p in model.named_parameters()}
        self._buffers = {n: b.detach().clone() for n, b in _buffers(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step of the average towards the model's present weights.

        Raises:
            ValueError: if the model has other parameter names than at the start.
            RuntimeError: inside :meth:`swapped`, where the average would be averaged with itself.
        """
        if self._swapped:
            raise RuntimeError("EMA.update was called inside swapped(): leave that block first")
        parameters = dict(model.named_parameters())
        _same_names(parameters, self._average)
        self.updates += 1
        averages = [_local(a) for a in self._average.values()]
        targets = [_local(parameters[n].detach()).to(a.dtype) for n, a in self._average.items()]
        if averages:
            torch._foreach_lerp_(averages, targets, 1.0 - self.profile.decay(self.updates))
        for name, buffer in _buffers(model).items():
            self._buffers[name].copy_(buffer)

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Run a block with the averaged weights in ``model``, restored even after an exception."""
        targets = dict(model.named_parameters()) | _buffers(model)
        _same_names(targets, self.state_dict())
        kept = {name: _local(t.detach()).clone() for name, t in targets.items()}
        self._swapped = True
        try:
            self.copy_to(model)
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    _local(targets[name].detach()).copy_(value)
            self._swapped = False

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the averaged weights and the buffers into ``model``, on whatever device it is."""
        targets = dict(model.named_parameters()) | _buffers(model)
        _same_names(targets, self.state_dict())
        for name, value in self.state_dict().items():
            _local(targets[name].detach()).copy_(_local(value))

    @property
    def copied(self) -> frozenset[str]:
        """The names of the buffers, which are copies of the model's own and no averages."""
        return frozenset(self._buffers)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged parameters and the buffers by the model's own names (not copied)."""
        return self._average | self._buffers

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Restore the values of :meth:`state_dict`, from any device, and the number of updates."""
        own = self.state_dict()
        _same_names(tensors, own)
        for name, value in tensors.items():
            if value.shape != own[name].shape:
                raise ValueError(
                    f"EMA of {name} has shape {tuple(value.shape)}, "
                    f"the model needs {tuple(own[name].shape)}"
                )
            _local(own[name]).copy_(_local(value))
        self.updates = updates


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that belong to the model's state (the persistent ones)."""
    names = model.state_dict(keep_vars=True).keys()
    return {n: b for n, b in model.named_buffers() if n in names}


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor, or the tensor itself."""
    local: Tensor = getattr(tensor, "_local_tensor", tensor)
    return local


def _same_names(given: Mapping[str, object], expected: Mapping[str, object]) -> None:
    if given.keys() != expected.keys():
        missing, extra = (
            sorted(expected.keys() - given.keys()),
            sorted(given.keys() - expected.keys()),
        )
        raise ValueError(
            f"the EMA belongs to another model: missing {missing[:5]}, unknown {extra[:5]}"
        )
