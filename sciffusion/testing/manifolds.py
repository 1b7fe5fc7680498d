"""The contract of a manifold's geometry."""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.space import Manifold
from sciffusion.testing.claims import claim, claim_equal

__all__ = ["check_geometry"]


def check_geometry(space: Manifold, x: Tensor, y: Tensor, layout: Layout) -> None:
    """Check a manifold between the points of two clean fields, which may lie anywhere.

    Raises:
        AssertionError: unless exp and log stay in the space and in its tangent spaces and undo each other, distances
            are symmetric, geodesics have constant speed, transport keeps lengths and comes back, a point is at no
            distance from itself, exactly, and there exp leaves volumes as they are, both with a finite gradient.
    """
    tol = 100 * torch.finfo(x.dtype).eps
    v, zero = space.log(x, y), torch.zeros_like(layout.clean(space.dist2(x, x)))
    reached = space.exp(x, v)
    claim_equal(space.project(reached, layout), layout.clean(reached), "exp stays inside", tol=tol)
    claim_equal(layout.clean(space.to_tangent(x, v)), layout.clean(v), "log is tangent", tol=tol)
    gap = layout.clean(space.dist2(reached, y)).sqrt()
    claim_equal(gap, zero, "exp undoes log", tol=tol)

    length2 = layout.clean(space.length2(v))
    claim_equal(layout.clean(space.dist2(y, x)), length2, "distances are symmetric", tol=tol)
    half = space.exp(x, 0.5 * v)
    claim_equal(4 * layout.clean(space.dist2(x, half)), length2, "constant speed", tol=tol)
    there = space.transport(x, half, v)
    claim_equal(layout.clean(space.length2(there)), length2, "transport keeps lengths", tol=tol)
    back = layout.clean(space.transport(half, x, there))
    claim_equal(back, layout.clean(v), "transport comes back", tol=tol)

    with torch.enable_grad():
        moving = x.detach().clone().requires_grad_()
        distance = layout.clean(space.dist2(moving, x))
        (gradient,) = torch.autograd.grad(distance.sum(), moving)
        still = torch.zeros_like(v).requires_grad_()
        volume = space.log_jacobian(still) + 0 * space.length2(still)
        (slope,) = torch.autograd.grad(volume.sum(), still)
    claim_equal(distance, zero, "no distance to oneself")
    claim_equal(layout.clean(volume), zero, "exp keeps volumes where it begins")
    claim(gradient.isfinite().all(), "a finite gradient where two points coincide")
    claim(slope.isfinite().all(), "a finite gradient of the volume where exp begins")
