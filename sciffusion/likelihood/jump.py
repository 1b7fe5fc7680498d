r"""The likelihood of classes under a jump process: the evidence lower bound in continuous time.

With the lost survival :math:`u = 1-\alpha` as the variable, whatever the schedule, the bound is

.. math:: -\log p(x_0) \le \int_0^1 E_{q_u(x\mid x_0)}\,\ell_u(x, x_0)\,du,

where :math:`\ell` (:meth:`~sciffusion.process.Jump.bound_rate`) compares the predicted and the true rates of the
reversed process. At u = 1 all is noise and at 0 all is data, so no other term is left; it is an equality for the exact
denoiser. Source: Campbell et al., 2022; Lou et al., SEDD, 2024; Shi et al., MD4, 2024; Sahoo et al., MDLM, 2024.

Drawing u evenly has an infinite variance: :math:`\ell_u \sim 1/u` when something has jumped early. Of N elements, each
jumps for the first time at a uniform :math:`u_i` of its own; summed over the number l of elements that have jumped,

.. math:: \int_0^1 E\,\ell_u\,du = \sum_{l=1}^N E\Big[\tfrac{u_{(l)}}{l}\,\ell_{u_{(l)}}(x, x_0)\Big]
          + \tfrac{1}{N+1} E_{u\sim\mathrm{Beta}(1,N+1)}\,\ell_u(x_0, x_0),

with the order statistic :math:`u_{(l)}`, at which the l-th has just jumped: u given l follows the law Beta(l, N-l+1),
which takes the pole away. For masks this is the mean over the masked elements, and the last term vanishes (the
any-order form of Hoogeboom et al., 2022, and Ou et al., 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from sciffusion.denoiser import Denoiser
from sciffusion.noise import Noise
from sciffusion.process import Jump
from sciffusion.space import Categorical
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["jump_nelbo"]

_BLOCK = 64


def jump_nelbo(
    denoiser: Denoiser, x0: Value, seed: int | Sequence[int] | Noise = 0, *, draws: int = 256
) -> Tensor:
    r"""The negative evidence lower bound of ``x0``, an unbiased estimate from ``draws`` calls: nats, (B,), float64.

    Times, jumps and classes of a sample are scrambled Sobol points, so the error falls nearly as 1/``draws`` for few
    elements; powers of two serve best.

    Args:
        denoiser: with its condition bound; all fields of its process must be jump fields with one schedule.
        x0: the clean classes, a tensor or a state.
        seed: an integer, one per sample, or a running stream.
        draws: calls of the denoiser.

    Raises ``ValueError`` for other fields, schedules that differ, or fewer than one draw.
    """
    denoiser.process.check(x0)
    jumps = _jumps(denoiser, x0)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    clean = {
        k: jump.space.check(jump.space.project(denoiser.process.fields(x0)[k], layout_of(x0, k)))
        for k, jump in jumps.items()
    }
    noise = seed if isinstance(seed, Noise) else Noise(seed)
    parts = zip(*(layout_of(x0, k).parts(x) for k, x in clean.items()), strict=True)
    spaces = [jump.space for jump in jumps.values()]
    paths = [_Path(s, p, spaces) for s, p in zip(noise.scalars(batch_of(x0)), parts, strict=True)]
    total = torch.zeros(batch_of(x0), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, draws, _BLOCK):
            total += _block(denoiser, x0, jumps, clean, paths, min(_BLOCK, draws - start))
    return total / draws


def _jumps(denoiser: Denoiser, x0: Value) -> dict[str | None, Jump]:
    jumps: dict[str | None, Jump] = {}
    for name in denoiser.process.fields(x0):
        jump = denoiser.process.field(name)
        if not isinstance(jump, Jump):
            raise ValueError(f"x0 holds the field {name!r}, which does not jump but has {jump}")
        jumps[name] = jump
    first = next(iter(jumps.values())).schedule
    if any(j.schedule is not first and j.schedule != first for j in jumps.values()):
        raise ValueError("x0 has fields of different schedules; give all of them the same one")
    return jumps


def _block(
    denoiser: Denoiser,
    x0: Value,
    jumps: Mapping[str | None, Jump],
    clean: Mapping[str | None, Tensor],
    paths: Sequence[_Path],
    draws: int,
) -> Tensor:
    """The sum of ``draws`` estimates, (B,)."""
    process = denoiser.process
    drawn = [path.draw(draws) for path in paths]
    lost = torch.stack([d[0] for d in drawn], 1)  # (draws, B)
    weight = torch.stack([d[1] for d in drawn], 1)
    times = next(iter(jumps.values())).time(1 - lost)
    noised = {}
    for f, (k, x) in enumerate(clean.items()):
        layout, like = layout_of(x0, k), x[..., None].expand(*x.shape, draws)
        noised[k] = layout.assemble([d[2][f] for d in drawn], like)
    total = torch.zeros(len(paths), dtype=torch.float64)
    for i in range(draws):
        # -1 where an element has not jumped yet
        x_t = {
            k: layout_of(x0, k).clean(torch.where(noised[k][..., i] < 0, x, noised[k][..., i]))
            for k, x in clean.items()
        }
        x0_hat = process.fields(denoiser(process.rebuild(x0, x_t), times[i]).x0)
        for k, x in clean.items():
            layout = layout_of(x0, k)
            rate = jumps[k].bound_rate(x0_hat[k].double(), x, x_t[k], 1 - lost[i], layout)
            total += weight[i] * layout.reduce(layout.clean(rate), "sum").to(total)
    return total


class _Path:
    """The stream of one sample: how much survival is lost, the weight of that, and what has jumped where."""

    def __init__(
        self, seed: Tensor, shapes: Sequence[tuple[int, ...]], spaces: Sequence[Categorical]
    ) -> None:
        self.shapes, self.spaces = shapes, spaces
        self.sizes = [math.prod(shape) for shape in shapes]
        self.n = sum(self.sizes)
        # masks tell nothing before the first has jumped
        self.least = 1 if all(space.absorbing for space in spaces) else 0
        self.dims = 1 + self.n * (2 - self.least)
        number = int(float(seed) * 2**53)
        self.sobol = SobolEngine(min(self.dims, SobolEngine.MAXDIM), scramble=True, seed=number)
        self.rest = torch.Generator().manual_seed(number)

    def draw(self, draws: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Lost survival (draws,), weight (draws,), and for each field the new classes (*part, draws), or -1."""
        points = self.sobol.draw(draws, dtype=torch.float64)
        missing = self.dims - points.shape[1]
        more = torch.rand(draws, missing, generator=self.rest, dtype=torch.float64)
        points = torch.cat([points, more], 1)
        when = points[:, 1 : 1 + self.n]
        choices = self.n + 1 - self.least
        scaled = points[:, 0] * choices
        jumped = self.least + scaled.long().clamp(max=choices - 1)  # l
        lost = when.sort(1).values.gather(1, (jumped - 1).clamp(min=0)[:, None])[:, 0]
        lost = lost.clamp(min=1e-12)
        gone = (when <= lost[:, None]) & (jumped > 0)[:, None]
        weight = choices * lost / jumped.clamp(min=1)
        if not self.least:
            before = 1 - (1 - scaled.frac()) ** (1 / (self.n + 1))  # Beta(1, N+1)
            lost = torch.where(jumped > 0, lost, before.clamp(min=1e-12))
            weight = torch.where(jumped > 0, weight, 1.0)
        out, at = [], 0
        for shape, size, space in zip(self.shapes, self.sizes, self.spaces, strict=True):
            to = torch.full((draws, size), space.k)
            if not space.absorbing:
                u = points[:, 1 + self.n + at : 1 + self.n + at + size]
                to = (u * space.k).long().clamp(max=space.k - 1)
            out.append(torch.where(gone[:, at : at + size], to, -1).T.reshape(*shape, draws))
            at += size
        return lost, weight, out
