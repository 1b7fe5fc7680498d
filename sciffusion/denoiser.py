r"""Denoisers: from a noised value to the expectation of the clean one.

A denoiser estimates :math:`\hat x_0 = E[x_0 \mid x_t]` (for classes: :math:`p(x_0 \mid x_t)`), from which every other
target follows. Whatever changes a prediction is a denoiser that wraps a denoiser. A condition is bound first, by
:meth:`Denoiser.given`; samplers then know nothing of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sciffusion.process import FieldProcess, Process, Target
from sciffusion.process.base import LOG_SNR_RANGE, check_time, levels_at
from sciffusion.schedule import Schedule
from sciffusion.state import State, Value, batch_of, layout_of

__all__ = [
    "Condition",
    "Conditioned",
    "Denoiser",
    "Prediction",
    "Preconditioned",
    "check_condition",
    "from_flow",
    "from_score",
]

Condition = Any
"""What a network is conditioned on: a tensor (B, ...), a mapping of such tensors, or None."""


@final
@dataclass(frozen=True)
class Prediction:
    """What a denoiser says about a noised value: ``x0``, like ``x_t`` (class probabilities for a jump field)."""

    x0: Value
    x_t: Value
    t: Tensor
    process: Process

    def to(self, target: Target) -> Value:
        """The same prediction as x0, eps, v, flow or score; jump fields keep their probabilities."""
        fields = self.process.fields(self.x_t)
        out: dict[str | None, Tensor] = {}
        for name, x0 in self.process.fields(self.x0).items():
            process, layout = self.process.field(name), layout_of(self.x_t, name)
            out[name] = process.express(x0, fields[name], self.t, layout, target)
        return self.process.rebuild(self.x0, out)


def _prediction(values: list[Any], process: Any) -> Prediction:
    return Prediction(values[0], values[1], values[2], process)


pytree.register_pytree_node(
    Prediction,
    lambda p: ([p.x0, p.x_t, p.t], p.process),
    lambda values, process: _prediction(list(values), process),
)


class Denoiser(nn.Module, ABC):
    """Anything that predicts x0. ``process`` is the forward process that it undoes."""

    process: Process

    @abstractmethod
    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        """Predict x0.

        Args:
            x_t: the noised value, a tensor (B, ...) or a state.
            t: time, (), (B,) or per element.
            cond: the condition; None unless the network wants one.
            previous: the prediction of x0 from the step before, for networks that condition on their own output.
        """

    def given(self, cond: Condition) -> Denoiser:
        """This denoiser with its condition bound."""
        return Conditioned(self, cond)


@final
class Conditioned(Denoiser):
    """A denoiser with its condition bound. Raises ``ValueError`` if it is given another one."""

    def __init__(self, denoiser: Denoiser, cond: Condition) -> None:
        super().__init__()
        self.denoiser, self.cond, self.process = denoiser, cond, denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if cond is not None:
            raise ValueError(
                "cond is bound already; call the inner denoiser to use another condition"
            )
        return self.denoiser(x_t, t, self.cond, previous)


def check_condition(cond: Condition, x: Value) -> None:
    """Raise ``ValueError`` unless every tensor of the condition has a row for each sample or point, or one for all.

    A state in a condition must hold as many samples, or one.
    """
    if cond is None:
        return
    rows = {1, batch_of(x), *(v.shape[0] for v in (x.values() if type(x) is State else (x,)))}
    for leaf in pytree.tree_leaves(cond, is_leaf=lambda c: type(c) is State):
        if type(leaf) is State and leaf.batch not in (1, batch_of(x)):
            raise ValueError(
                f"cond holds a state of {leaf.batch} samples for a batch of {batch_of(x)}"
            )
        if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] not in rows:
            raise ValueError(
                f"cond holds a tensor of shape {tuple(leaf.shape)} for a batch of {batch_of(x)}: its first dimension "
                "must be the samples of the batch (or 1)"
            )


def _log_snr(schedule: Schedule, t: Tensor, batch: int, like: Tensor) -> Tensor:
    """The clamped log-SNR, (B,) or per element, at least in float32, where ``like`` is."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    if t.ndim == 0 and schedule.frozen:
        return torch.full(
            (batch,), levels_at(schedule, float(t))[2], dtype=dtype, device=like.device
        )
    check_time(t)
    level = schedule.log_snr(t).clamp(-LOG_SNR_RANGE, LOG_SNR_RANGE)
    return level.expand(t.shape or (batch,)).to(like.device, dtype)


