"""Every guidance keeps the contract: on tensors and states of several fields, padded and packed, whatever the scale."""

from __future__ import annotations

from typing import final

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance import CFG
from sciffusion.noise import Noise
from sciffusion.process import Joint
from sciffusion.samplers import DDIM, Heun, Multistep, Sampler
from sciffusion.state import State, Value, batch_of, take
from sciffusion.testing import check_guidance, split
from tests.core.guided import GUIDANCES, TILTS, Case, network, points_network

NULL = torch.tensor(-1.0, dtype=torch.float64)
CONDS = torch.tensor([0.5, 2.0, -0.7, 1.1], dtype=torch.float64)


def models(kind: str) -> tuple[Denoiser, Value, Tensor]:
    denoiser, x0 = network() if kind == "tensor" else points_network(kind)
    return denoiser, x0, CONDS[: batch_of(x0)]


VARIED = {"CFG batched", "all changes", "Energy smoothed", "MeanEnergy moving", "Classifier"}
"""Together they run every line that looks at a layout."""


def laid_out(cases: list[Case]) -> list[tuple[Case, str]]:
    """Every case on padded fields, those that differ on tensors and packed fields too."""
    kinds = {"padded": cases, "tensor": cases, "packed": [c for c in cases if c.name in VARIED]}
    return [(case, kind) for kind, some in kinds.items() for case in some]


@pytest.mark.parametrize(("case", "kind"), laid_out(GUIDANCES), ids=str)
def test_a_guidance_keeps_its_contract_in_every_layout(case: Case, kind: str) -> None:
    denoiser, x0, cond = models(kind)
    check_guidance(
        lambda w: case.build(denoiser, cond, NULL, w),
        denoiser.given(cond),
        denoiser.given(NULL),
        x0,
        linear=case.linear,
        ends=case.ends,
        moves=case.moves,
    )


@pytest.mark.parametrize(("case", "kind"), laid_out(TILTS), ids=str)
def test_a_tilt_keeps_its_contract_in_every_layout(case: Case, kind: str) -> None:
    denoiser, x0, cond = models(kind)
    check_guidance(
        lambda w: case.build(denoiser, cond, NULL, w),
        case.build(denoiser, cond, NULL, 1.0),
        denoiser.given(cond),
        x0,
        linear=case.linear,
        moves=case.moves,
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("case", [*GUIDANCES, *TILTS], ids=str)
def test_the_batch_is_its_samples_one_by_one(case: Case, scale: float) -> None:
    kind = "tensor" if scale < 2 else "packed"
    denoiser, x0, cond = models(kind)
    t = torch.tensor(0.6, dtype=torch.float64)
    x_t = denoiser.process.perturb(x0, t, Noise(1)).x_t
    with torch.no_grad():
        whole = case.build(denoiser, cond, NULL, scale)(x_t, t)
        for rows in ([0], [1, 2]):
            index = torch.tensor(rows)
            part = case.build(denoiser, cond[index], NULL, scale)(take(x_t, index), t)
            for got, all_of_them in ((part.x0, whole.x0), (part.x_t, whole.x_t)):
                want = take(all_of_them, index)
                for k in denoiser.process.fields(want):
                    for a, b in zip(split(got, k), split(want, k), strict=True):
                        assert torch.allclose(a.double(), b.double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [*GUIDANCES, *TILTS], ids=str)
def test_every_guidance_goes_with_every_kind_of_solver(case: Case) -> None:
    denoiser, x0, cond = models("packed")
    start = denoiser.process.prior(x0, Noise(0))
    guided = case.build(denoiser, cond, NULL, 0.5)
    for solver in (DDIM(), Heun(), Multistep(2, 0.5)):
        end = Sampler(solver, 3)(guided, start).x
        for k, v in denoiser.process.fields(end).items():
            assert torch.cat(split(end, k)).isfinite().all() and not v.requires_grad
        assert isinstance(end, State) == isinstance(x0, State)


@final
class Faulty(Denoiser):
    """A guidance with one fault."""

    def __init__(self, inner: Denoiser, fault: str) -> None:
        super().__init__()
        self.inner, self.fault = inner, fault
        other = Joint({k: inner.process.field(k) for k in ("pos", "x", "k")})
        self.process = other if fault == "process" else inner.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        out = self.inner(x_t, t, cond, None if self.fault == "previous" else previous)
        x0, at = out.x0, out.x_t
        assert isinstance(x0, State) and isinstance(at, State)
        match self.fault:
            case "moves":
                at = at.replace({"x": at["x"] + 0.1})
            case "history":
                x0 = x0.replace({"x": x0["x"].requires_grad_()})
            case "padding":
                x0 = x0.replace({"x": x0["x"] + 0 * at["x"].mean()})
            case "time":
                return Prediction(x0, at, t / 2, self.process)
        return Prediction(x0, at, t, self.process)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("previous", "a previous prediction handed on"),
        ("moves", "the noised value is handed on"),
        ("history", "no history under no_grad"),
        ("padding", "NaN outside the samples changes nothing"),
        ("time", "at the time that was asked"),
        ("process", "denoiser's own process"),
    ],
)
def test_a_guidance_with_one_fault_is_found(fault: str, law: str) -> None:
    denoiser, x0, cond = models("padded")
    cfg = {w: CFG(denoiser, cond, NULL, w) for w in (0.0, 0.5, 1.0, 2.0, 7.0)}
    with pytest.raises(AssertionError, match=law):
        check_guidance(
            lambda w: Faulty(cfg[w], fault), denoiser.given(cond), denoiser.given(NULL), x0
        )
