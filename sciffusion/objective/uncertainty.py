r"""A loss balanced over the noise levels by a learned log-variance.

With u a function of the log-SNR that is trained along with the network, :math:`L \mapsto L e^{-u(\lambda)} +
u(\lambda)` is the negative log-likelihood of an error of variance :math:`e^u`. It is least at :math:`e^{u(\lambda)} =
E[L\mid\lambda]`, where every noise level contributes the same: the gradient is that of :math:`\log L`.
Source: Kendall, Gal & Cipolla, 2018; Karras et al., 2024 (arXiv 2312.02696).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.process.base import LOG_SNR_RANGE

__all__ = ["Uncertainty"]


@final
class Uncertainty(nn.Module):
    r"""A learned log-variance of the loss, one curve per field: a cosine series in the clamped log-SNR.

    :math:`u(\lambda) = \sum_k c_k \cos(\pi k(\lambda + 20)/40)`, zero at the start, where it changes nothing.

    Its parameters must be trained with the network's. Hand both to the optimiser, or, for the training engine, make the
    module a part of the model (``model.uncertainty = uncertainty``) and give the objective the model's own: then the
    optimiser, the checkpoints and all processes have it, and it is no part of what the denoiser computes. (Sharding by
    ``fsdp`` cannot use a parameter outside the forward pass of its module: train that in ``ddp``.)

    Args:
        fields: the names of a state's fields; the only field of a plain tensor is called ``None``.
        terms: the number of terms of the series.
    """

    def __init__(self, fields: Sequence[str | None] = (None,), *, terms: int = 32) -> None:
        super().__init__()
        if terms < 1 or not fields:
            raise ValueError(f"need at least one field and one term, got {list(fields)}, {terms}")
        self.fields, self.terms = tuple(fields), terms
        # one vector: optimisers decay matrices, or make them orthogonal
        self.series = nn.Parameter(torch.zeros(len(self.fields) * terms))

    def log_variance(self, name: str | None, log_snr: Tensor) -> Tensor:
        """u at these log-SNRs, of their shape. Raises ``ValueError`` for a field that it does not have."""
        if name not in self.fields:
            raise ValueError(f"Uncertainty has the fields {list(self.fields)}, not {name!r}")
        level = log_snr.double().clamp(-LOG_SNR_RANGE, LOG_SNR_RANGE)
        phase = (level + LOG_SNR_RANGE) * (math.pi / (2 * LOG_SNR_RANGE))
        basis = torch.cos(phase[..., None] * torch.arange(self.terms, device=phase.device))
        i = self.fields.index(name) * self.terms
        series = self.series[i : i + self.terms]
        return basis.to(series) @ series

    def forward(self, name: str | None, loss: Tensor, log_snr: Tensor) -> Tensor:
        """The balanced loss of a field, (B,), from its loss (B,) at these log-SNRs, () or (B,)."""
        u = self.log_variance(name, log_snr)
        return loss * torch.exp(-u) + u