@final
class Preconditioned(Denoiser):
    r"""A network made into a denoiser.

    For a Gaussian field the network sees :math:`c_{in} x_t` with
    :math:`c_{in} = (\alpha^2 s^2 + \sigma^2 n^2)^{-1/2}` (s = ``sigma_data``, n = the ``noise_scale`` of the space),
    hence unit variance at every time, and its output F is read as ``target``:

    * ``"v"``: :math:`\hat x_0 = c_{skip}x_t + c_{out}F`, :math:`c_{skip} = \alpha s^2 c_{in}^2`,
      :math:`c_{out} = -\sigma n s\,c_{in}`. For s = n = 1 on a variance preserving schedule F is exactly v; for any
      schedule F is minus EDM's (Karras et al., 2022, table 1), so its optimal output has unit variance at all times;
    * ``"x0"``, ``"eps"``, ``"flow"``, ``"score"``: F is that target itself.

    Beside the field the network gets the log-SNR, clamped to +-20 and at least in float32, which makes the denoiser's
    law independent of the schedule: it may be exchanged after training (:meth:`under`). For a jump field the network
    sees the one-hot classes and returns logits. For a plain tensor the call is ``net(x, log_snr, cond, previous)`` with
    tensors; for a state the same with a state, a mapping of log-SNRs, and a mapping of outputs in return. A state's
    fields may have times of their own, t being a mapping by field: one that is at time 0 is known, one at time 1 is
    not there (:class:`~sciffusion.inverse.KnownFields`); what is predicted is then read as x0 alone.

    ``sigma_data`` is measured on data: a number, a tensor that broadcasts to the field, or a mapping by field; Gaussian
    fields alone need one. Samplers hand every denoiser its prediction of the step before; the
    network gets it only with ``self_condition``, for one that never learnt to read it must not be given it.

    Raises ``ValueError`` unless every ``sigma_data`` is positive.
    """

    def __init__(
        self,
        net: nn.Module,
        process: Process,
        *,
        target: Target = "v",
        sigma_data: float | Tensor | Mapping[str, float | Tensor],
        self_condition: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.process, self.target, self.sigma_data = net, process, target, sigma_data
        self.self_condition = self_condition
        for s in sigma_data.values() if isinstance(sigma_data, Mapping) else (sigma_data,):
            if not bool((torch.as_tensor(s) > 0).all()):
                raise ValueError(f"sigma_data must be positive, got {s}; measure it on the data")

    def under(self, process: Process) -> Preconditioned:
        """The same network under another process (another schedule); shares the weights."""
        return Preconditioned(
            self.net,
            process,
            target=self.target,
            sigma_data=self.sigma_data,
            self_condition=self.self_condition,
        )

    def _sigma_data(self, name: str | None) -> float | Tensor:
        s = self.sigma_data
        if not isinstance(s, Mapping):
            return s
        if name is None or name not in s:
            raise ValueError(
                f"sigma_data names no scale for the field {name!r}; measure it on the data"
            )
        return s[name]

    def forward(
        self,
        x_t: Value,
        t: Tensor | Mapping[str, Tensor],
        cond: Condition = None,
        previous: Value | None = None,
    ) -> Prediction:
        self.process.check_kind(x_t)
        check_condition(cond, x_t)
        times = {
            k: torch.as_tensor(t[str(k)] if isinstance(t, Mapping) else t)
            for k in self.process.fields(x_t)
        }
        inputs: dict[str | None, Tensor] = {}
        levels: dict[str | None, Tensor] = {}
        shown: dict[str | None, Any] = {}
        for name, x in self.process.fields(x_t).items():
            process, layout = self.process.field(name), layout_of(x_t, name)
            scale = self._sigma_data(name) if process.scaled else 1.0
            inputs[name], shown[name] = process.show(x, times[name], layout, scale)
            levels[name] = _log_snr(process.clock, times[name], layout.batch, inputs[name])
        seen = previous if self.self_condition else None
        out = self._call(x_t, inputs, levels, cond, seen)
        x0 = {}
        for name, x in self.process.fields(x_t).items():
            process, layout = self.process.field(name), layout_of(x_t, name)
            x0[name] = process.read(out[name], x, times[name], layout, self.target, shown[name])
        return Prediction(
            self.process.rebuild(x_t, x0), x_t, next(iter(times.values())), self.process
        )

    def _call(
        self,
        like: Value,
        inputs: Mapping[str | None, Tensor],
        levels: Mapping[str | None, Tensor],
        cond: Condition,
        previous: Value | None,
    ) -> Mapping[str | None, Tensor]:
        value = self.process.rebuild(like, inputs)
        if isinstance(value, Tensor):
            return {None: self.net(value, levels[None], cond, previous)}
        return dict(self.net(value, levels, cond, previous))


@final
class _Function(Denoiser):
    def __init__(
        self, fn: Callable[[Tensor, Tensor], Tensor], process: FieldProcess, src: Target
    ) -> None:
        super().__init__()
        self.fn, self.src = fn, src
        self.process = self.field = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if cond is not None or not isinstance(x_t, Tensor):
            raise ValueError("a wrapped function takes one plain tensor and no condition")
        t = torch.as_tensor(t, device=x_t.device)
        x0 = self.field.read(self.fn(x_t, t), x_t, t, layout_of(x_t), self.src)
        return Prediction(x0, x_t, t, self.process)


def from_score(fn: Callable[[Tensor, Tensor], Tensor], process: FieldProcess) -> Denoiser:
    r"""A denoiser from a score :math:`\nabla\log p_t(x)`, ``fn(x_t, t)``, by Tweedie's formula."""
    return _Function(fn, process, "score")


def from_flow(fn: Callable[[Tensor, Tensor], Tensor], process: FieldProcess) -> Denoiser:
    r"""A denoiser from the velocity :math:`dx_t/dt` of the probability flow, ``fn(x_t, t)``; t = 1 is noise."""
    return _Function(fn, process, "flow")
