r"""First-hitting sampling of masked fields: from one event to the next instead of along a grid.

Every mask is lifted at a time of its own: it is still there at s < t with the probability
:math:`(1-\alpha_s)/(1-\alpha_t)`, whatever the data. So the times can be drawn before the run,
:math:`1-\alpha_\tau = (1-\alpha_t)\,u` with u uniform, and the denoiser is called at each of them, where one class is
drawn from :math:`p(x_0\mid x_\tau)`. There is no error of a step: with the exact denoiser the law of the samples is
exact after as many calls as there are masks, and no call finds nothing to reveal.

Source: Zheng et al., Masked diffusion models are secretly time-agnostic masked models, 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.noise import Noise
from sciffusion.process import Jump
from sciffusion.process.jump_steps import owners, pick, ranks
from sciffusion.samplers.sampler import Solution
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["FirstHitting"]


@final
@dataclass(frozen=True)
class FirstHitting:
    """An event-driven sampler for masked jump fields, one tensor or all fields of a state.

    Every sample follows its own times and the batch is done when the sample with the most masks is. ``together`` lifts
    that many neighbouring masks of a sample in one call, each by its own probabilities: fewer calls, exact no longer.
    ``start`` is the time of the value that it is given. Revealed elements never change, so a value with some elements
    known and the others masked is completed. Raises ``ValueError`` unless ``together`` is at least 1 and ``start`` in
    (0, 1], and when called for fields without masks.
    """

    together: int = 1
    start: float = 1.0

    def __post_init__(self) -> None:
        if self.together < 1:
            raise ValueError(f"together must be at least 1, got {self.together}")
        if not 0 < self.start <= 1:
            raise ValueError(f"start must lie in (0, 1], got {self.start}")

    def __call__(
        self,
        denoiser: Denoiser,
        x: Value,
        seed: int | Sequence[int] | Noise = 0,
        *,
        path: bool = False,
        callback: Callable[[Value, Tensor], None] | None = None,
    ) -> Solution:
        """Reveal every mask of ``x``.

        Args:
            denoiser: with its condition bound.
            x: the start, ``process.prior(like, noise)`` or a value noised to ``start``.
            seed: an integer, one integer per sample, or a running stream.
            path: keep every value on the way.
            callback: called with the value and the times (B,) after every event.
        """
        process, batch = denoiser.process, batch_of(x)
        process.check(x)
        noise = seed if isinstance(seed, Noise) else Noise(seed)
        times, owner, uniform = [], [], {}
        for k, v in process.fields(x).items():
            field, layout = process.field(k), layout_of(x, k)
            if not isinstance(field, Jump) or not field.space.absorbing:
                raise ValueError(
                    f"the field {k!r} has no masks to lift: {field}; use Sampler for it"
                )
            like = v.double()
            lost = (1 - field.schedule.alpha(self.start)) * noise.uniform(like, layout).cpu()
            uniform[k] = noise.uniform(like, layout)
            hidden = layout.clean(v == field.space.k).flatten()
            owner.append(torch.where(hidden, owners(v, layout), batch))
            times.append(field.time(1 - lost).flatten())
        when, order = self._events(torch.cat(times), torch.cat(owner).cpu(), batch)
        places = dict(zip(uniform, order.split([len(o) for o in owner]), strict=True))
        values, previous = [x], None
        with torch.no_grad():
            for call, t in enumerate(when):
                prediction = denoiser(x, t, None, previous)
                at, previous = process.fields(prediction.x_t), prediction.x0
                fields = {}
                for k, p0 in process.fields(previous).items():
                    now = (places[k] == call).reshape(at[k].shape).to(p0.device)
                    lifted = torch.where(now, pick(p0, uniform[k]), at[k])
                    fields[k] = layout_of(x, k).clean(lifted)
                x = process.rebuild(prediction.x_t, fields)
                if path:
                    values.append(x)
                if callback is not None:
                    callback(x, t)
        return Solution(x, len(when), tuple(values) if path else ())

    def _events(self, times: Tensor, owner: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """The times of every call (calls, B), and the call in which each element is revealed (-1: in none)."""
        place = ranks(times, owner, batch)
        place = torch.where(owner < batch, place // self.together, -1)
        calls = int(place.max()) + 1 if len(place) else 0
        when = torch.zeros(batch, calls, dtype=torch.float64)
        masked = owner < batch
        rows, columns = owner[masked], place[masked]
        # the first of those lifted together: where the run stands
        when = when.flatten().scatter_reduce(0, rows * calls + columns, times[masked], "amax")
        when = when.reshape(batch, calls)
        # samples that are done wait at the time of their last event
        done = torch.bincount(rows, minlength=batch)
        last = torch.where(when > 0, when, torch.inf).amin(1, keepdim=True) if calls else when
        last = torch.where(done[:, None] > 0, last, self.start)
        return torch.where(when > 0, when, last).T, place
