"""What the tests of guidance share: denoisers with conditions, exact ones and networks, and counters of calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Preconditioned, Prediction
from sciffusion.guidance import (
    CFG,
    Autoguidance,
    CFGPlusPlus,
    CFGZeroStar,
    Classifier,
    Composed,
    Embedded,
    Energy,
    Interval,
    MeanEnergy,
    Projected,
    Rescaled,
    Smoothing,
)
from sciffusion.layout import Layout
from sciffusion.oracle import Mixture
from sciffusion.process import Gaussian, Joint, Jump, Process
from sciffusion.schedule import VP, Cosine, RectifiedFlow, Schedule
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value
from tests.core.cases import mixture, packed, padded, points, randn, rng

NONE = torch.tensor(-1)
"""The label that means any."""


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


class Labelled(Denoiser):
    """The exact denoiser of a mixture whose label is the mode; the label -1 means any. Counts its calls."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process, self.calls = process, 0
        self.whole = mixture(process)
        w = torch.ones(1, dtype=torch.float64)
        self.modes = [
            Mixture(w, m[None], c[None], process)
            for m, c in zip(self.whole.means, self.whole.covs, strict=True)
        ]

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.calls += 1
        labels = torch.as_tensor(cond).expand(tensor(x_t).shape[0])
        t = torch.as_tensor(t).expand(tensor(x_t).shape[0])
        rows = []
        for i, label in enumerate(labels.tolist()):
            inner = self.whole if label < 0 else self.modes[label]
            rows.append(tensor(inner(tensor(x_t)[i : i + 1], t[i : i + 1]).x0))
        return Prediction(torch.cat(rows), x_t, t, self.process)

    def log_prob(self, label: int, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """log p(label | x_t), exactly."""
        alpha, sigma = (c.reshape(-1, 1) for c in schedule(t))
        noise = sigma[..., None, None] ** 2 * torch.eye(2, dtype=torch.float64)
        covs = alpha[..., None, None] ** 2 * self.whole.covs + noise
        modes = torch.distributions.MultivariateNormal(alpha[..., None] * self.whole.means, covs)
        return (modes.log_prob(x_t[:, None]) + self.whole.weights.log()).log_softmax(1)[:, label]


class Dense4(nn.Module):
    """A small network on plain tensors (B, 4) that sees everything it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (nn.Parameter(randn(*s)) for s in ((10, 16), (16, 4)))

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor, previous: Tensor | None) -> Tensor:
        before = torch.zeros_like(x) if previous is None else previous
        cond = torch.as_tensor(cond).to(x).expand(len(x))
        seen = torch.cat([x, before, log_snr[:, None].to(x) / 9, cond[:, None]], 1)
        return (seen @ self.first).tanh() @ self.last


class Points(nn.Module):
    """A small network on the fields pos, x and k, in any layout, that sees everything it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(randn(18, 16)), nn.Parameter(randn(32, 8))

    def forward(
        self, x: State, log_snr: dict[str, Tensor], cond: Tensor, previous: State | None
    ) -> dict[str, Tensor]:
        layout = x.layout("pos")
        fields = torch.cat([layout.clean(x[k]) for k in ("pos", "x", "k")], -1)
        before = torch.zeros_like(fields)
        if previous is not None:
            before = torch.cat([layout.clean(previous[k]) for k in ("pos", "x", "k")], -1)
        one = fields[..., :1]
        level = layout.expand(log_snr["pos"].to(one) / 9, one).expand_as(one)
        cond = torch.as_tensor(cond).to(one).expand(x.batch)
        seen = torch.cat([fields, before, level, layout.expand(cond, one).expand_as(one)], -1)
        hidden = (seen @ self.first).tanh()
        mean = layout.pool(hidden) / layout.points(hidden)[:, None]
        both = torch.cat([hidden, layout.spread(mean, hidden).expand_as(hidden)], -1)
        out = both @ self.last
        return {"pos": out[..., :3], "x": out[..., 3:5], "k": out[..., 5:]}


def network() -> tuple[Denoiser, Tensor]:
    """A conditional network on plain tensors, with clean samples."""
    process = Gaussian(VP())
    return Preconditioned(Dense4(), process, sigma_data=0.8, self_condition=True), randn(3, 4)


def points_network(kind: str) -> tuple[Denoiser, State]:
    """A conditional network on three fields, one of them of classes, with clean samples in a layout."""
    schedule = RectifiedFlow()
    process = Joint(
        {
            "pos": Gaussian(schedule, ZeroCoM()),
            "x": Gaussian(Cosine(), Euclidean(0.7)),
            "k": Jump(schedule, Categorical(3)),
        }
    )
    denoiser = Preconditioned(
        Points(), process, sigma_data={"pos": 1.0, "x": 0.5}, self_condition=True
    )
    lay = {"padded": padded, "packed": packed}[kind]
    pos, layout = lay(points())
    x, _ = lay(points(features=(2,)))
    classes = [torch.randint(0, 3, (len(s),), generator=rng(9)) for s in points()]
    k, _ = lay(classes)
    return denoiser, State({"pos": pos, "x": x, "k": k}, layout)


class Told(Denoiser):
    """Guides a denoiser by the scale that is an entry of the condition, as a network may that has learnt to."""

    def __init__(self, denoiser: Denoiser, null: Tensor) -> None:
        super().__init__()
        self.denoiser, self.null, self.process = denoiser, null, denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        inner = CFG(self.denoiser, cond["label"], self.null, cond["guidance"].double())
        return inner(x_t, t, None, previous)


def quadratic_of_floats(x: Value) -> Tensor:
    """The energy of the fields that noised values hold as numbers."""
    if not isinstance(x, State):
        return quadratic(x)
    return quadratic(x.replace({"k": torch.zeros(*x["k"].shape, 3)}))


def quadratic(x0: Value) -> Tensor:
    """An energy of every field, one number per sample."""
    if not isinstance(x0, State):
        return ((x0 - 0.3) ** 2).flatten(1).sum(1)
    layout: Layout = x0.layout("pos")
    first = layout.reduce(x0["pos"] ** 2) * 0.2 + layout.reduce((x0["x"] - 0.3) ** 2)
    return first + layout.reduce(x0["k"][..., 0])


@dataclass(frozen=True)
class Case:
    """A guidance for the contract: how it is built from (denoiser, cond, null, scale), and which laws it keeps."""

    name: str
    build: Callable[[Denoiser, Tensor, Tensor, float], Denoiser]
    linear: bool = True
    ends: bool = True
    moves: bool = False

    def __str__(self) -> str:
        return self.name


def _as_function(w: float) -> Callable[[Tensor], float]:
    """A scale that no constructor can look at."""
    return lambda log_snr: w


def _each(cond: Tensor, w: float) -> Tensor:
    """The same scale for each sample."""
    return torch.full((len(cond),), w, dtype=torch.float64)


GUIDANCES = [
    Case("CFG", CFG),
    Case("CFG batched", lambda d, c, n, w: CFG(d, c, n, w, batched=True)),
    Case("CFG per sample", lambda d, c, n, w: CFG(d, c, n, _each(c, w))),
    Case("CFG by level", lambda d, c, n, w: CFG(d, c, n, _as_function(w))),
    Case("Embedded", lambda d, c, n, w: Embedded(Told(d, n), {"label": c}, w)),
    Case("Interval", lambda d, c, n, w: Interval(CFG(d, c, n, w))),
    Case("Autoguidance", lambda d, c, n, w: Autoguidance(d.given(c), d.given(n), w)),
    Case("Composed", lambda d, c, n, w: Composed(d, n, [(c, w)])),
    Case("Composed batched", lambda d, c, n, w: Composed(d, n, [(c, w), (n, 0.5)], batched=True)),
    Case("Composed twice", lambda d, c, n, w: Composed(d, n, [(c, w / 2), (c, _each(c, w / 2))])),
    Case("Projected off", lambda d, c, n, w: Projected(CFG(d, c, n, w), 1.0)),
    Case("Projected", lambda d, c, n, w: Projected(CFG(d, c, n, w), 0.3, 1.0), False, False),
    Case("Rescaled off", lambda d, c, n, w: Rescaled(CFG(d, c, n, w), 0.0)),
    Case("Rescaled", lambda d, c, n, w: Rescaled(CFG(d, c, n, w)), False, False),
    Case("CFGZeroStar", lambda d, c, n, w: CFGZeroStar(CFG(d, c, n, w)), False, False),
    Case("CFGPlusPlus", lambda d, c, n, w: CFGPlusPlus(CFG(d, c, n, _as_function(w))), moves=True),
    Case(
        "all changes",
        lambda d, c, n, w: Interval(
            CFGPlusPlus(Rescaled(Projected(CFGZeroStar(CFG(d, c, n, _each(c, w), batched=True)))))
        ),
        linear=False,
        ends=False,
        moves=True,
    ),
]
"""Guidances between a conditional and an unconditional prediction."""

TILTS: list[Case] = [
    Case("Energy", lambda d, c, n, w: Energy(d.given(c), quadratic, w)),
    Case("Energy per sample", lambda d, c, n, w: Energy(d.given(c), quadratic, _each(c, w))),
    Case(
        "Energy smoothed",
        lambda d, c, n, w: Energy(d.given(c), quadratic, w, smoothing=Smoothing(3, 0.6)),
        linear=False,
    ),
    Case("MeanEnergy", lambda d, c, n, w: MeanEnergy(d.given(c), quadratic, w, sigma_data=0.8)),
    Case(
        "MeanEnergy moving",
        lambda d, c, n, w: MeanEnergy(
            d.given(c), quadratic, w, sigma_data=0.8, iterations=3, keep_noise=True
        ),
        linear=False,
        moves=True,
    ),
    Case(
        "Classifier",
        lambda d, c, n, w: Classifier(d.given(c), lambda x, t: quadratic_of_floats(x).cos(), w),
    ),
]
"""Guidances of one denoiser: at scale 0 it is left as it is."""
