"""Several conditions at once: all of these, and none of those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Scale, refuse, scale_at
from sciffusion.guidance.together import together
from sciffusion.state import Value

__all__ = ["Composed"]


@final
class Composed(Denoiser):
    r"""Product and negation of conditions: :math:`\hat x_0 = \hat x_0^u + \sum_i w_i(\hat x_0^{(i)} - \hat x_0^u)`.

    The score is that of :math:`p(x_t)\prod_i (p(x_t\mid c_i)/p(x_t))^{w_i}`: positive weights ask for a condition,
    negative ones forbid it. Jump fields mix log-probabilities. One term is classifier-free guidance; a term of weight 0
    costs no call, nor does the null condition where the weights sum to 1.
    Source: Liu et al., Compositional Visual Generation with Composable Diffusion Models, 2022.

    Args:
        denoiser: trained with dropped conditions.
        null: the condition that means "no condition".
        terms: conditions with their weights, each a number, one per sample, or a function of the log-SNR.
        batched: make one call with the batch repeated; conditions must then be tensors or equal nests of tensors.

    Raises:
        ValueError: there are no terms.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        null: Condition,
        terms: Sequence[tuple[Condition, Scale]],
        *,
        batched: bool = False,
    ) -> None:
        super().__init__()
        if not terms:
            raise ValueError("terms is empty; give at least one (condition, weight)")
        self.denoiser, self.null, self.terms = denoiser, null, tuple(terms)
        self.batched, self.process = batched, denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        refuse(cond)
        t = torch.as_tensor(t)
        weights = [scale_at(w, self.process.clock, t) for _, w in self.terms]
        rest = 1 - sum(weights)
        if isinstance(rest, float) and abs(rest) < 1e-12:
            rest = 0
        weighted = [(c, w) for (c, _), w in zip(self.terms, weights, strict=True)]
        used = [
            (c, w) for c, w in (*weighted, (self.null, rest)) if isinstance(w, Tensor) or w != 0
        ]
        conds = [c for c, _ in used]
        if self.batched and len(used) > 1:
            parts = together(self.denoiser, x_t, t, conds, previous)
        else:
            parts = [self.denoiser(x_t, t, c, previous) for c in conds]
        if len(parts) == 1 and not isinstance(used[0][1], Tensor):
            return parts[0]
        x0 = self.process.combine([w for _, w in used], [p.x0 for p in parts])
        return Prediction(x0, parts[0].x_t, t, self.process)
