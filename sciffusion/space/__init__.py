"""Where a field lives: its noise, its subspace, its degrees of freedom."""

from sciffusion.space.base import GaussianSpace, LinearSpace, Space
from sciffusion.space.categorical import Categorical
from sciffusion.space.euclidean import BySize, Euclidean, ZeroCoM

__all__ = [
    "BySize",
    "Categorical",
    "Euclidean",
    "GaussianSpace",
    "LinearSpace",
    "Space",
    "ZeroCoM",
]
