"""Where a field lives: its noise, its subspace, its degrees of freedom."""

from sciffusion.space.base import GaussianSpace, LinearSpace, Space
from sciffusion.space.categorical import Categorical
from sciffusion.space.chain import Chain
from sciffusion.space.coloured import Coloured
from sciffusion.space.euclidean import BySize, Euclidean, ZeroCoM
from sciffusion.space.manifold import Manifold
from sciffusion.space.so3 import SO3
from sciffusion.space.sphere import Sphere
from sciffusion.space.spherical import SphereField
from sciffusion.space.student import StudentT
from sciffusion.space.torus import Torus

__all__ = [
    "SO3",
    "BySize",
    "Categorical",
    "Chain",
    "Coloured",
    "Euclidean",
    "GaussianSpace",
    "LinearSpace",
    "Manifold",
    "Space",
    "Sphere",
    "SphereField",
    "StudentT",
    "Torus",
    "ZeroCoM",
]
