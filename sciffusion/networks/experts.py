r"""Sparse mixtures of experts: every token goes through two of several networks, and through one that all share.

A router gives every token probabilities :math:`p = \mathrm{softmax}(Wx)` of the N experts; the k most probable ones
act, weighted by these very probabilities (not renormalised, so that the router learns from every token):

.. math:: y = f_{shared}(x) + \sum_{i\in\text{top } k} p_i f_i(x)

Left alone a router tends to favour few experts. With :math:`F_i` the share of choices that fell on expert i, and
:math:`P_i` its mean probability, the balance loss :math:`N\sum_i F_i P_i` is 1 if all are used alike and up to N
otherwise. Sources: Shazeer et al. 2017; Fedus et al. 2021 (the loss); Dai et al. 2024 (the shared expert).

At equal arithmetic four experts reached a loss 2 to 4 % lower than one network in a short training
(``benchmarks/results/experts.md``); gathering tokens took 28 % more time on a CPU.

The loss is no part of what a network computes. Whoever trains it watches the routers and adds it::

    with Routing(model) as routing:
        loss = objective(model, x0, cond, noise=noise)
    total = loss.mean + 0.01 * routing.balance()
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lean import transformed, two_layers

__all__ = ["Experts", "Router", "Routes", "Routing"]


class Routes(NamedTuple):
    """Where tokens go: ``probabilities`` (B, L, N), ``chosen`` (B, L, k); ``mask``: those that count, (B, L)."""

    probabilities: Tensor
    chosen: Tensor
    mask: Tensor | None


@final
class Router(nn.Module):
    """The probabilities of all experts for every token, in float32 at least, and the ``active`` best of them."""

    def __init__(self, width: int, experts: int, active: int) -> None:
        super().__init__()
        if not 0 < active <= experts:
            raise ValueError(f"active must be between 1 and the {experts} experts, not {active}")
        self.active = active
        self.linear = nn.Linear(width, experts, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routes:
        """Tokens (B, L, width) to their routes."""
        logits = self.linear(x)
        p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        return Routes(p, p.topk(self.active, -1).indices, mask)


@final
class _TwoLayers(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return two_layers(self.wide, self.narrow, x)


@final
class Experts(nn.Module):
    """A two-layer network of which every token uses a part only.

    The tokens of an expert are gathered and go through it together. Where that cannot be traced (``torch.compile``,
    ``torch.func``) every expert sees all tokens: the same result, at ``experts / active`` times the cost.

    Args:
        width: channels of a token.
        hidden: width of an expert inside; the shared one has half of it.
        experts: their number N, beside the shared one.
        active: how many of them a token goes through.
    """

    def __init__(self, width: int, hidden: int, experts: int = 4, active: int = 2) -> None:
        super().__init__()
        self.router = Router(width, experts, active)
        self.each = nn.ModuleList(_TwoLayers(width, hidden) for _ in range(experts))
        self.shared = _TwoLayers(width, hidden // 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, L, width) to the same; ``mask`` says which ones the balance of the experts counts."""
        routes: Routes = self.router(x, mask)
        gates = routes.probabilities.gather(-1, routes.chosen).to(x.dtype)
        spread = self._all if transformed() else self._gathered
        return self.shared(x) + spread(x, gates, routes.chosen)

    def _gathered(self, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        flat, slots = x.flatten(0, -2), chosen.flatten()
        order = slots.argsort(stable=True)
        rows = order // chosen.shape[-1]
        counts = slots.bincount(minlength=len(self.each)).tolist()
        parts = zip(self.each, flat[rows].split(counts), strict=True)
        done = torch.cat([expert(part) for expert, part in parts])
        weighed = done * gates.flatten()[order].unsqueeze(1)
        return weighed.new_zeros(flat.shape).index_add(0, rows, weighed).view(x.shape)

    def _all(self, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.each):
            y = y + expert(x) * (gates * (chosen == i)).sum(-1, keepdim=True)
        return y


@final
class Routing:
    """Watches all routers of a model while its block runs; ``routes`` holds what they said, call after call.

    The model itself is left as it is. A compiled one does not tell: watch it before ``torch.compile``.

    Raises ``ValueError`` for a model without routers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.routers = [m for m in model.modules() if isinstance(m, Router)]
        if not self.routers:
            raise ValueError("the model has no experts: build its network with experts > 0")
        self.routes: list[Routes] = []
        self._release: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        def note(module: nn.Module, inputs: Any, routes: Routes) -> None:
            self.routes.append(routes)

        self._release = [router.register_forward_hook(note).remove for router in self.routers]
        return self

    def __exit__(self, *error: object) -> None:
        for release in self._release:
            release()

    def balance(self) -> Tensor:
        """The balance loss, (), the mean over all calls of routers. Differentiable."""
        return torch.stack([_balance(r) for r in self._seen()]).mean()

    def entropy(self) -> Tensor:
        """The entropy of the experts' loads over that of equal ones, (), in [0, 1], the mean over all calls."""
        loads = torch.stack([_load(r) for r in self._seen()])
        return torch.special.entr(loads).sum(-1).mean() / math.log(loads.shape[-1])

    def _seen(self) -> list[Routes]:
        if not self.routes:
            raise ValueError(
                "no router ran inside the block: call the model there, and not a compiled one"
            )
        return self.routes


def _load(routes: Routes) -> Tensor:
    """The share of choices that fell on each expert, (N,)."""
    hits = F.one_hot(routes.chosen, routes.probabilities.shape[-1]).sum(-2)
    hits = hits.to(routes.probabilities.dtype)
    if routes.mask is not None:
        hits = hits * routes.mask.unsqueeze(-1)
    total = hits.flatten(0, -2).sum(0)
    return total / total.sum().clamp(min=1)


def _balance(routes: Routes) -> Tensor:
    p = routes.probabilities.flatten(0, -2)
    if routes.mask is None:
        mean = p.mean(0)
    else:
        weight = routes.mask.flatten().to(p).unsqueeze(1)
        mean = (weight * p).sum(0) / weight.sum().clamp(min=1)
    return p.shape[-1] * (_load(routes) * mean).sum()
