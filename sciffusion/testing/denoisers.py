"""The contracts of denoisers and of guidance, and a denoiser that knows the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Process
from sciffusion.space import Categorical
from sciffusion.state import State, Value, batch_of, layout_of
from sciffusion.testing.claims import claim, claim_equal
from sciffusion.testing.layouts import split, spoil

__all__ = ["Knows", "check_denoiser", "check_guidance"]


@final
class Knows(Denoiser):
    """A denoiser that knows the clean data: certain of ``x0`` at every time. Every loss of it is zero."""

    def __init__(self, x0: Value, process: Process) -> None:
        super().__init__()
        self.process = process
        self.x0 = process.rebuild(
            x0, {k: process.field(k).certain(v) for k, v in process.fields(x0).items()}
        )

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return Prediction(self.x0, x_t, t, self.process)


def _same(process: Process, got: Value, want: Value, law: str, tol: float) -> None:
    """Claim that two predictions agree on every sample's own numbers."""
    claim(isinstance(got, State) == isinstance(want, State), f"{law}: a state for a state")
    for name in process.fields(want):
        for i, (a, b) in enumerate(zip(split(got, name), split(want, name), strict=True)):
            claim_equal(a, b, f"{law} (field {name}, sample {i})", tol=tol)


def check_denoiser(
    denoiser: Denoiser, x0: Value, cond: Condition = None, *, tol: float = 1e-4
) -> None:
    """Check a denoiser (its weights need not be trained) on a batch of at least two clean samples.

    Call it in ``eval`` mode. ``tol`` is the error allowed where float arithmetic may be ordered differently.

    Raises:
        AssertionError: unless predictions are finite up to t = 1, of the kind, shapes and dtypes of the noised value
            (classes: probabilities), and in their spaces; calls repeat exactly, change no argument and draw from no
            global generator; one time for all means the same time for each; neither the other samples nor padding
            change a sample's prediction; binding the condition changes nothing; and the previous prediction is
            accepted.
    """
    process = denoiser.process
    batch = batch_of(x0)
    claim(batch >= 2, "give check_denoiser at least two samples")
    seeds = list(range(batch))
    with torch.no_grad():
        for t in (1.0, 0.98, 0.5, 0.02):
            time = torch.full((batch,), t, dtype=torch.float64)
            x_t = process.perturb(x0, time, Noise(seeds)).x_t
            fields = process.fields(x_t)
            before = {k: v.clone() for k, v in fields.items()}
            state = torch.get_rng_state()
            prediction = denoiser(x_t, time, cond)
            claim(torch.equal(state, torch.get_rng_state()), "no draw from the global generator")
            for k, v in fields.items():
                claim_equal(v, before[k], f"the argument {k} is left as it was")
            _check_kind(process, prediction.x0, x_t)

            again = denoiser(x_t, time, cond).x0
            _same(process, again, prediction.x0, f"two calls agree at t = {t}", 0.0)
            scalar = denoiser(x_t, torch.tensor(t, dtype=torch.float64), cond).x0
            _same(process, scalar, prediction.x0, f"one time for all at t = {t}", tol)
            bound = denoiser.given(cond)(x_t, time).x0 if cond is not None else again
            _same(process, bound, prediction.x0, "a bound condition is a given one", 0.0)
            shown = denoiser(x_t, time, cond, prediction.x0).x0
            _check_kind(process, shown, x_t)

            others = process.perturb(x0, time, Noise([0, *(s + 1000 for s in seeds[1:])])).x_t
            mixed = denoiser(others, time, cond).x0
            for name in fields:
                law = f"other samples change nothing at t = {t} (field {name})"
                claim_equal(split(mixed, name)[0], split(prediction.x0, name)[0], law, tol=tol)
            for garbage in (1e6, -1e6):
                dirty = denoiser(_spoil_noised(process, x_t, garbage), time, cond).x0
                law = f"{garbage} outside the samples changes nothing at t = {t}"
                _same(process, dirty, prediction.x0, law, tol)


def _spoil_noised(process: Process, x_t: Value, garbage: float) -> Value:
    """Garbage in the padding; classes stay classes there, for a network may look them up."""
    dirty = process.fields(spoil(x_t, garbage))
    out = {}
    for k, v in dirty.items():
        space = process.field(k).space
        top = space.states - 1 if isinstance(space, Categorical) else 0
        out[k] = v if v.is_floating_point() else v.clamp(0, top)
    return process.rebuild(x_t, out)


