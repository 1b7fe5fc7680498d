r"""What the points of a chain are told of their neighbours, and how the network's result is put together from steps.

The order of the points of a chain means something, and what lies near along it is decided by lengths and angles: of a
protein's C-alpha atoms two neighbours stand 3.8 angstrom apart, and four in a row tell helix from strand. So every
point is told the ways to its nearest neighbours along the chain, and numbers that no rotation changes: the products of
these ways, and a triple product, which knows left from right. How far the chain reaches as a whole is seen from afar:
every point is told the ways to those 8, 16, 32 and 64 places from it, too. What comes out is the step from each point
to the next, a combination of these ways by weights that the point decides, and a free part; a running sum makes points
of steps.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from sciffusion.networks.attention import zeroed

__all__ = ["Neighbours", "Steps"]

FAR = (8, 16, 32, 64)


@final
class Neighbours(nn.Module):
    """The ways from every point to others of its chain.

    Args:
        reach: neighbours before the point, and as many after it, whose ways are compared with each other.
        bond: the standard deviation of a coordinate of a step, the length by which ways are divided.
    """

    def __init__(self, reach: int, bond: float) -> None:
        super().__init__()
        if reach < 2:
            raise ValueError(f"chain must be at least 2 neighbours on each side, or 0, got {reach}")
        self.reach, self.bond = reach, bond
        near, far = 2 * reach, 2 * len(FAR)
        self.width = 3 * near + near * (near + 1) // 2 + 1 + 4 * far
        self.vectors = near + far + 2

    def forward(self, x: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, N, 3), the first so many (B,) of each sample, to features and vectors.

        Features are (B, N, width); vectors (B, N, vectors, 3) turn with the points. Where the chain ends before a
        neighbour its way is zero, and a way from afar leads to the end.
        """
        near = torch.stack(
            [self._way(x, points, k) for k in self._both(range(1, self.reach + 1))], 2
        )
        far = torch.stack([self._way(x, points, k, whole=False) for k in self._both(FAR)], 2)
        before, after, second = near[:, :, 0], near[:, :, 1], near[:, :, 3]
        normal = torch.linalg.cross(before, after)
        triple = (normal * second).sum(-1, keepdim=True)
        rows, columns = torch.triu_indices(near.shape[2], near.shape[2], device=x.device)
        products = (near @ near.mT)[..., rows, columns]
        lengths = far.square().sum(-1)
        features = torch.cat((near.flatten(2), far.flatten(2), products, lengths, triple), -1)
        # unbounded products would drown the rest where the chain is still noise
        return features.asinh(), torch.cat((near, far, normal[:, :, None], x[:, :, None]), 2)

    @staticmethod
    def _both(distances: range | tuple[int, ...]) -> list[int]:
        """Every distance backwards and forwards."""
        return [sign * k for k in distances for sign in (-1, 1)]

    def _way(self, x: Tensor, points: Tensor, k: int, *, whole: bool = True) -> Tensor:
        """The ways over k places, (B, N, 3), over the length to be expected of a random walk.

        ``whole``: those that end before are zero.
        """
        here = torch.arange(x.shape[1], device=x.device)
        there = torch.minimum((here + k).clamp(min=0), points[:, None] - 1)
        gone = (there - here).abs()
        way = x.gather(1, there[..., None].expand(-1, -1, 3)) - x
        way = way / (self.bond * gone.clamp(min=1).to(x.dtype).sqrt())[..., None]
        return way * (gone == abs(k))[..., None] if whole else way


@final
class Steps(nn.Module):
    """Points from the steps between them, each a weighted sum of vectors and a free part; all 0 at initialisation.

    Args:
        width: channels of a token.
        vectors: how many each point knows.
        bond: the length by which steps are multiplied.
    """

    def __init__(self, width: int, vectors: int, bond: float) -> None:
        super().__init__()
        self.bond = bond
        self.weights, self.free = zeroed(nn.Linear(width, vectors)), zeroed(nn.Linear(width, 3))

    def forward(self, h: Tensor, vectors: Tensor) -> Tensor:
        """Tokens (B, N, width) and vectors (B, N, vectors, 3) to points (B, N, 3), the first of them at the origin."""
        steps = self.bond * (self.free(h) + (self.weights(h)[..., None] * vectors).sum(2))
        return torch.cat((torch.zeros_like(steps[:, :1]), steps[:, :-1].cumsum(1)), 1)
