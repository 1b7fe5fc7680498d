"""The contract of a space."""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space import GaussianSpace, Space
from sciffusion.testing.claims import claim, claim_equal
from sciffusion.testing.layouts import _split

__all__ = ["check_space"]

_DRAWS = 400


def check_space(space: Space, like: Tensor, layout: Layout) -> None:
    """Check a space on fields shaped like ``like``, with at least two samples.

    Raises:
        AssertionError: unless draws from the prior have the field's shape, dtype and projection, depend on their seed
            and on no other sample; projecting twice is projecting once; and dof and log_prior are one number a sample.
            For a Gaussian space also unless the prior's Mahalanobis norm has the mean ``dof`` (400 draws, six
            standard errors) and the gradient of log_prior is minus ``precision``.
    """
    seeds = list(range(layout.batch))
    x = space.prior(like, layout, Noise(seeds))
    claim(
        x.shape == like.shape and x.dtype == like.dtype, "the prior has the field's shape and dtype"
    )
    claim_equal(space.prior(like, layout, Noise(seeds)), x, "the same seeds give the same draw")
    other = space.prior(like, layout, Noise([0, *(s + 1000 for s in seeds[1:])]))
    claim_equal(_split(other, layout)[0], _split(x, layout)[0], "a draw depends on no other sample")

    tol = 100 * torch.finfo(like.dtype).eps if like.is_floating_point() else 0.0
    claim_equal(space.project(x, layout), x, "the prior lies in the space", tol=tol)
    off = like + 1 if like.is_floating_point() else like
    once = space.project(off, layout)
    claim_equal(space.project(once, layout), once, "projecting twice is projecting once", tol=tol)
    dof, log_p = space.dof(x, layout), space.log_prior(x, layout)
    claim(
        dof.shape == (layout.batch,) and not dof.is_floating_point(), "dof is an integer a sample"
    )
    claim(
        log_p.shape == (layout.batch,) and bool(log_p.isfinite().all()), "log_prior is (B,), finite"
    )

    if not isinstance(space, GaussianSpace):
        return
    noise = Noise(seeds)
    norms = torch.stack(
        [space.norm2(space.prior(like, layout, noise), layout) for _ in range(_DRAWS)]
    )
    # a sum of dof squared normals has the variance 2 dof
    off_by = (norms.double().mean(0) - dof).abs()
    claim(
        (off_by <= 6 * (2 * dof.double() / _DRAWS).sqrt() + 1e-9).all(),
        f"the prior's norm2 has the mean dof: {norms.mean(0).tolist()} for {dof.tolist()}",
    )
    with torch.enable_grad():
        y = x.double().requires_grad_()
        (gradient,) = torch.autograd.grad(space.log_prior(y, layout).sum(), y)
    want = -space.precision(x.double(), layout)
    claim_equal(
        space.project(gradient, layout),
        space.project(want, layout),
        "the gradient of log_prior is minus the precision",
        tol=1e-9,
    )
