"""The contract of a space: its prior, subspace, density and, where the space is linear, its noise's covariance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space import GaussianSpace, LinearSpace, Manifold, Space
from sciffusion.testing.claims import claim, claim_equal
from sciffusion.testing.layouts import _split, spoil_field
from sciffusion.testing.manifolds import check_geometry

__all__ = ["check_space"]

_DRAWS = 250
_DENSE = 300
"""Samples of at most so many numbers have their covariance written out as a matrix."""


def check_space(space: Space, like: Tensor, layout: Layout) -> None:
    """Check a space on fields shaped like ``like``, with at least two samples.

    Raises:
        AssertionError: unless draws from the prior have the field's shape, dtype and projection, depend on their seed
            and on no other sample; projecting twice is projecting once; and dof and log_prior are one number a sample.
            For a linear space also unless covariance and precision are each other's inverse on the space, mix no
            samples and see no padding; and the prior's Mahalanobis norm has the mean ``dof`` (250 draws, six standard
            errors). For samples of at most 300 numbers the covariance is written out: it must be symmetric, of rank
            ``dof``, with ``noise_scale`` for its diagonal up to what the projection takes. For a Gaussian space it must
            be that of the draws (chance of a false alarm 1e-8), give ``log_prior`` with its normaliser; and the
            gradient of ``log_prior`` must be minus ``precision``. For a manifold also unless
            :func:`~sciffusion.testing.check_geometry` passes between two draws.
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
    if isinstance(space, Manifold):
        check_geometry(space, x, other, layout)
    if not isinstance(space, LinearSpace):
        return

    noise = Noise(seeds)
    draws = [space.prior(like, layout, noise) for _ in range(_DRAWS)]
    norms = torch.stack([space.norm2(e, layout) for e in draws]).double()
    off_by = (norms.mean(0) - dof).abs()
    claim(
        (off_by <= 6 * norms.std(0) / math.sqrt(_DRAWS) + 1e-9).all(),
        f"the prior's norm2 has the mean dof: {norms.mean(0).tolist()} for {dof.tolist()}",
    )
    like = like.double()
    x, y = (space.prior(like, layout, Noise(s)) for s in (seeds, [0, *(s + 7 for s in seeds[1:])]))
    _check_operators(space, x, y, layout)
    if isinstance(space, GaussianSpace):
        _check_gradient(space, x, layout)
    if max(math.prod(s) for s in layout.parts(like)) <= _DENSE:
        for i, matrix in enumerate(_matrices(space, like, layout)):
            values, basis = _check_matrix(space, x, layout, i, matrix)
            if isinstance(space, GaussianSpace):
                white = torch.stack([_split(e.double(), layout)[i] for e in draws]) @ basis
                _check_moments(white / values.sqrt())
                free = _split(x, layout)[i] @ basis
                log_p = -0.5 * (free**2 / values + (2 * math.pi * values).log()).sum()
                claim_equal(
                    space.log_prior(x, layout)[i],
                    log_p,
                    "log_prior is the density of N(0, covariance), its normaliser included",
                    tol=1e-8,
                )


def _check_operators(space: LinearSpace, x: Tensor, y: Tensor, layout: Layout) -> None:
    """Covariance and precision, on two draws that share their first sample."""
    claim_equal(
        space.covariance(space.precision(x, layout), layout),
        space.project(x, layout),
        "the covariance undoes the precision",
        tol=1e-9,
    )
    for law, operator in (("covariance", space.covariance), ("precision", space.precision)):
        a, b = (_split(operator(v, layout), layout)[0] for v in (x, y))
        claim_equal(a, b, f"the {law} mixes no samples")
    out = space.covariance(x + 1, layout)
    claim_equal(space.project(out, layout), out, "the covariance leads into the space", tol=1e-9)
    for garbage in (1e6, math.nan):
        dirty = spoil_field(x, layout, garbage)
        law = f"{garbage} outside the samples changes no"
        claim_equal(space.log_prior(dirty, layout), space.log_prior(x, layout), f"{law} log_prior")
        claim_equal(space.project(dirty, layout), space.project(x, layout), f"{law} projection")
        for operator in (space.covariance, space.precision):
            got, want = (layout.clean(operator(v, layout)) for v in (dirty, x))
            claim_equal(got, want, f"{law} covariance or precision")


def _check_gradient(space: GaussianSpace, x: Tensor, layout: Layout) -> None:
    with torch.enable_grad():
        y = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(space.log_prior(y, layout).sum(), y)
    claim_equal(
        space.project(gradient, layout),
        space.project(-space.precision(x, layout), layout),
        "the gradient of log_prior is minus the precision",
        tol=1e-9,
    )


def _matrices(space: LinearSpace, like: Tensor, layout: Layout) -> list[Tensor]:
    """The covariance of each sample, (n, n) over its own numbers: one column of every sample at a time."""
    shapes = layout.parts(like)
    columns: list[list[Tensor]] = [[] for _ in shapes]
    for j in range(max(math.prod(s) for s in shapes)):
        units = [(torch.arange(math.prod(s)) == j).double().reshape(s) for s in shapes]
        out = space.covariance(layout.assemble(units, like), layout)
        for known, column in zip(columns, _split(out, layout), strict=True):
            if j < len(column):
                known.append(column)
    return [torch.stack(c, 1) for c in columns]


def _check_matrix(
    space: LinearSpace, x: Tensor, layout: Layout, i: int, matrix: Tensor
) -> tuple[Tensor, Tensor]:
    """Check a sample's covariance; its positive eigenvalues and their vectors."""
    claim_equal(matrix, matrix.T, "the covariance is symmetric", tol=1e-9)
    dof = int(space.dof(x, layout)[i])
    values, basis = torch.linalg.eigh(matrix)
    noise = 1e-9 * values.abs().max()
    positive = values > noise
    claim(int(positive.sum()) == dof, f"the covariance has the rank {dof}, got {positive.sum()}")
    claim((values >= -noise).all(), "the covariance is positive")
    scale = torch.as_tensor(space.noise_scale(x, layout), dtype=torch.float64)
    allowed = float(_split(scale.expand(x.shape), layout)[i].square().mean())
    mean = float(matrix.diagonal().mean())
    claim(
        allowed * dof / len(matrix) * (1 - 1e-9) <= mean <= allowed * (1 + 1e-9) or dof == 0,
        f"noise_scale^2 is the mean variance before the projection: {allowed} for {mean}",
    )
    return values[positive], basis[:, positive]


def _check_moments(white: Tensor) -> None:
    """The second moments of draws (K, n) are those of white noise: Nagao's statistic, by the tail of a chi square."""
    draws, n = white.shape
    if n == 0:
        return
    excess = white.T @ white / draws - torch.eye(n, dtype=white.dtype)
    free = n * (n + 1) / 2
    bound = (
        free + 2 * math.sqrt(20 * free) + 40
    )  # exceeded with a chance of e^-20 (Laurent & Massart)
    claim(
        float(excess.square().sum()) * draws / 2 <= bound,
        "the covariance of the prior's draws is the covariance",
    )
