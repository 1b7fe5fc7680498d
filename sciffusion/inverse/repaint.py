r"""Inpainting by replacement, and RePaint: the known part is noised afresh at every step, the rest follows.

After a step to time s the known entries are replaced by a draw of :math:`q(x_s\mid x_0)`. The rest never sees more than
one noised copy of them, and the result is biased: replacement is not the conditional law, even for a perfect denoiser.
RePaint goes back and forth: it noises the whole to the time before (:math:`q(x_t\mid x_s)`) and takes the step again,
which lets both parts agree. More rounds, less bias. Sources: Song et al., Score-Based Generative Modeling through SDEs,
2021 (replacement); Lugmayr et al., RePaint, CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.inverse.operators import check_boolean, fitted
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Process
from sciffusion.samplers import DDIM, Sampler, Solution
from sciffusion.solver import Window
from sciffusion.state import Value, layout_of

__all__ = ["RePaint"]


@final
@dataclass(frozen=True, eq=False)
class RePaint:
    """A sampler that keeps a part of every sample as it is; called like one.

    Works for Gaussian, wrapped and jump fields in every layout (a geodesic field cannot go back up: one round), and the
    known entries of a run down to time 0 are ``known``'s, bit by bit.

    Args:
        sampler: any whose solver has no history, on one grid for all samples; a stochastic solver mixes better.
        known: a clean value like the samples: what it holds at unknown entries only has to be finite and in the space.
        mask: boolean, True where an entry is known; for a state by field (fields that it does not name are unknown). As
            many dimensions as the field, each of its size or 1.
        rounds: how often every step is taken; 1 is plain replacement. The cost grows as fast.
        jump: how many steps are taken at a time before going back (10 in the paper, with 10 rounds).

    Raises:
        ValueError: for fewer than one round or step, a mask that does not fit, a known value outside the space,
            a sampler with restarts or a multistep solver, or grids that differ between samples.
    """

    sampler: Sampler
    known: Value
    mask: Tensor | Mapping[str, Tensor]
    rounds: int = 10
    jump: int = 1

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.jump < 1:
            raise ValueError(
                f"rounds and jump must be at least 1, got {self.rounds} and {self.jump}"
            )
        for mask in self.mask.values() if isinstance(self.mask, Mapping) else [self.mask]:
            check_boolean(mask)

    def __call__(
        self, denoiser: Denoiser, x: Value, seed: int | Sequence[int] | Noise = 0
    ) -> Solution:
        """Run from ``x``, a value at the sampler's start, as :meth:`sciffusion.samplers.Sampler.__call__` does."""
        noise = seed if isinstance(seed, Noise) else Noise(seed)
        process, sampler = denoiser.process, self.sampler
        if sampler.restarts:
            raise ValueError("RePaint goes back up by itself; give it a sampler without restarts")
        if sampler.solver.history:
            raise ValueError(
                "RePaint noises the known part anew at every step, so predictions of earlier steps are of another "
                f"sample; give it a solver without history, such as DDIM, instead of {type(sampler.solver).__name__}"
            )
        self._check(process)
        times = sampler.grid(process.clock, sampler.steps, sampler.start, sampler.stop)
        if times.ndim != 1:
            raise ValueError(
                "RePaint goes back on one grid for all samples; this one has a row each"
            )
        with torch.no_grad():
            carry = sampler.init(denoiser, self._hold(process, x, times[0], noise))
            nfe = 0
            for first in range(0, sampler.steps, self.jump):
                last = min(first + self.jump, sampler.steps)
                origin = carry
                for round in range(self.rounds):
                    if round:
                        back = _raise(process, carry.x, times[last], times[first], noise)
                        carry = replace(origin, x=back)
                    for i in range(first, last):
                        nfe += len(carry.plan.times[i])
                        carry = sampler.step(denoiser, carry, noise)
                        carry = replace(carry, x=self._hold(process, carry.x, times[i + 1], noise))
        return Solution(carry.x, nfe)

    def _masks(self, process: Process) -> dict[str | None, Tensor]:
        masks = dict(self.mask) if isinstance(self.mask, Mapping) else {None: self.mask}
        unknown = [k for k in masks if k not in process.fields(self.known)]
        if unknown:
            raise ValueError(
                f"mask names {unknown}, known has the fields {list(process.fields(self.known))}"
            )
        return masks  # type: ignore[return-value]

    def _check(self, process: Process) -> None:
        process.check(self.known)
        fields = process.fields(self.known)
        for name, mask in self._masks(process).items():
            v, layout, field = fields[name], layout_of(self.known, name), process.field(name)
            fitted(mask, v)
            if not isinstance(field, Gaussian):
                continue
            valid = layout.clean(v)
            if not torch.allclose(field.space.project(v, layout), valid, rtol=1e-4, atol=1e-5):
                raise ValueError(
                    f"known lies outside the space {field.space} of field {name!r}; complete it so that the whole "
                    "sample lies inside (a centre of mass at zero, say)"
                )

    def _hold(self, process: Process, x: Value, t: Tensor, noise: Noise) -> Value:
        """``x`` at time t with the known entries put in: noised to t, or themselves at time 0."""
        at = process.perturb(self.known, t, noise).x_t if t > 0 else self.known
        fields, known = dict(process.fields(x)), process.fields(at)
        for name, mask in self._masks(process).items():
            v, field = fields[name], process.field(name)
            out = torch.where(fitted(mask, v), known[name].to(v), v)
            if t > 0 and isinstance(field, Gaussian):
                out = field.space.project(out, layout_of(x, name))
            fields[name] = out
        return process.rebuild(x, fields)


def _raise(process: Process, x: Value, s: Tensor, t: Tensor, noise: Noise) -> Value:
    """Noise a value at time s on to the time t."""
    if s == 0:
        return process.perturb(x, t, noise).x_t
    window = Window(float(s), (float(t),), (), None)
    out = {}
    for name, v in process.fields(x).items():
        field = process.field(name)
        move = field.compile(DDIM(), [window])[0]
        out[name] = field.lift(move, v, layout_of(x, name), noise)
    return process.rebuild(x, out)
