"""Where a field lives: its noise, its subspace, its degrees of freedom."""

from sciffusion.space.base import GaussianSpace, LinearSpace, Space
from sciffusion.space.categorical import Categorical
from sciffusion.space.chain import Chain
from sciffusion.space.coloured import Coloured
from sciffusion.space.euclidean import BySize, Euclidean, ZeroCoM
from sciffusion.space.spherical import SphereField
from sciffusion.space.student import StudentT

__all__ = [
    "BySize",
    "Categorical",
    "Chain",
    "Coloured",
    "Euclidean",
    "GaussianSpace",
    "LinearSpace",
    "Space",
    "SphereField",
    "StudentT",
    "ZeroCoM",
]
