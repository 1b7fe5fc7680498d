"""Where a field lives: its noise, its subspace, its degrees of freedom."""

from sciffusion.space.base import GaussianSpace, Space
from sciffusion.space.categorical import Categorical
from sciffusion.space.euclidean import Euclidean, ZeroCoM

__all__ = ["Categorical", "Euclidean", "GaussianSpace", "Space", "ZeroCoM"]
