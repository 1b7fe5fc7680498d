r"""A tensor-field network: features are scalars, vectors and tensors of degree 2 that turn with the molecule.

Node features carry irreducible representations of O(3). A layer sends to atom i

.. math:: m_i = \frac{1}{\sqrt{n - 1}} \sum_{j \ne i} h_j \otimes_{w_{ij}} Y(r_{ij}), \qquad
          h_i' = h_i + \mathrm{Gate}(W_1 m_i + W_2 h_i)

where Y are the spherical harmonics up to degree 2 of :math:`r_{ij} / \sqrt{\|r_{ij}\|^2 + \delta^2}` and the weights
:math:`w_{ij}` of the tensor product come from the distance and the scalars of both atoms.

Sources: Thomas et al., Tensor field networks, arXiv:1802.08219; Geiger & Smidt, e3nn, arXiv:2207.09453; the layer
follows Batzner et al., NequIP, Nature Communications 13, 2453 (2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciffusion.errors import require
from sciffusion.space import ZeroCoM
from sciffusion.state import State

from .base import MoleculeNet, MoleculeScalars
from .blocks import Blocks
from .bonds import BondHead, bond_features
from .egnn import PairLinear

if TYPE_CHECKING:
    from e3nn.o3 import Irrep, Irreps

__all__ = ["TensorField"]

_SOFT = 0.1
"""delta: below this distance the harmonics fade, so that they are smooth where two atoms coincide."""


@final
class _Radial(nn.Module):
    """Gaussians of a distance, evenly spaced on 0..reach (in standard deviations of the positions)."""

    centres: Tensor

    def __init__(self, number: int, reach: float) -> None:
        super().__init__()
        self.number, self.width = number, reach / (number - 1)
        self.register_buffer("centres", torch.linspace(0, reach, number))

    def forward(self, d2: Tensor) -> Tensor:
        distance = (d2 + _SOFT**2).sqrt()
        return torch.exp(-0.5 * ((distance - self.centres) / self.width) ** 2)


@final
class _Layer(nn.Module):
    def __init__(
        self, hidden: Irreps, harmonics: Irreps, pair_features: int, radial_width: int
    ) -> None:
        super().__init__()
        o3, e3nn_nn = require("e3nn.o3", extra="molecules"), require("e3nn.nn", extra="molecules")
        scalars, gated = hidden[:1], hidden[1:]
        self.scalars = scalars.dim
        middle: list[tuple[int, Irrep]] = []
        paths = []
        for a, (mul, ir) in enumerate(hidden):
            for b, (_, harmonic) in enumerate(harmonics):
                for ir_out in ir * harmonic:
                    if ir_out in hidden:
                        paths.append((a, b, len(middle), "uvu", True))
                        middle.append((mul, ir_out))
        self.product = o3.TensorProduct(
            hidden, harmonics, o3.Irreps(middle), paths, shared_weights=False
        )
        gates = o3.Irreps([(mul, "0e") for mul, _ in gated])
        self.gate = e3nn_nn.Gate(scalars, [F.silu], gates, [torch.sigmoid] * len(gates), gated)
        self.radial_in = PairLinear(self.scalars, pair_features, radial_width)
        self.radial_out = nn.Linear(radial_width, self.product.weight_numel)
        self.received = o3.Linear(o3.Irreps(middle), self.gate.irreps_in)
        self.own = o3.Linear(hidden, self.gate.irreps_in)

    def forward(
        self, h: Tensor, edges: tuple[Tensor, Tensor], harmonics: Tensor, f: Tensor, norm: Tensor
    ) -> Tensor:
        to, origin = edges
        weights = F.silu(self.radial_in.edges(h[:, : self.scalars], to, origin, f))
        message = self.product(h[origin], harmonics, self.radial_out(weights))
        summed = message.new_zeros(len(h), message.shape[1]).index_add(0, to, message)
        return h + self.gate(self.received(summed * norm) + self.own(h))


@final
class TensorField(MoleculeNet):
    """An O(3)-equivariant network on e3nn; the module's text has the formulas.

    The output for ``pos`` is a vector field without its mean; logits are invariant. It costs more per parameter than
    :class:`~.egnn.EGNN`, and sees angles in one layer where that sees distances only. Autocast leaves it alone: vectors
    in half precision would no longer turn with the molecule.

    Args:
        atom_types: number of channels of ``atom``.
        charges: number of channels of ``charge``; 0 if there is no such field.
        bonds: number of channels of ``bond``; 0 if there is no such field. Bond logits are symmetric in i, j.
        conditions: for every condition its number of components.
        hidden: irreducible representations of an atom's features, in e3nn's notation, with 0e and 1o.
        depth: number of layers.
        radial: number of Gaussians that expand a distance.
        radial_width: hidden width of the network that turns distances into weights.
        reach: the largest distance resolved, in units of ``pos``.

    Raises:
        MissingExtra: e3nn is not installed.
        ValueError: ``hidden`` has no even scalars or no vectors.
    """

    def __init__(
        self,
        atom_types: int = 5,
        charges: int = 0,
        bonds: int = 0,
        conditions: Mapping[str, int] | None = None,
        hidden: str = "64x0e + 24x1o + 8x2e",
        depth: int = 4,
        radial: int = 24,
        radial_width: int = 64,
        reach: float = 8.0,
    ) -> None:
        super().__init__()
        o3 = require("e3nn.o3", extra="molecules")
        irreps = o3.Irreps(hidden).sort().irreps.simplify()
        even = irreps.count("0e")
        if not even or not irreps.count("1o"):
            raise ValueError(
                f"hidden is {hidden!r}; it needs even scalars (0e) and vectors (1o), as in '32x0e + 8x1o'"
            )
        irreps = o3.Irreps([(even, "0e"), *((m, ir) for m, ir in irreps if str(ir) != "0e")])
        channels = {"atom": atom_types, "charge": charges}
        self.channels = {name: k for name, k in channels.items() if k}
        self.even, self.bonds = even, bonds
        fields = ["pos", *self.channels, *(["bond"] if bonds else [])]
        self.scalars = MoleculeScalars(fields, conditions)
        per_atom = sum(self.channels.values())
        self.embed = nn.Linear(2 * per_atom + self.scalars.width, even)
        self.rest = irreps.dim - even
        self.expand = _Radial(radial, reach)
        harmonics = o3.Irreps.spherical_harmonics(2)
        self.harmonics = o3.SphericalHarmonics(
            harmonics, normalize=False, normalization="component"
        )
        self.layers = nn.ModuleList(
            _Layer(irreps, harmonics, 2 * radial + 2 * bonds, radial_width) for _ in range(depth)
        )
        self.vector = o3.Linear(irreps, "1x1o")
        self.heads = nn.ModuleDict({name: nn.Linear(even, k) for name, k in self.channels.items()})
        if bonds:
            self.heads["bond"] = BondHead(even, bonds)

    def forward(
        self,
        x: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None = None,
        previous: State | None = None,
    ) -> dict[str, Tensor]:
        with torch.autocast(x["pos"].device.type, enabled=False):
            return self._forward(x, log_snr, cond, previous)

    def _forward(
        self,
        x: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None,
        previous: State | None,
    ) -> dict[str, Tensor]:
        layout, pos = x.layout("pos"), x["pos"]
        blocks = Blocks.of(layout, pos, by_size=True)
        to, origin = blocks.edges()
        at = blocks.take(pos)
        h = self._embed(x, previous, blocks, self.scalars(log_snr, cond, layout.batch))

        r = at[to] - at[origin]
        d2 = r.square().sum(1, keepdim=True)
        f = torch.cat([self.expand(d2), self._before(previous, blocks, to, origin, d2)], 1)
        if self.bonds:
            f = torch.cat([f, bond_features(x, previous, blocks)[blocks.pair_mask().squeeze(1)]], 1)
        harmonics = self.harmonics(r / (d2 + _SOFT**2).sqrt())
        norm = (layout.points(pos) - 1).clamp(min=1).to(at).rsqrt()[blocks.molecule].unsqueeze(1)
        for layer in self.layers:
            h = layer(h, (to, origin), harmonics, f, norm)
        even = h[:, : self.even]
        out = {name: blocks.give(self.heads[name](even), x[name]) for name in self.channels}
        move = self.vector(h)
        if self.bonds:
            out["bond"] = self.heads["bond"](x, blocks, even, at, at + move)
        out["pos"] = ZeroCoM().project(blocks.give(move, pos), layout)
        return out

    def _embed(self, x: State, previous: State | None, blocks: Blocks, scalars: Tensor) -> Tensor:
        """The features of every atom at the start: scalars only."""
        now = [blocks.take(x[name]) for name in self.channels]
        before = [
            torch.zeros_like(v) if previous is None else blocks.take(previous[name])
            for v, name in zip(now, self.channels, strict=True)
        ]
        even = self.embed(torch.cat([*now, *before, scalars[blocks.molecule]], 1))
        return torch.cat([even, even.new_zeros(len(even), self.rest)], 1)

    def _before(
        self, previous: State | None, blocks: Blocks, to: Tensor, origin: Tensor, d2: Tensor
    ) -> Tensor:
        """The previous prediction's distances, expanded; zero without one."""
        if previous is None:
            return d2.new_zeros(len(d2), self.expand.number)
        pos = blocks.take(previous["pos"])
        return self.expand((pos[to] - pos[origin]).square().sum(1, keepdim=True))
