r"""The times at which a sampler stops on its way from the prior to the data.

A grid is a pure function ``(schedule, steps, start, stop) -> times``: ``steps + 1`` numbers in float64 that fall
strictly from ``start`` to ``stop``. A tensor of times will do too (:class:`Times`), and
:mod:`sciffusion.grid.optimise` fits one to a denoiser. Grids in log-SNR or in :math:`\sigma/\alpha` cut infinite ends
off at finite ones and put the first and last time back.
"""

from sciffusion.grid.base import Grid
from sciffusion.grid.spacing import Beta, FlowTime, Karras, LogSNR, Power, Uniform
from sciffusion.grid.times import Times

__all__ = ["Beta", "FlowTime", "Grid", "Karras", "LogSNR", "Power", "Times", "Uniform"]
