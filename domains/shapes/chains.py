r"""What the points of a chain are told of their neighbours, along it and in space.

The order of the points of a chain means something, and what lies near along it is decided by lengths and angles: of a
protein's C-alpha atoms two neighbours stand 3.8 angstrom apart, and four in a row tell helix from strand. So every
point is told the ways to its nearest neighbours along the chain, and numbers that no rotation changes: the products of
these ways, and a triple product, which knows left from right. How far the chain reaches as a whole is seen from afar:
every point is told the ways to those 8, 16, 32 and 64 places from it, too. Whether a chain runs into itself is seen
from points that are near in space and far along it: attention is drawn to those who are near, head by head over other
distances, and tells the way to where it rests. What comes out is, for every point, a combination of all these ways by
weights that the point decides, and a free part.

Attention by distance costs no matrix of distances: up to what is the same for all j,
:math:`-\lambda|x_i - x_j|^2 = 2\lambda x_i\cdot x_j - \lambda|x_j|^2`, a product of four more numbers of each query and
key (the distances are those of invariant point attention, Jumper et al., 2021).
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.networks.attention import attention, zeroed
from sciffusion.networks.blocks import Block
from sciffusion.networks.modulation import gated, modulated

__all__ = ["Moves", "Neighbours", "SpatialBlock"]

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
class SpatialBlock(nn.Module):
    """A transformer's block whose attention is drawn to points that are near in space.

    Every head has a reach of its own at every noise level, from narrow to wide at initialisation, when the block is the
    identity.

    Args:
        width, heads: channels of a token, heads of the attention.
        hidden: width of the two-layer network.
        embedding: size of the vector that modulates.
    """

    def __init__(self, width: int, heads: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.block = Block(width, heads, hidden, embedding)
        self.reach = zeroed(nn.Linear(embedding, heads))
        with torch.no_grad():
            self.reach.bias.copy_(torch.linspace(-1.0, 2.5, heads))
        self.told = nn.Linear(5 * heads, width)

    def forward(
        self,
        h: Tensor,
        x: Tensor,
        embedding: Tensor,
        rotation: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, width) of points x (B, N, 3) to the same, and the ways to where each head rests.

        The ways (B, N, heads, 3) turn with the points. ``mask`` is True for the points that count, (B, N).
        """
        parts = self.block.modulation(embedding, h.shape[1])
        q, k, v = self.block.own.project(modulated(h, *parts[:2]), rotation)
        heads, width = q.shape[1], q.shape[-1]
        lam = F.softplus(self.reach(embedding))[:, :, None, None]
        place = torch.cat((x, x.square().sum(-1, keepdim=True)), -1)[:, None]
        place = place.expand(-1, heads, -1, -1)
        # the kernel divides by the root of all channels: those of the contents keep their own, those of space none
        total = width + 4
        sought = torch.cat((2 * x, -torch.ones_like(x[..., :1])), -1)[:, None] * lam
        q = torch.cat((q * (total / width) ** 0.5, sought * total**0.5), -1)
        seen = attention(q, torch.cat((k, place), -1), torch.cat((v, place), -1), mask)
        seen = seen.transpose(1, 2)
        content, rest, square = seen.split((width, 3, 1), -1)
        ways = rest - x[:, :, None]
        apart = square[..., 0] - rest.square().sum(-1) + ways.square().sum(-1)
        sizes = torch.stack((ways.square().sum(-1), apart), -1).clamp(min=0)
        told = self.told(torch.cat((ways.flatten(2), (sizes + 1e-6).sqrt().flatten(2)), -1))
        h = gated(h, parts[2], self.block.own.out(content.flatten(2)) + told)
        return self.block.feed(h, parts, mask), ways


@final
class Moves(nn.Module):
    """A move of every point: a weighted sum of vectors that it knows, and a free part; all 0 at initialisation.

    Args:
        width: channels of a token.
        vectors: how many each point knows.
    """

    def __init__(self, width: int, vectors: int) -> None:
        super().__init__()
        self.weights, self.free = zeroed(nn.Linear(width, vectors)), zeroed(nn.Linear(width, 3))

    def forward(self, h: Tensor, vectors: Tensor) -> Tensor:
        """Tokens (B, N, width) and vectors (B, N, vectors, 3) to (B, N, 3)."""
        moves: Tensor = self.free(h) + (self.weights(h)[..., None] * vectors).sum(2)
        return moves
