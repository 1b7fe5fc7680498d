r"""A conditional denoiser as a classifier: which of several conditions the data belong to.

By Bayes' rule, with the evidence lower bound in the place of the log-density of the data under each class c,

.. math:: \log p(c \mid x_0) = \log p(c) - \mathrm{NELBO}(x_0 \mid c) + \mathrm{const},

of which the classes share all but the denoising errors, :math:`\tfrac12\int(-d\mathrm{SNR}/dt)\,E\|x_0 - \hat
x_0(x_t, c)\|^2\,dt`. For exact denoisers it is the posterior itself (:func:`~sciffusion.likelihood.nelbo` then is
:math:`-\log p(x_0 \mid c)`). All classes of a sample see the same noise at the same noise levels: the differences,
which alone matter, are far better known than the bounds. Source: Li et al., Your diffusion model is secretly a
zero-shot classifier, 2023; Clark & Jaini, Text-to-image diffusion models are zero-shot classifiers, 2023.

A trained network departs from the exact denoiser, and where there is little noise the bound weighs that most: the
posterior is then too sure of itself, or wrong. With ``high`` the integral ends at that log-SNR, and classes are told
apart by data blurred with so much noise, :math:`\log p(c) + E\log p(x_{high}\mid c)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciffusion.denoiser import Condition, Denoiser
from sciffusion.likelihood.bound import nelbo
from sciffusion.noise import sample_seeds
from sciffusion.state import State, Value, batch_of, take

__all__ = ["log_posterior"]


def log_posterior(
    denoiser: Denoiser,
    x0: Value,
    conditions: Sequence[Condition],
    seed: int | Sequence[int] = 0,
    *,
    log_prior: Tensor | None = None,
    draws: int = 32,
    rounds: int = 4,
    margin: float = math.inf,
    low: float = -10.0,
    high: float = 10.0,
    batch_size: int = 64,
) -> Tensor:
    """The log-probability of each of K classes for every sample, nats, (B, K) float64; each row sums to 1.

    Args:
        denoiser: conditional, with no condition bound, nor anything else to a batch; all fields Gaussian.
        x0: clean data, a tensor or a state in any layout, without a context.
        conditions: what the denoiser is told of each class: tensors, or mappings of them, with a row for each sample or
            one for all.
        seed: sample i depends on (seed, i) alone; or one seed per sample.
        log_prior: of the classes, (K,) or (B, K), up to a constant; None: all alike. Classes of minus infinity cost
            nothing.
        draws: of the log-SNR and the noise in a round, two calls of the network each for every class.
        rounds: estimates that are averaged; before each but the first, classes may be given up.
        margin: a class that lies so many nats behind a sample's best is given up: its distance stays as it is, from the
            rounds in which it took part. It should be some times as large as the error of one round.
        low: the log-SNR below which classes cannot be told apart.
        high: the log-SNR at which the data are taken up.
        batch_size: pairs of a sample and a class that are denoised together.

    Raises:
        ValueError: for no classes, conditions that do not have the same tensors for each, another number of rows, a
            prior of another shape or without a class, a number or margin that is not positive, and as
            :func:`~sciffusion.likelihood.nelbo` does.
        RuntimeError: for predictions that are not finite.
    """
    batch, k = batch_of(x0), len(conditions)
    if min(draws, rounds, batch_size) < 1 or not margin > 0:
        raise ValueError(
            "draws, rounds and batch_size must be at least 1 and margin positive, got "
            f"{draws}, {rounds}, {batch_size}, {margin}"
        )
    _check(conditions, batch)
    prior = _prior(log_prior, batch, k)
    seeds = [int(s) for s in seed] if isinstance(seed, Sequence) else sample_seeds(seed, batch)
    if len(seeds) != batch:
        raise ValueError(f"seed has {len(seeds)} entries for {batch} samples; give one a sample")
    streams = [sample_seeds(s, rounds) for s in seeds]

    found = torch.full((rounds, batch, k), math.nan, dtype=torch.float64)
    running = prior.isfinite()
    behind = torch.zeros_like(prior)
    for i in range(rounds):
        for pairs in running.nonzero().split(batch_size):
            rows, classes = pairs.unbind(1)
            told = denoiser.given(_rows(conditions, rows.tolist(), classes.tolist()))
            noise = [streams[r][i] for r in rows.tolist()]
            data = take(x0, rows.to(_device(x0)))
            bound = nelbo(told, data, noise, draws=draws, low=low, high=high)
            if not bool(bound.isfinite().all()):
                raise RuntimeError("the denoiser's predictions are not finite")
            found[i, rows, classes] = bound.cpu()
        behind = _behind(found[: i + 1], prior)
        running = running & (behind <= margin)
    return (-behind).log_softmax(1).to(_device(x0))


def _behind(found: Tensor, prior: Tensor) -> Tensor:
    """How far each class lies behind the best, nats, (B, K): the best of those that took part in all rounds.

    Both are compared over the rounds (R, B, K) in which both took part, for only there do they share their noise.
    """
    total = (found.mean(0) - prior).nan_to_num(nan=math.inf)
    best = total.argmin(1, keepdim=True)
    apart = (found - found.gather(2, best.expand(len(found), -1, -1))).nanmean(0)
    return (apart - prior + prior.gather(1, best)).nan_to_num(nan=math.inf)


def _check(conditions: Sequence[Condition], batch: int) -> None:
    if not conditions:
        raise ValueError("conditions is empty; give one for each class")
    for c, condition in enumerate(conditions):
        if _form(condition, batch) != _form(conditions[0], batch):
            raise ValueError(
                f"conditions must hold tensors of the same names and shapes, but class {c} differs from class 0"
            )


def _form(condition: Condition, batch: int) -> tuple[object, ...]:
    """The names and the shapes that a condition holds. Raises ``ValueError`` for what has no rows to be picked."""
    leaves, structure = pytree.tree_flatten(condition, is_leaf=lambda v: type(v) is State)
    for leaf in leaves:
        if not isinstance(leaf, Tensor | None):
            raise ValueError(f"conditions must hold tensors, got a {type(leaf).__name__}")
        if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) not in (1, batch):
            raise ValueError(
                f"conditions hold a tensor of shape {tuple(leaf.shape)} for a batch of {batch}: its first dimension "
                "must be the samples of the batch (or 1)"
            )
    return structure, *(getattr(leaf, "shape", None) for leaf in leaves)


def _rows(conditions: Sequence[Condition], rows: list[int], classes: list[int]) -> Condition:
    """The condition of pairs of a sample and a class."""

    def one(*leaves: Tensor | None) -> Tensor | None:
        kinds = [v if v is None or v.ndim else v[None] for v in leaves]
        pairs = ((kinds[c], r) for c, r in zip(classes, rows, strict=True))
        parts = [v[r if len(v) > 1 else 0] for v, r in pairs if v is not None]
        return torch.stack(parts) if parts else None

    return pytree.tree_map(one, *conditions)


def _prior(log_prior: Tensor | None, batch: int, k: int) -> Tensor:
    if log_prior is None:
        return torch.zeros(batch, k, dtype=torch.float64)
    if log_prior.shape not in ((k,), (batch, k)):
        raise ValueError(
            f"log_prior must be ({k},) or ({batch}, {k}), got {tuple(log_prior.shape)}"
        )
    prior = log_prior.double().cpu().expand(batch, k)
    if bool((prior.isnan() | (prior == math.inf)).any() | (prior == -math.inf).all(1).any()):
        raise ValueError("log_prior must be finite for a class of every sample, and never NaN")
    return prior


def _device(x0: Value) -> torch.device:
    return next(iter(x0.values())).device if type(x0) is State else x0.device
