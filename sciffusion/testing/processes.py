"""The contract of a forward process."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Geodesic, Process, Target
from sciffusion.samplers import DDIM, Sampler
from sciffusion.space import GaussianSpace, Manifold
from sciffusion.state import State, Value, batch_of, layout_of
from sciffusion.testing.claims import claim, claim_equal
from sciffusion.testing.denoisers import Knows
from sciffusion.testing.layouts import split, spoil

__all__ = ["check_process"]


def _check_alike(process: Process, got: Value, like: Value, law: str) -> None:
    claim(isinstance(got, State) == isinstance(like, State), f"{law}: a state for a state")
    have, want = process.fields(got), process.fields(like)
    claim(set(have) == set(want), f"{law}: the fields {list(want)}, got {list(have)}")
    for k in want:
        claim(have[k].shape == want[k].shape, f"{law}: the shape of {k}")
        claim(have[k].dtype == want[k].dtype, f"{law}: the dtype of {k}")


def _check_same(process: Process, got: Value, want: Value, law: str, tol: float = 0.0) -> None:
    for name, value in process.fields(got).items():
        there, space = process.fields(want)[name], process.field(name).space
        if isinstance(
            space, Manifold
        ):  # a point may have two names, as 0 and the period of a circle
            there, value = torch.zeros_like(value), space.log(there, value)
        claim_equal(value, there, f"{law} (field {name})", tol=tol)


def _check_targets(process: Gaussian, name: str | None, x0: Value, seed: int) -> None:
    """All conversions among the five targets agree with the data and the noise that made x_t."""
    layout = layout_of(x0, name)
    clean = process.fields(x0)[name].double()
    e = process.noise_field(clean, layout, Noise(seed))
    batch = layout.batch
    per_element = torch.linspace(0.2, 0.8, clean[..., 0].numel()).reshape(clean[..., 0].shape)
    for t in (torch.tensor(0.3), torch.linspace(0.1, 0.9, batch), per_element.double()):
        x_t, clean, _ = process.perturb_field(clean, t, layout, Noise(seed), e)
        alpha, sigma = (layout.expand(c, clean) for c in process.schedule(t))
        a, s = (layout.expand(c, clean) for c in process.schedule.rates(t))
        truth: dict[Target, Tensor] = {
            "x0": clean,
            "eps": e,
            "v": alpha * e - sigma * clean,
            "flow": a * clean + s * e,
            "score": -process.space.precision(e, layout) / sigma,
        }
        known = [k for k in truth if k != "score" or isinstance(process.space, GaussianSpace)]
        for src in known:
            for dst in known:
                got = process.convert(truth[src], x_t, t, layout, src=src, dst=dst)
                law = f"{src} -> {dst} at t of shape {tuple(t.shape)}"
                claim_equal(layout.clean(got), layout.clean(truth[dst]), law, tol=1e-8)


def _check_geodesic(process: Geodesic, name: str | None, x0: Value, seed: int) -> None:
    """The noised point divides the geodesic to the prior, and moves with the velocity that is told."""
    layout, space = layout_of(x0, name), process.space
    clean = space.project(process.fields(x0)[name].double(), layout)
    e = process.noise_field(clean, layout, Noise(seed))
    whole = layout.clean(space.dist2(clean, e)).sqrt()
    per_element = torch.linspace(0.2, 0.8, whole.numel(), dtype=torch.float64).reshape(whole.shape)

    def at(t: Tensor) -> Tensor:
        return process.perturb_field(clean, t, layout, Noise(seed), e)[0]

    per_sample = torch.linspace(0.1, 0.9, layout.batch, dtype=torch.float64)
    for t in (torch.tensor(0.3).double(), per_sample, per_element):
        law, x_t = f"at t of shape {tuple(t.shape)}", at(t)
        kappa = layout.expand(process.schedule.sigma(t), whole)
        for end, part in ((clean, kappa), (e, 1 - kappa)):
            distance = layout.clean(space.dist2(x_t, end)).sqrt()
            claim_equal(distance, part * whole, f"x_t divides the geodesic {law}", tol=1e-9)
        flow = process.express(clean, x_t, t, layout, "flow")
        h = 1e-4
        ahead, back = (space.log(x_t, at(t + s * h)) for s in (1, -1))
        moved = layout.clean(ahead - back) / (2 * h)
        claim_equal(flow, moved, f"flow is the velocity of x_t {law}", tol=1e-5)
        for target in ("flow", "x0"):
            said = process.express(clean, x_t, t, layout, target)
            read = process.read(said, x_t, t, layout, target)
            gap = layout.clean(space.dist2(read, clean)).sqrt()
            claim_equal(gap, torch.zeros_like(gap), f"{target} -> x0 {law}", tol=1e-9)


def check_process(process: Process, x0: Value) -> None:
    """Check a process on a batch of at least two clean samples.

    Raises:
        AssertionError: unless noising keeps the kind, shapes and dtypes of every field, depends on its seeds alone and
            on no other sample or padding, and treats one time for all like the same time for each; the prior and the
            clean data lie in the spaces; Gaussian fields are alpha x0 + sigma e and their conversions (25, less those
            of a score where the noise is not Gaussian) agree with it (float64, times per batch, sample and element);
            geodesic fields divide the shortest way to the prior and move along it with the velocity that they tell;
            and a run from the prior with a denoiser that knows the data returns the data.
    """
    process.check(x0)
    batch = batch_of(x0)
    claim(batch >= 2, "give check_process at least two samples")
    seeds = list(range(batch))
    t = torch.linspace(0.1, 0.9, batch, dtype=torch.float64)

    noised = process.perturb(x0, t, Noise(seeds))
    for part in ("x_t", "x0", "eps"):
        _check_alike(process, getattr(noised, part), x0, f"perturb returns {part}")
    _check_same(process, process.perturb(x0, t, Noise(seeds)).x_t, noised.x_t, "same seeds")
    _check_same(
        process,
        process.perturb(x0, torch.full((batch,), 0.4), Noise(seeds)).x_t,
        process.perturb(x0, torch.tensor(0.4), Noise(seeds)).x_t,
        "a time for each sample is a time for all",
    )
    others = process.perturb(x0, t, Noise([0, *(s + 1000 for s in seeds[1:])])).x_t
    for name in process.fields(x0):
        claim_equal(split(others, name)[0], split(noised.x_t, name)[0], "noising mixes no samples")
    for garbage in (1e6, -1e6, math.nan):
        again = process.perturb(spoil(x0, garbage), t, Noise(seeds))
        _check_same(
            process, again.x_t, noised.x_t, f"{garbage} outside the samples changes nothing"
        )
    eps = process.draw(x0, Noise(seeds))
    _check_same(
        process, process.perturb(x0, t, Noise(seeds), eps).eps, eps, "perturb uses given noise"
    )

    prior = process.prior(x0, Noise(seeds))
    _check_alike(process, prior, x0, "prior")
    for name, value in process.fields(noised.x0).items():
        field, layout = process.field(name), layout_of(x0, name)
        if isinstance(field, Geodesic):
            _check_geodesic(field, name, noised.x0, seed=5)
        if not isinstance(field, Gaussian):
            continue
        e, x_t = process.fields(noised.eps)[name], process.fields(noised.x_t)[name]
        alpha, sigma = (layout.expand(c.to(value), value) for c in field.schedule(t))
        claim_equal(x_t, alpha * value + sigma * e, "x_t is alpha x0 + sigma e", tol=1e-6)
        _check_targets(field, name, noised.x0, seed=5)

    knows = Knows(noised.x0, process)
    sampler = Sampler(DDIM(), steps=5)
    tol = 1e-5 if torch.get_default_dtype() == torch.float32 else 1e-9
    _check_same(
        process, sampler(knows, prior, seeds).x, noised.x0, "knowing the data finds them", tol
    )
    _check_same(
        process,
        process.combine((1.0,), (knows(prior, t).x0,)),
        knows(prior, t).x0,
        "combining one",
        tol,
    )
