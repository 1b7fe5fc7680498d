r"""The exact denoiser of classes that depend on each other: a table over all sequences.

For n positions with k classes each and probabilities :math:`p(x_0)` in a table of :math:`k^n` numbers,

.. math:: p(x_0^i = c\mid x_t) \propto \sum_{x_0:\,x_0^i=c} p(x_0)\prod_j q(x_t^j\mid x_0^j),

summed over the table. Steps that treat positions as independent are wrong by their own error alone here.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Layout
from sciffusion.process import Jump, Process
from sciffusion.state import Value, layout_of

__all__ = ["Sequences"]


@final
class Sequences(Denoiser):
    """The exact denoiser of sequences of n classes with the joint law ``table`` (k, ..., k).

    Every sample of the jump field ``field`` (None: a plain tensor) holds n elements, in any layout. Other fields of a
    state are handed through. Raises ``ValueError`` for a table that is no law, or not of the field's classes, or for
    samples of another length.
    """

    def __init__(self, table: Tensor, process: Process, field: str | None = None) -> None:
        super().__init__()
        jump = process.field(field)
        if not isinstance(jump, Jump) or set(table.shape) != {jump.space.k}:
            raise ValueError(
                f"table must have one dimension of the field's classes per position, got {tuple(table.shape)}"
            )
        if bool((table < 0).any()) or abs(float(table.sum()) - 1) > 1e-6:
            raise ValueError(
                f"table must hold probabilities that sum to 1, their sum is {float(table.sum())}"
            )
        self.process, self.jump, self.name = process, jump, field
        self.n, k = table.ndim, jump.space.k
        self.probs = table.double().flatten()
        #: every sequence, (k^n, n), in the order of the flat table
        self.sequences = torch.cartesian_prod(*[torch.arange(k)] * self.n).reshape(-1, self.n)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        fields = dict(self.process.fields(x_t))
        x, layout = fields[self.name], layout_of(x_t, self.name)
        fields[self.name] = self._posterior(x, torch.as_tensor(t), layout)
        return Prediction(self.process.rebuild(x_t, fields), x_t, t, self.process)

    def _posterior(self, x: Tensor, t: Tensor, layout: Layout) -> Tensor:
        k, valid = self.jump.space.k, layout.clean(torch.ones_like(x, dtype=torch.bool))
        if set(layout.count(x).tolist()) != {self.n}:
            raise ValueError(f"every sample must hold {self.n} elements, got {layout.count(x)}")
        probs, sequences = self.probs.to(x.device), self.sequences.to(x.device)
        keep = layout.expand(self.jump.schedule.alpha(t).to(x.device), x).expand(x.shape)[valid]
        keep, seen = keep.reshape(-1, self.n, 1), x[valid].reshape(-1, self.n)
        hit = torch.nn.functional.one_hot(seen, self.jump.space.states)[..., :k].double()
        if self.jump.space.absorbing:
            likely = torch.where((seen == k)[..., None], 1.0, hit)  # a mask says nothing
        else:
            likely = keep * hit + (1 - keep) / k
        # (B, k^n, n): how likely each position of each sequence makes what is seen there
        each = likely[:, None].expand(-1, len(sequences), -1, -1)
        each = each.gather(-1, sequences[None, :, :, None].expand(len(seen), -1, -1, 1))
        weight = probs * each[..., 0].prod(-1)
        onehot = torch.nn.functional.one_hot(sequences, k).double()
        p = torch.einsum("bs,snk->bnk", weight, onehot)
        out = torch.zeros(*x.shape, k, dtype=torch.float64, device=x.device)
        out[valid] = (p / weight.sum(1)[:, None, None]).reshape(-1, k)
        return out.to(torch.get_default_dtype())

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of sequences (B, n), nats, (B,) float64."""
        return self.probs.to(x.device)[self.index(x)].log()

    def index(self, x: Tensor) -> Tensor:
        """The place of sequences (B, n) in the flat table, (B,)."""
        place = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for column in x.T:
            place = place * self.jump.space.k + column
        return place

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` sequences of the data, (n, positions)."""
        return self.sequences[torch.multinomial(self.probs, n, True, generator=generator)]
