r"""Rotations of space: orientations of molecules, frames of residues.

A rotation is stored as its matrix, which is unambiguous, where a quaternion has two signs and angles have poles. With
the bi-invariant metric whose distance is the angle of :math:`R^TQ`, a tangent vector at R is :math:`R\,[w]_\times` with
the angular velocity w in the frame of the body, and :math:`\exp_R(R[w]_\times) = R\,e^{[w]_\times}`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.manifold import Manifold, angle_over_sine

__all__ = ["SO3"]


@final
@dataclass(frozen=True)
class SO3(Manifold):
    r"""Rotation matrices in the last two dimensions, (..., 3, 3), under the metric of the angle; volume :math:`8\pi^2`.

    Projecting takes the nearest rotation, in the norm of matrices, also of a reflection; the zero matrix, to which none
    is nearest, goes to the identity.
    """

    point_dims: ClassVar[int] = 2

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        x = layout.clean(x)
        lost = (x == 0).all(-1, keepdim=True).all(-2, keepdim=True)
        x = torch.where(lost, torch.eye(3, dtype=x.dtype, device=x.device), x)
        u, _, vt = torch.linalg.svd(x.detach())
        turn = torch.linalg.det(u @ vt).sign()
        near = u @ (torch.stack([torch.ones_like(turn)] * 2 + [turn], -1)[..., None] * vt)
        if x.requires_grad:
            near = _follow(near, x)
        return layout.clean(near)

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        four = noise.normal(like.flatten(-2)[..., :4], layout)
        return layout.clean(self.from_quaternion(four))

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        out = x @ self.from_vector(_vee(x.mT @ v))
        # one step of Newton's and Schulz's iteration: rounding does not add up over many steps
        return 1.5 * out - 0.5 * out @ (out.mT @ out)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ _hat(self.to_vector(_between(x, y)))

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return x @ _hat(_vee(x.mT @ v))

    def transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        turn = _between(x, y)
        half = self.from_vector(0.5 * self.to_vector(turn))
        return y @ _hat((half.mT @ _vee(x.mT @ v)[..., None])[..., 0])

    def length2(self, v: Tensor) -> Tensor:
        return 0.5 * v.square().sum((-2, -1))

    def log_jacobian(self, v: Tensor) -> Tensor:
        r""":math:`(\sin(r/2)/(r/2))^2`."""
        r = torch.linalg.vector_norm(v, dim=(-2, -1)) / math.sqrt(2)
        log = 2 * torch.sinc(0.5 * r / math.pi).abs().log()
        return torch.where(r <= math.pi, log, -math.inf)

    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        # the angle of a uniform rotation has the density (1 - cos r) / pi
        return math.sqrt((math.pi**2 / 3 + 2) / 3)

    def _point(self, x: Tensor) -> tuple[Tensor | float, int]:
        if x.shape[-2:] != (3, 3):
            raise ValueError(f"a rotation is a 3 x 3 matrix, got shape {tuple(x.shape)}")
        return math.log(8 * math.pi**2), 3

    @staticmethod
    def from_vector(w: Tensor) -> Tensor:
        """The rotation by the angle \\|w\\| about the axis ``w`` (..., 3): Rodrigues' formula."""
        angle = torch.linalg.vector_norm(w, dim=-1)[..., None, None]
        k, eye = _hat(w), torch.eye(3, dtype=w.dtype, device=w.device)
        half = torch.sinc(0.5 * angle / math.pi)
        return eye + torch.sinc(angle / math.pi) * k + 0.5 * half.square() * (k @ k)

    @staticmethod
    def to_vector(rotation: Tensor) -> Tensor:
        """Axis times angle, (..., 3), of a rotation; the angle is at most pi."""
        q = SO3.to_quaternion(rotation)
        w, v = q[..., :1], q[..., 1:]
        return 2 * angle_over_sine(v.square().sum(-1, keepdim=True), w) * v

    @staticmethod
    def from_quaternion(q: Tensor) -> Tensor:
        """The rotation of a quaternion (w, x, y, z) of any length and sign."""
        w, v = normalize(q, dim=-1).split((1, 3), -1)
        k = _hat(v)
        return torch.eye(3, dtype=q.dtype, device=q.device) + 2 * (w[..., None] * k + k @ k)

    @staticmethod
    def to_quaternion(rotation: Tensor) -> Tensor:
        """The unit quaternion (w, x, y, z), w >= 0, of a rotation: every one of the four products' rows would do."""
        m = rotation
        a, b, c = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
        # 4 q q^T is linear in the matrix; its longest row is the safest multiple of q
        x, y, z = m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]
        x_, y_, z_ = m[..., 1, 2], m[..., 2, 0], m[..., 0, 1]
        rows = torch.stack(
            [
                torch.stack([1 + a + b + c, x - x_, y - y_, z - z_], -1),
                torch.stack([x - x_, 1 + a - b - c, z + z_, y + y_], -1),
                torch.stack([y - y_, z + z_, 1 - a + b - c, x + x_], -1),
                torch.stack([z - z_, y + y_, x + x_, 1 - a - b + c], -1),
            ],
            -2,
        )
        longest = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
        q = normalize(rows.take_along_dim(longest, -2)[..., 0, :], dim=-1)
        return torch.where(q[..., :1] < 0, -q, q)


def _hat(w: Tensor) -> Tensor:
    """The matrix of the cross product with ``w``."""
    x, y, z = w.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def _vee(m: Tensor) -> Tensor:
    """The vector of a matrix's antisymmetric part."""
    return 0.5 * torch.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
    )


def _between(x: Tensor, y: Tensor) -> Tensor:
    """:math:`x^T y`, which is exactly the identity for equal rotations."""
    return torch.eye(3, dtype=x.dtype, device=x.device) + x.mT @ (y - x)


def _follow(near: Tensor, x: Tensor) -> Tensor:
    r"""``near`` with the derivative of the nearest, :math:`w = (\mathrm{tr}S - S)^{-1}\,2\,\mathrm{vee}(R^TX)`.

    ``S`` is the symmetric :math:`R^TX`. Differentiating the singular vectors would divide by the differences of the
    singular values, which are zero for a rotation.
    """
    s = near.mT @ x.detach()
    trace = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    gain = trace * torch.eye(3, dtype=x.dtype, device=x.device) - s
    w = torch.linalg.solve(gain, 2 * _vee(near.mT @ x)[..., None])[..., 0]
    return near + near @ _hat(w)
