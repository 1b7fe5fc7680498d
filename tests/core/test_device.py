"""Data elsewhere than on the CPU, where noise is drawn and times are kept: nothing is mixed, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sciffusion import oracle
from sciffusion.denoiser import Condition, Denoiser, Preconditioned
from sciffusion.grid import Times
from sciffusion.layout import Layout, Masked, Packed
from sciffusion.likelihood import (
    Divergence,
    Exact,
    Hutchinson,
    HutchinsonPlusPlus,
    log_likelihood,
    nelbo,
)
from sciffusion.noise import Noise
from sciffusion.objective import Likelihood, MinSNR, Objective, Weight
from sciffusion.oracle_jump import Sequences
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import DDIM, Heun, Langevin, Multistep, Restart, Sampler
from sciffusion.samplers.adaptive import Adaptive
from sciffusion.samplers.parallel import Parallel
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value, cat, take
from tests.core.cases import mixture, packed, padded, points, randn
from tests.core.elsewhere import Far, far, somewhere_else

FLOW, SEEDS = RectifiedFlow(), [5, 3, 8, 1]
TIMES = torch.stack([torch.linspace(1, 0, 4).double() ** (1 + i / 9) for i in range(4)])


class Net(nn.Module):
    """A linear map of the field, point by point, that knows the log-SNR."""

    def __init__(self, place: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(place(0.3 * randn(3, 3, seed=7)))

    def forward(
        self,
        x: Tensor | State,
        level: Tensor | dict[str, Tensor],
        cond: Condition,
        previous: Value | None,
    ) -> Tensor | dict[str, Tensor]:
        if isinstance(x, Tensor):
            assert isinstance(level, Tensor)
            return x @ self.weight * level.sigmoid()[:, None]
        assert isinstance(level, dict)
        gain = x.layout("pos").expand(level["pos"], x["pos"]).sigmoid()
        out = {"pos": x["pos"] @ self.weight * gain}
        if "kind" in x:
            out["kind"] = x["kind"] + x["pos"].sum(-1, keepdim=True)
        return out


def case(kind: str, place: Callable[[Tensor], Tensor], *, classes: bool) -> tuple[Denoiser, Value]:
    """A denoiser and clean data: a plain tensor, or a cloud, with classes or without, padded or packed."""
    if kind == "plain":
        space = Euclidean(torch.tensor([0.5, 1.0, 2.0]).double())
        return Preconditioned(Net(place), Gaussian(FLOW, space), sigma_data=0.8), place(randn(4, 3))
    layout: Layout
    if kind == "padded":
        pos, masked = padded(points((3, 2, 1, 2)))
        layout = Masked(place(masked.mask))
    else:
        pos, rows = packed(points((3, 2, 1, 2)))
        layout = Packed(place(rows.index), rows.size)
    fields = {"pos": place(pos)}
    processes: dict[str, Gaussian | Jump] = {"pos": Gaussian(FLOW, ZeroCoM())}
    if classes:
        processes["kind"] = Jump(FLOW, Categorical(3))
        fields["kind"] = place(torch.ones_like(pos[..., 0], dtype=torch.long))
    net = Preconditioned(Net(place), Joint(processes), sigma_data={"pos": 1.0})
    return net, State(fields, layout)


Task = Callable[[Denoiser, Value], Value]


def sampled(sampler: Sampler, *, brownian: bool = False) -> Task:
    def run(denoiser: Denoiser, x: Value) -> Value:
        noise = Noise(SEEDS, brownian=brownian)
        return sampler(denoiser, denoiser.process.prior(x, noise), noise).x

    return run


def at_once(denoiser: Denoiser, x: Value) -> Value:
    start = denoiser.process.prior(x, Noise(SEEDS))
    return Parallel(Sampler(DDIM(1.0), 3))(denoiser, start, SEEDS).x


def rearranged(denoiser: Denoiser, x: Value) -> Value:
    return cat([take(x, torch.tensor([2, 0, 2])), x])


def loss(weight: Weight | None, again: float = 0.0) -> Task:
    def run(denoiser: Denoiser, x: Value) -> Value:
        objective = Objective(denoiser.process, weight=weight, self_condition=again)
        out = objective(denoiser, x, noise=Noise(SEEDS)).per_sample
        out.sum().backward()
        return out

    return run


def adaptive(denoiser: Denoiser, x: Value) -> Value:
    start = denoiser.process.prior(x, Noise(SEEDS))
    return Adaptive(0.1, 0.1, low=-1.0, high=1.0)(denoiser, start).x


def bounded(denoiser: Denoiser, x: Value) -> Value:
    return nelbo(denoiser, x, SEEDS, draws=1)


def measured(way: Divergence) -> Task:
    def run(denoiser: Denoiser, x: Value) -> Value:
        tol, low, high = 0.1, -0.5, 0.5
        return log_likelihood(
            denoiser, x, divergence=way, seed=SEEDS, rtol=tol, atol=tol, low=low, high=high
        )

    return run


MIXED: dict[str, Task] = {
    "churned": sampled(Sampler(Heun(4.0), 3)),
    "with a history": sampled(Sampler(Multistep(2, 1.0), 3)),
    "corrected": sampled(Sampler(Langevin(), 3, start=0.9)),
    "restarted": sampled(Sampler(DDIM(), 3, restarts=(Restart(0.3, 0.7, 1),))),
    "on grids of their own": sampled(Sampler(Multistep(2, 1.0), 3, Times(TIMES)), brownian=True),
    "at once": at_once,
    "rearranged": rearranged,
    "loss": loss(None),
    "weighted loss": loss(MinSNR(), 1.0),
    "likelihood's loss": loss(Likelihood()),
}
GAUSSIAN: dict[str, Task] = {
    "adaptive": adaptive,
    "bounded": bounded,
    "measured": measured(Exact()),
    "estimated": measured(Hutchinson(2)),
    "sketched": measured(HutchinsonPlusPlus(3)),
}


@pytest.mark.parametrize("kind", ["plain", "padded", "packed"])
@pytest.mark.parametrize("task", [*MIXED, *GAUSSIAN])
def test_what_is_done_elsewhere_is_what_is_done_here(kind: str, task: str) -> None:
    run = {**MIXED, **GAUSSIAN}[task]
    near = run(*case(kind, lambda x: x, classes=task in MIXED))
    with somewhere_else():
        away = run(*case(kind, far, classes=task in MIXED))
        here = fields(near)
        for name, x in fields(away).items():
            assert isinstance(x, Far), name
            both = (
                x.near.detach().double().nan_to_num(),
                here[name].detach().double().nan_to_num(),
            )
            assert torch.allclose(*both, rtol=0, atol=1e-12), name


def test_exact_denoisers_come_to_where_their_data_lie() -> None:
    jump, classes = Jump(FLOW, Categorical(3)), torch.tensor([[0, 1], [2, 0]])
    table = torch.full((3, 3), 1 / 9).double()
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    pos, masked = padded(points((3, 1)))
    cov = torch.diag(torch.tensor([0.3, 1.2])).double()
    gauss = oracle.Gaussian(torch.ones(2), cov, Gaussian(FLOW))
    exact: list[tuple[Denoiser, Tensor]] = [
        (mixture(), randn(2, 2)),
        (gauss, randn(2, 2)),
        (oracle.Categorical(torch.tensor([0.5, 0.3, 0.2]), jump), classes),
        (Sequences(table, jump), classes),
    ]
    cloud = oracle.PointCloud(1.3, Joint({"pos": Gaussian(FLOW, ZeroCoM())}), "pos")
    with somewhere_else():
        for denoiser, x in exact:
            here, away = denoiser(x, t).x0, denoiser(far(x), t).x0
            assert isinstance(away, Far) and torch.allclose(away.near, fields(here)["x"])
        x = randn(2, 2)
        there = gauss.flow(far(x), 0.9, 0.1)
        assert isinstance(there, Far) and torch.allclose(there.near, gauss.flow(x, 0.9, 0.1))
        assert isinstance(mixture().log_prob(far(x), 0.5), Far)
        assert isinstance(Sequences(table, jump).log_prob(far(classes)), Far)
        state = State({"pos": far(pos)}, Masked(far(masked.mask)))
        assert isinstance(fields(cloud(state, t).x0)["pos"], Far)


def fields(x: Value) -> dict[str, Tensor]:
    return {"x": x} if isinstance(x, Tensor) else dict(x)


def test_a_mixture_of_devices_is_noticed() -> None:
    with somewhere_else():
        x, y = far(torch.ones(3)), torch.ones(3)
        assert x.device.type == "meta" and torch.zeros(2, device=x.device).device == x.device
        for mix in (lambda: x + y, lambda: torch.stack([x, y]), lambda: y[far(torch.tensor([0]))]):
            with pytest.raises(RuntimeError, match="two devices"):
                mix()
        assert isinstance(2 * x[torch.tensor([0])] + torch.tensor(1.0), Far)
        assert x.tolist() == [1.0, 1.0, 1.0] and float(x[0]) == 1.0
        assert not isinstance(x.cpu(), Far) and isinstance(y.to(x.device), Far)
