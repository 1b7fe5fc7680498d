"""The plain transformer as a molecular network: the fast one. Rotations come from the training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from sciffusion.state import State

from .base import MoleculeNet, MoleculeScalars, to_packed, to_padded
from .transformer_net import TransformerNet

__all__ = ["Transformer"]


@final
class Transformer(MoleculeNet):
    """Attention over the atoms of a molecule; see :mod:`.transformer_net`.

    Not equivariant to rotations (train it on rotated molecules); to permutations only with ``ordered=False``. Packed
    molecules are padded inside.

    Args:
        atom_types: channels of the field ``atom``.
        charges: channels of the field ``charge``; 0 without it.
        conditions: for every condition its number of components.
        ordered: let the network know each atom's place in the list (see ``MoleculeSet.chain_ordered``).
        d_model, layers, heads, radial, relative_heads: as in ``TransformerNet``.
    """

    def __init__(
        self,
        atom_types: int = 5,
        charges: int = 0,
        conditions: Mapping[str, int] | None = None,
        *,
        ordered: bool = True,
        d_model: int = 192,
        layers: int = 6,
        heads: int = 6,
        radial: int = 24,
        relative_heads: int = 8,
    ) -> None:
        super().__init__()
        self.channels = {"atom": atom_types} | ({"charge": charges} if charges else {})
        # the net itself hears the level of the positions; levels of other fields are functions of the same time
        self.scalars = MoleculeScalars((), conditions)
        self.net = TransformerNet(
            d_model=d_model,
            layers=layers,
            heads=heads,
            atom_channels=sum(self.channels.values()),
            cond_channels=self.scalars.width,
            radial=radial,
            relative_heads=relative_heads,
            ordered=ordered,
        )

    def forward(
        self,
        x: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None = None,
        previous: State | None = None,
    ) -> dict[str, Tensor]:
        unknown = set(x) - {"pos", *self.channels}
        if unknown:
            raise ValueError(
                f"the transformer has no place for the fields {sorted(unknown)}; use EGNN for bonds"
            )
        layout = x.layout("pos")
        (pos, mask), atom = to_padded(x["pos"], layout), self._atoms(x)
        before = (
            (None, None)
            if previous is None
            else (to_padded(previous["pos"], layout)[0], self._atoms(previous))
        )
        scalars = self.scalars(log_snr, cond, x.batch) if self.scalars.width else None
        full = None if bool(mask.all()) else mask
        out, logits = self.net(pos, atom, full, log_snr["pos"], before[0], before[1], scalars)
        fields = dict(
            zip(self.channels, logits.split(list(self.channels.values()), -1), strict=True)
        )
        return {k: to_packed(v, mask, layout) for k, v in {"pos": out, **fields}.items()}

    def _atoms(self, x: State) -> Tensor:
        return torch.cat([to_padded(x[name], x.layout(name))[0] for name in self.channels], -1)
