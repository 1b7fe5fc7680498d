r"""How much noise a finer resolution needs: factors for :meth:`~sciffusion.schedule.Schedule.shift`.

Noise on neighbouring elements averages out. Pooled from n elements to :math:`n_0`, a field keeps its data and loses
:math:`\sqrt{n/n_0}` of its noise: at equal :math:`\sigma/\alpha` the finer field is less noisy where it matters.
"""

from __future__ import annotations

import math

__all__ = ["resolution_shift", "token_shift"]


def resolution_shift(n: float, base_n: float) -> float:
    r""":math:`\sqrt{n/n_0}`: the shift that takes a schedule tuned for ``base_n`` elements to ``n``.

    Elements are all those that one correlated piece of data spreads over: pixels, grid cells, samples of a waveform;
    for a square image the factor is the ratio of its sides. Source: Hoogeboom et al., simple diffusion, 2023; Esser et
    al., SD3, 2024. Raises ``ValueError`` unless both are positive.

    >>> resolution_shift(256 * 256, 64 * 64)
    4.0
    """
    if not (n > 0 and base_n > 0):
        raise ValueError(f"n and base_n must be positive, got {n} and {base_n}")
    return math.sqrt(n / base_n)


def token_shift(
    n: float, *, few: float = 256, many: float = 4096, low: float = 0.5, high: float = 1.15
) -> float:
    r""":math:`e^\mu` with :math:`\mu` linear in the number of tokens, ``low`` at ``few`` and ``high`` at ``many``.

    The rule of FLUX (Black Forest Labs, 2024), whose numbers are the defaults; beyond both ends the line goes on. On
    rectified flow it is their :math:`t' = e^\mu / (e^\mu + 1/t - 1)`. Raises ``ValueError`` unless n > 0, few < many.
    """
    if not (n > 0 and 0 < few < many):
        raise ValueError(f"need n > 0 and 0 < few < many, got {n}, {few} and {many}")
    return math.exp(low + (n - few) * (high - low) / (many - few))
