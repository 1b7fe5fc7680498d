"""Small worlds with weather of their own, for when there are no data: seeded, batched, in pure torch.

``quasigeostrophic``: jets and eddies on the sphere, the domain's offline data set; ``kolmogorov``: two-dimensional
turbulence; ``lorenz96``: the test bed of data assimilation. Each has a model and ``simulate``, which returns an
``xarray.Dataset``.
"""

from . import kolmogorov, lorenz96, quasigeostrophic

__all__ = ["kolmogorov", "lorenz96", "quasigeostrophic"]
