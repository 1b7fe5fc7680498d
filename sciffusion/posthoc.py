r"""Averages of weights whose length is chosen after training.

A power-function average of the weights :math:`\theta(t)` at the time T is :math:`\int p(t)\,\theta(t)\,dt` with the
profile

.. math:: p_{T,\gamma}(t) = \frac{\gamma + 1}{T^{\gamma+1}}\,t^\gamma \quad (0 \le t \le T),

which the update :math:`\beta_n = (1 - 1/n)^{\gamma+1}` of :class:`~sciffusion.ema.Power` reproduces exactly, if
:math:`\theta` is constant between updates. Any other profile, of another width or time, is approximated by a linear
combination of stored ones, :math:`p \approx \sum_i c_i p_i`, with the least squared error :math:`\int (p - \sum_i c_i
p_i)^2\,dt` among all with :math:`\sum_i c_i = 1`, so that what no longer changes in training is kept as it is. That
only needs the inner products, which are known in closed form: for :math:`T_a \le T_b`,

.. math:: \langle p_a, p_b\rangle = \int_0^{T_a} p_a\,p_b\,dt
          = \frac{(\gamma_a + 1)(\gamma_b + 1)}{\gamma_a + \gamma_b + 1}\,
            \frac{1}{T_b}\Bigl(\frac{T_a}{T_b}\Bigr)^{\gamma_b}.

The same combination of the stored averages is then the new average. Two profiles of different widths, stored at regular
times, serve for most others. Source: Karras et al., Analyzing and improving the training dynamics of diffusion models,
2024 (arXiv 2312.02696, section 3 and appendix C); they leave the coefficients' sum free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from sciffusion.ema import Power

__all__ = ["Blend", "Snapshot", "blend", "posthoc"]


@final
@dataclass(frozen=True)
class Snapshot:
    """A power-function average of the width ``sigma_rel`` after ``updates`` updates.

    ``read`` returns its tensors by name when they are needed: a run's snapshots do not fit into memory together.
    ``copied`` names those that are no averages but the model's own at that time, its buffers.
    """

    updates: int
    sigma_rel: float
    read: Callable[[], Mapping[str, Tensor]]
    copied: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.updates < 1:
            raise ValueError(f"updates must be at least 1, got {self.updates}")


@final
@dataclass(frozen=True)
class Blend:
    r"""How stored profiles combine to another one.

    ``coefficients`` has one number per stored profile; ``residual`` is what is left of the profile, :math:`\|p - \sum
    c_i p_i\| / \|p\|` in :math:`L^2`: 0 for a stored profile, near 1 where nothing like it was stored.
    """

    coefficients: tuple[float, ...]
    residual: float


def _product(a: tuple[int, float], b: tuple[int, float]) -> float:
    (t_a, gamma_a), (t_b, gamma_b) = sorted((a, b))
    scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return float(scale / t_b * (t_a / t_b) ** gamma_b)


def blend(stored: Sequence[tuple[int, float]], updates: int, sigma_rel: float) -> Blend:
    """The combination of stored profiles, pairs ``(updates, sigma_rel)``, that comes nearest to another one.

    A profile that is stored is returned as it is. Raises ``ValueError`` if nothing is stored, a profile is stored
    twice, or ``updates`` lies after the last of them, of which nothing is known.
    """
    if not stored:
        raise ValueError("stored is empty: there is no average to combine")
    if len(set(stored)) < len(stored):
        raise ValueError("stored names a profile more than once")
    last = max(t for t, _ in stored)
    if not 1 <= updates <= last:
        raise ValueError(f"updates must lie between 1 and {last}, the last snapshot; got {updates}")
    if (updates, sigma_rel) in stored:
        return Blend(tuple(float(s == (updates, sigma_rel)) for s in stored), 0.0)
    known = [(t, Power(sigma_rel=s).gamma) for t, s in stored]
    wanted = (updates, Power(sigma_rel=sigma_rel).gamma)
    # every profile is scaled to unit norm, else the short ones would hide in the rounding of the long ones
    norms = np.array([_product(p, p) for p in known]) ** 0.5
    gram = np.array([[_product(p, q) for q in known] for p in known]) / np.outer(norms, norms)
    size = _product(wanted, wanted) ** 0.5
    overlap = np.array([_product(p, wanted) for p in known]) / norms / size
    # the least squares with a Lagrange multiplier for the sum of the coefficients
    sums = size / norms
    system = np.block([[gram, sums[:, None]], [sums[None, :], np.zeros((1, 1))]])
    unit = np.linalg.lstsq(system, np.append(overlap, 1.0), rcond=1e-12)[0][:-1]
    left = 1 - 2 * unit @ overlap + unit @ gram @ unit
    return Blend(tuple((unit * size / norms).tolist()), float(max(left, 0.0) ** 0.5))


@torch.no_grad()
def posthoc(
    snapshots: Sequence[Snapshot], sigma_rel: float, *, updates: int | None = None
) -> dict[str, Tensor]:
    """The averaged weights that a power-function average of another width would have had.

    Snapshots are read one at a time and summed in float64, for the coefficients alternate in sign. Buffers are taken
    from the snapshot nearest in time.

    Args:
        snapshots: averages of one run, of one or more widths at several times.
        sigma_rel: the width wanted, relative to the length of training.
        updates: after how many updates (default: the last snapshot's).

    Returns:
        The tensors by name, on the CPU, in the dtypes in which they were stored.

    Raises:
        ValueError: like :func:`blend`, or if the snapshots hold different names or shapes.
    """
    stored = [(s.updates, s.sigma_rel) for s in snapshots]
    wanted = max((t for t, _ in stored), default=0) if updates is None else updates
    found = blend(stored, wanted, sigma_rel)
    nearest = min(snapshots, key=lambda s: abs(s.updates - wanted))
    like = {n: t.cpu() for n, t in nearest.read().items()}
    total = {
        n: torch.zeros_like(t, dtype=torch.float64)
        for n, t in like.items()
        if n not in nearest.copied
    }
    for c, snapshot in zip(found.coefficients, snapshots, strict=True):
        if c == 0.0:
            continue
        tensors = snapshot.read()
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in like.items()}:
            raise ValueError(
                f"the snapshot of {snapshot.updates} updates and sigma_rel {snapshot.sigma_rel} holds other tensors "
                f"than that of {nearest.updates}: they are of different models"
            )
        for name, t in total.items():
            t.add_(tensors[name].cpu().double(), alpha=c)
    return {n: total[n].to(t.dtype) if n in total else t.clone() for n, t in like.items()}
