"""EDM's network as its paper writes it down: the yardstick for our EGNN's speed.

Hoogeboom, Satorras, Vignac & Welling, Equivariant Diffusion for Molecule Generation in 3D, ICML 2022, section 3 and
appendix B: written from the formulas, in the plain way (a list of edges, multilayer perceptrons on concatenations, sums
by scattering, masks on nodes and edges). It is no port of anybody's code and is not tuned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["EDMReference", "complete_edges"]


def complete_edges(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs within each padded molecule (B, N): ends i and j among the B N rows, and which count (E, 1)."""
    batch, n = mask.shape
    rows = torch.arange(batch * n).view(batch, n)
    i = rows.unsqueeze(2).expand(batch, n, n).reshape(-1)
    j = rows.unsqueeze(1).expand(batch, n, n).reshape(-1)
    flat = mask.reshape(-1)
    return i, j, (flat[i] & flat[j] & (i != j)).unsqueeze(1).float()


class _Layer(nn.Module):
    def __init__(self, width: int, step: float) -> None:
        super().__init__()
        self.step = step

        def mlp(inputs: int) -> list[nn.Module]:
            return [nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width)]

        self.phi_e = nn.Sequential(*mlp(2 * width + 2), nn.SiLU())
        self.phi_inf = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())
        self.phi_h = nn.Sequential(*mlp(2 * width))
        length = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(length.weight, gain=1e-3)
        self.phi_x = nn.Sequential(*mlp(2 * width + 2), nn.SiLU(), length)

    def forward(
        self, h: Tensor, x: Tensor, i: Tensor, j: Tensor, edges: Tensor | None, d0: Tensor
    ) -> tuple[Tensor, Tensor]:
        difference = x[i] - x[j]
        d2 = difference.square().sum(1, keepdim=True)
        inputs = torch.cat([h[i], h[j], d2, d0], 1)
        message = self.phi_e(inputs)
        message = self.phi_inf(message) * message
        move = difference / ((d2 + 1e-8).sqrt() + 1) * torch.tanh(self.phi_x(inputs)) * self.step
        if edges is not None:
            message, move = message * edges, move * edges
        to = i.unsqueeze(1)
        received = torch.zeros_like(h).scatter_add(0, to.expand_as(message), message)
        moved = torch.zeros_like(x).scatter_add(0, to.expand_as(move), move)
        return h + self.phi_h(torch.cat([h, received], 1)), x + moved


class EDMReference(nn.Module):
    """(atoms, features) and coordinates, and the list of edges -> features and displacements."""

    def __init__(self, inputs: int, outputs: int, width: int = 256, depth: int = 9) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(_Layer(width, 15.0 / depth) for _ in range(depth))
        self.head = nn.Linear(width, outputs)

    def forward(
        self,
        h: Tensor,
        x: Tensor,
        i: Tensor,
        j: Tensor,
        nodes: Tensor | None = None,
        edges: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Masks ``nodes`` (A, 1) and ``edges`` (E, 1) are 1 where something exists; None: everywhere."""
        start, h = x, self.embed(h)
        d0 = (x[i] - x[j]).square().sum(1, keepdim=True)
        for layer in self.layers:
            h, x = layer(h, x, i, j, edges, d0)
            if nodes is not None:
                h, x = h * nodes, x * nodes
        return self.head(h), x - start
