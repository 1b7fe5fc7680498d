r"""Gauss-Legendre quadrature on [0, 1] in float64."""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["gauss"]


@cache
def gauss(n: int) -> tuple[tuple[float, float], ...]:
    """``n`` pairs of (node, weight): exact for polynomials up to the degree 2n - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return tuple(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
