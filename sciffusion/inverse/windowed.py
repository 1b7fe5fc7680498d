r"""Long sequences from a denoiser of short ones: every element is denoised inside its own window.

In a Markov chain an element is independent of all others given its neighbours, so with noise small beside the data
:math:`E[x_0^i\mid x_t] \approx E[x_0^i\mid x_t^{i-k},\dots,x_t^{i+k}]`. Noise spoils the conditional independence: the
composition is exact only where the window spans the sequence or the noise vanishes. Its error falls geometrically with
k for a chain that forgets. Source: Rozet & Louppe, Score-based Data Assimilation, 2023 (algorithm 2).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense
from sciffusion.state import State, Value, batch_of, layout_of

__all__ = ["Windowed"]


@final
class Windowed(Denoiser):
    """A denoiser of sequences of any length, composed of one for windows of ``window`` elements.

    Every element gets the prediction of the window that has it in the middle; the first and last elements, that of the
    first and last window. All windows of a batch go through ``denoiser`` in one call; the noise must be independent
    between elements.

    Args:
        denoiser: of windows, which must not depend on where in the sequence they lie; its condition bound.
        window: elements in a window, odd.
        dim: the axis of the sequence in every field, counted from the end (negative).

    Raises:
        ValueError: for an even window, a sequence shorter than it, a field that is not dense, or a condition.
    """

    def __init__(self, denoiser: Denoiser, window: int, dim: int) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0 or dim >= 0:
            raise ValueError(
                f"need an odd window and a negative dim, counted from the end; got {window} and {dim}"
            )
        self.denoiser, self.window, self.dim = denoiser, window, dim
        self.process = denoiser.process

    def _cut(self, x: Tensor) -> Tensor:
        """(B, ..., L, ...) -> (B * W, ..., window, ...)."""
        rows = x.unfold(
            self.dim, self.window, 1
        )  # the window's own axis comes last, W stays in place
        rows = rows.movedim(self.dim - 1, 1).flatten(0, 1)
        return rows.movedim(-1, self.dim)

    def _middles(self, x: Tensor, batch: int, dim: int) -> Tensor:
        """Back again: the middle of every window, and both ends of the sequence."""
        rows = x.unflatten(0, (batch, -1)).movedim(dim, -1)  # (B, W, ..., window)
        k = self.window // 2
        middle = rows[..., k]
        first = rows[:, 0, ..., :k].movedim(-1, 1)
        last = rows[:, -1, ..., k + 1 :].movedim(-1, 1)
        return torch.cat([first, middle, last], 1).movedim(1, dim)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if cond is not None:
            raise ValueError("bind the condition to the windows' denoiser, denoiser.given(cond)")
        batch, t = batch_of(x_t), torch.as_tensor(t)
        fields = self.process.fields(x_t)
        for name, v in fields.items():
            if not isinstance(layout_of(x_t, name), Dense) or v.shape[self.dim] < self.window:
                raise ValueError(
                    f"Windowed needs dense fields of at least {self.window} elements along axis {self.dim}; field "
                    f"{name!r} has the shape {tuple(v.shape)}"
                )
        cut = {k: self._cut(v) for k, v in fields.items()}
        count = next(iter(cut.values())).shape[0]
        windows: Value
        if type(x_t) is State:
            windows = State({str(k): v for k, v in cut.items()}, Dense(count), x_t.context)
        else:
            windows = cut[None]
        times = t.repeat_interleave(count // batch) if t.ndim else t
        x0 = self.process.fields(self.denoiser(windows, times).x0)
        out = {}
        for k, v in x0.items():
            # class probabilities carry one axis more
            dim = self.dim - (v.ndim - fields[k].ndim)
            out[k] = self._middles(v, batch, dim)
        return Prediction(self.process.rebuild(x_t, out), x_t, t, self.process)