def _check_kind(process: Process, x0: Value, x_t: Value) -> None:
    claim(
        isinstance(x0, State) == isinstance(x_t, State),
        "a state for a state, a tensor for a tensor",
    )
    have, want = process.fields(x0), process.fields(x_t)
    claim(set(have) == set(want), f"a prediction of {list(want)}, got {list(have)}")
    for name, x in want.items():
        space, layout, value = process.field(name).space, layout_of(x_t, name), have[name]
        valid = torch.cat(split(x0, name))
        claim(valid.isfinite().all(), f"a finite prediction of {name}")
        if isinstance(space, Categorical):
            claim(value.shape == (*x.shape, space.k), f"{name}: probabilities of every class")
            p = valid.reshape(-1, space.k)
            claim((p >= 0).all(), f"{name}: probabilities are not negative")
            claim_equal(p.sum(-1), torch.ones(len(p)), f"{name}: probabilities sum to 1", tol=1e-5)
        else:
            claim(
                value.shape == x.shape and value.dtype == x.dtype, f"{name}: shape and dtype of x_t"
            )
            inside = space.project(value, layout)
            tol = 1e4 * torch.finfo(x.dtype).eps
            claim_equal(
                layout.clean(value), inside, f"{name}: the prediction is in its space", tol=tol
            )


def check_guidance(
    guide: Callable[[float], Denoiser],
    conditional: Denoiser,
    unconditional: Denoiser,
    x0: Value,
    *,
    linear: bool = True,
    ends: bool = True,
    moves: bool = False,
    tol: float = 1e-5,
) -> None:
    """Check a guidance, ``guide(scale)``, on a batch of clean samples.

    Args:
        guide: the guidance with one of the scales 0, 0.5, 1, 2 and 7.
        conditional: the prediction that is guided towards.
        unconditional: the one that is guided away from.
        x0: clean samples; at least two for the laws of a batch.
        linear: claim u + w (c - u) of Gaussian fields, as in classifier-free guidance.
        ends: claim that scale 0 is the unconditional prediction.
        moves: allow the guidance to move the point from which a sampler goes on.
        tol: the error allowed.

    Raises:
        AssertionError: unless scale 1 is the conditional prediction, and whatever the scale the result is a prediction
            of the same kind, of the same process, without a history under ``no_grad``, at the same time and point;
            NaN outside the samples changes nothing; a previous prediction is handed on; and the guided denoiser keeps
            the contract of denoisers.
    """
    process, scales = conditional.process, (0.0, 0.5, 1.0, 2.0, 7.0)
    for t in (0.9, 0.5, 0.1):
        time = torch.tensor(t, dtype=torch.float64)
        x_t = process.perturb(x0, time, Noise(3)).x_t
        with torch.no_grad():
            earlier = conditional(x_t, time).x0
            for previous in (None, earlier):
                c, u = (d(x_t, time, None, previous).x0 for d in (conditional, unconditional))
                out = {w: guide(w)(x_t, time, None, previous) for w in scales}
                law = "" if previous is None else ", a previous prediction handed on"
                _check_scales(process, out, c, u, law, linear=linear, ends=ends, tol=tol)
            for w, prediction in out.items():
                _check_passing(process, prediction, x_t, time, moves)
                dirty = _spoil_noised(process, x_t, float("nan"))
                got = guide(w)(dirty, time, None, earlier).x0
                law = f"NaN outside the samples changes nothing at scale {w}"
                _same(process, got, prediction.x0, law, tol)
    claim(guide(2.0).process is process, "the guided process is the denoiser's own")
    if batch_of(x0) > 1:
        check_denoiser(guide(2.0), x0, tol=max(tol, 1e-4))


def _check_scales(
    process: Process,
    out: dict[float, Prediction],
    c: Value,
    u: Value,
    law: str,
    *,
    linear: bool,
    ends: bool,
    tol: float,
) -> None:
    """Claim what the scale means, for predictions by scale."""
    for w, prediction in out.items():
        claim(isinstance(prediction, Prediction), f"a prediction at scale {w}")
        _check_kind(process, prediction.x0, prediction.x_t)
    _same(process, out[1.0].x0, c, f"scale 1 is the conditional prediction{law}", tol)
    if ends:
        _same(process, out[0.0].x0, u, f"scale 0 is the unconditional prediction{law}", tol)
    for name in process.fields(c) if linear else ():
        if not isinstance(process.field(name), Gaussian):
            continue
        for w, prediction in out.items():
            parts = zip(*(split(v, name) for v in (prediction.x0, c, u)), strict=True)
            for got, a, b in parts:
                law_w = f"scale {w} is u + w (c - u){law}"
                claim_equal(got, b + w * (a - b), law_w, tol=tol * max(w, 1))


def _check_passing(
    process: Process, prediction: Prediction, x_t: Value, time: Tensor, moves: bool
) -> None:
    """Claim that what a guidance does not change is handed on."""
    claim(prediction.process is process, "a prediction of the denoiser's own process")
    claim((prediction.t == time).all(), "a prediction at the time that was asked")
    for k, x0 in process.fields(prediction.x0).items():
        at, want = process.fields(prediction.x_t)[k], process.fields(x_t)[k]
        claim(not (x0.requires_grad or at.requires_grad), f"{k}: no history under no_grad")
        claim(at.shape == want.shape and at.dtype == want.dtype, f"{k}: x_t of the same kind")
    if not moves:
        _same(process, prediction.x_t, x_t, "the noised value is handed on", 0.0)
