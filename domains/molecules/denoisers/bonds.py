"""Bonds as a field: what a network over atoms needs to read and to predict one per pair i < j."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciffusion.state import State

from .blocks import Blocks

__all__ = ["BondHead", "bond_features"]


def bond_features(x: State, previous: State | None, blocks: Blocks) -> Tensor:
    """The noised bond and its previous prediction (0 without one) for all pairs in a row, (P, 2 T).

    Both directions of a pair are alike; a pair that ``context["pairs"]`` does not name has zeros.
    """
    i, j = blocks.slots_of(x.context["pairs"]).unbind()
    now = x["bond"]
    before = torch.zeros_like(now) if previous is None else previous["bond"].to(now)
    values = torch.cat([now, before], 1)
    rows = torch.cat([blocks.pairs_of(i, j), blocks.pairs_of(j, i)])
    empty = values.new_zeros(blocks.pairs, values.shape[1])
    return empty.index_copy(0, rows, torch.cat([values, values]))


@final
class BondHead(nn.Module):
    """Logits of every pair, symmetric in its atoms: from their features, distances and noised bond."""

    def __init__(self, width: int, bonds: int) -> None:
        super().__init__()
        self.atoms = nn.Linear(width, width)
        self.pairs = nn.Linear(2 + bonds, width, bias=False)
        self.out = nn.Linear(width, bonds)

    def forward(self, x: State, blocks: Blocks, h: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """From features h (S, width) and coordinates (S, 3) before and after the network, (P, T)."""
        i, j = blocks.slots_of(x.context["pairs"]).unbind()
        d2 = [(p[i] - p[j]).square().sum(-1, keepdim=True) for p in (start, end)]
        h = self.atoms(h)
        return self.out(F.silu(h[i] + h[j] + self.pairs(torch.cat([*d2, x["bond"]], 1))))
