"""What every molecular network looks like from outside.

A network receives a noised molecule as a :class:`~sciffusion.state.State` with the fields

* ``pos``: coordinates scaled to about unit variance, padded (B, N, 3) or packed (A, 3);
* ``atom``: atom types as floats, (B, N, K) or (A, K): one-hot of the noised class, or a noised scaled one-hot;
* ``charge`` (optional): formal charges, likewise (..., C);
* ``bond`` (optional): bond types of the pairs i < j, (P, T), packed; ``context["pairs"]`` (2, P) names the two atoms
  by their row in the packed order,

and returns raw outputs for the same fields: a vector per atom for ``pos``, values or class logits for the rest.

A condition is a number or a vector per molecule. One that is not given, or whose entry is NaN, is *absent*: the
network is told so, hence one model serves every subset of its conditions, molecule by molecule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.errors import did_you_mean
from sciffusion.layout import Layout, Masked, Packed
from sciffusion.state import State

__all__ = ["MoleculeNet", "MoleculeScalars", "to_packed", "to_padded"]


class MoleculeNet(nn.Module, ABC):
    """A network over molecules; see the module's text for the fields."""

    @abstractmethod
    def forward(
        self,
        x: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None = None,
        previous: State | None = None,
    ) -> dict[str, Tensor]:
        """Raw outputs for every field of ``x``.

        Args:
            x: the noised fields, scaled as the preconditioning says.
            log_snr: for every field its log-SNR, (B,), clamped to a finite range.
            cond: conditions per molecule, (B,) or (B, C); NaN where absent. None: all are absent.
            previous: the previous prediction of x0 (positions; class probabilities), for self-conditioning.
        """


def to_padded(x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """A per-atom field as (B, N, ...) with its mask (B, N), whatever its layout; padding is zero."""
    if isinstance(layout, Packed):
        counts = torch.bincount(layout.index, minlength=layout.batch)
        mask = torch.arange(int(counts.max()), device=x.device) < counts[:, None]
        out = x.new_zeros((*mask.shape, *x.shape[1:]))
        out[mask] = x
        return out, mask
    if isinstance(layout, Masked):
        return layout.clean(x), layout.mask
    return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


def to_packed(x: Tensor, mask: Tensor, layout: Layout) -> Tensor:
    """The way back of :func:`to_padded`: to the layout that the field came from."""
    return x[mask] if isinstance(layout, Packed) else x


@final
class MoleculeScalars(nn.Module):
    r"""What a network knows about a whole molecule: the noise level of every field, and the conditions.

    Per field :math:`\lambda / 8` and :math:`\mathrm{sigmoid}(\lambda / 2) = \alpha / (\alpha + \sigma)` with
    :math:`\lambda` its log-SNR; per condition its value (0 where absent) and whether it is present. No parameters.

    Args:
        fields: the names of the noised fields.
        conditions: for every condition its number of components.
    """

    def __init__(self, fields: Sequence[str], conditions: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.conditions = dict(conditions or {})
        self.width = 2 * len(self.fields) + sum(k + 1 for k in self.conditions.values())

    def forward(
        self, log_snr: Mapping[str, Tensor], cond: Mapping[str, Tensor] | None, batch: int
    ) -> Tensor:
        """The features, (batch, width). Raises ``ValueError`` for an unknown condition or a wrong shape."""
        like = next(iter(log_snr.values()))
        levels = [log_snr[name].expand(batch).unsqueeze(1) for name in self.fields]
        parts = [f for level in levels for f in (level / 8, torch.sigmoid(level / 2))]
        cond = cond or {}
        for name in cond:
            if name not in self.conditions:
                known = list(self.conditions)
                raise ValueError(
                    f"cond names {name!r}, but the network was built for {known}. {did_you_mean(name, known)}"
                )
        for name, k in self.conditions.items():
            if name not in cond:
                parts.append(like.new_zeros(batch, k + 1))
                continue
            value = cond[name].to(like)
            if value.shape not in {(batch, k)} | ({(batch,)} if k == 1 else set()):
                raise ValueError(
                    f"cond[{name!r}] has shape {tuple(value.shape)}, expected ({batch}, {k})"
                )
            value = value.reshape(batch, k)
            present = ~value.isnan().any(1, keepdim=True)
            parts += [torch.where(present, value, 0.0), present.to(like)]
        return torch.cat(parts, 1) if parts else like.new_zeros(batch, 0)
