r"""Denoisers: from a noised value to the expectation of the clean one.

A denoiser estimates :math:`\hat x_0 = E[x_0 \mid x_t]` (for classes: :math:`p(x_0 \mid x_t)`), from which every other
target follows. Whatever changes a prediction is a denoiser that wraps a denoiser. A condition is bound first, by
:meth:`Denoiser.given`; samplers then know nothing of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sciffusion.layout import Layout
from sciffusion.process import Gaussian, Jump, Process, Target
from sciffusion.process.base import check_time
from sciffusion.schedule import Schedule
from sciffusion.state import State, Value, batch_of, layout_of

__all__ = [
    "Denoiser",
    "Given",
    "Prediction",
    "Preconditioned",
    "check_condition",
    "from_flow",
    "from_score",
]

LOG_SNR_RANGE = 20.0
"""Networks see the log-SNR clamped to plus or minus this."""

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
            process = self.process.field(name)
            if isinstance(process, Gaussian):
                layout = layout_of(self.x_t, name)
                x0 = process.convert(x0, fields[name], self.t, layout, src="x0", dst=target)
            out[name] = x0
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
        return Given(self, cond)


@final
class Given(Denoiser):
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
    """Raise ``ValueError`` if a tensor of the condition has rows that are neither samples, nor points, nor one for all."""
    if cond is None:
        return
    rows = {1, batch_of(x), *(v.shape[0] for v in (x.values() if type(x) is State else (x,)))}
    for leaf in pytree.tree_leaves(cond):
        if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] not in rows:
            raise ValueError(
                f"cond holds a tensor of shape {tuple(leaf.shape)} for a batch of {batch_of(x)}: its first dimension "
                "must be the samples of the batch (or 1)"
            )


Scale = float | Tensor


@lru_cache(maxsize=4096)
def _at(schedule: Schedule, t: float) -> tuple[float, float, float]:
    """alpha, sigma and clamped log-SNR as numbers: samplers ask for the same few times over and over."""
    check_time(torch.tensor(t))
    alpha, sigma = schedule(t)
    log_snr = schedule.log_snr(t).clamp(-LOG_SNR_RANGE, LOG_SNR_RANGE)
    return float(alpha), float(sigma), float(log_snr)


def _log_snr(schedule: Schedule, t: Tensor, batch: int, like: Tensor) -> Tensor:
    """The clamped log-SNR, (B,) or per element, at least in float32, where ``like`` is."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    if t.ndim == 0 and schedule.frozen:
        return torch.full((batch,), _at(schedule, float(t))[2], dtype=dtype, device=like.device)
    check_time(t)
    level = schedule.log_snr(t).clamp(-LOG_SNR_RANGE, LOG_SNR_RANGE)
    return level.expand(t.shape or (batch,)).to(like.device, dtype)


def _cast(c: Scale, x: Tensor) -> Scale:
    return c.to(x.dtype) if isinstance(c, Tensor) else c


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
    tensors; for a state the same with a state, a mapping of log-SNRs, and a mapping of outputs in return.

    ``sigma_data`` is measured on data: a number, a tensor that broadcasts to the field, or a mapping by field; fields
    that it does not name must be jump fields. Samplers hand every denoiser its prediction of the step before; the
    network gets it only with ``self_condition``, for one that never learnt to read it must not be given it.
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
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.process.check_kind(x_t)
        check_condition(cond, x_t)
        t = torch.as_tensor(t)
        inputs: dict[str | None, Tensor] = {}
        levels: dict[str | None, Tensor] = {}
        scales: dict[str | None, tuple[Scale, Scale, Scale]] = {}
        for name, x in self.process.fields(x_t).items():
            process, layout = self.process.field(name), layout_of(x_t, name)
            if isinstance(process, Gaussian):
                scales[name] = self._scales(name, process, t, x, layout)
                inputs[name] = x * scales[name][0]
            else:
                assert isinstance(process, Jump)
                inputs[name] = layout.clean(process.one_hot(x, torch.get_default_dtype()))
            levels[name] = _log_snr(process.clock, t, layout.batch, inputs[name])
        seen = previous if self.self_condition else None
        out = self._call(x_t, inputs, levels, cond, seen)
        return Prediction(self._read(out, x_t, t, scales), x_t, t, self.process)

    def _scales(
        self, name: str | None, process: Gaussian, t: Tensor, x: Tensor, layout: Layout
    ) -> tuple[Scale, Scale, Scale]:
        """c_in, c_skip, c_out: numbers where nothing varies over the field, else broadcastable to it."""
        s, n = self._sigma_data(name), process.space.noise_scale(x, layout)
        alpha: Scale
        sigma: Scale
        plain = not isinstance(s, Tensor) and not isinstance(n, Tensor)
        if t.ndim == 0 and plain and process.schedule.frozen:
            alpha, sigma, _ = _at(process.schedule, float(t))
        else:
            alpha, sigma = (layout.expand(c.to(x.device), x) for c in process.schedule(t))
            s, n = (torch.as_tensor(c, dtype=torch.float64, device=x.device) for c in (s, n))
        c_in = (alpha**2 * s**2 + sigma**2 * n**2) ** -0.5
        c_skip, c_out = alpha * s**2 * c_in**2, -sigma * n * s * c_in
        return _cast(c_in, x), _cast(c_skip, x), _cast(c_out, x)

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

    def _read(
        self,
        out: Mapping[str | None, Tensor],
        x_t: Value,
        t: Tensor,
        scales: Mapping[str | None, tuple[Scale, Scale, Scale]],
    ) -> Value:
        x0: dict[str | None, Tensor] = {}
        for name, x in self.process.fields(x_t).items():
            process, layout, raw = self.process.field(name), layout_of(x_t, name), out[name]
            if isinstance(process, Jump):
                x0[name] = raw.to(torch.get_default_dtype()).softmax(-1)
                continue
            assert isinstance(process, Gaussian)
            raw = raw.to(x.dtype)
            if self.target == "v":
                _, c_skip, c_out = scales[name]
                x0[name] = process.space.project(c_skip * x + c_out * raw, layout)
            else:
                value = process.convert(raw, x, t, layout, src=self.target, dst="x0")
                x0[name] = process.space.project(value, layout)
        return self.process.rebuild(x_t, x0)


@final
class _Function(Denoiser):
    def __init__(
        self, fn: Callable[[Tensor, Tensor], Tensor], process: Gaussian, src: Target
    ) -> None:
        super().__init__()
        self.fn, self.process, self.src = fn, process, src

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if cond is not None or not isinstance(x_t, Tensor):
            raise ValueError("a wrapped function takes one plain tensor and no condition")
        process, layout = self.process, layout_of(x_t)
        assert isinstance(process, Gaussian)
        value = self.fn(x_t, torch.as_tensor(t, device=x_t.device))
        return Prediction(
            process.convert(value, x_t, t, layout, src=self.src, dst="x0"), x_t, t, process
        )


def from_score(fn: Callable[[Tensor, Tensor], Tensor], process: Gaussian) -> Denoiser:
    r"""A denoiser from a score :math:`\nabla\log p_t(x)`, ``fn(x_t, t)``, by Tweedie's formula."""
    return _Function(fn, process, "score")


def from_flow(fn: Callable[[Tensor, Tensor], Tensor], process: Gaussian) -> Denoiser:
    r"""A denoiser from the velocity :math:`dx_t/dt` of the probability flow, ``fn(x_t, t)``; t = 1 is noise."""
    return _Function(fn, process, "flow")
