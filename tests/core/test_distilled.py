"""Guidance distillation: its aim is the guided prediction, and a student reaches it in one call."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Preconditioned, Prediction
from sciffusion.guidance import CFG, Embedded
from sciffusion.networks import GuidanceScale, NoiseLevel
from sciffusion.noise import Noise
from sciffusion.objective import DistilledGuidance, Likelihood, LogitNormal, MinSNR, Objective
from sciffusion.process import Gaussian, Jump
from sciffusion.samplers import DDIM, Sampler
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Categorical
from sciffusion.state import Value

from .guided import tensor

PROCESS = Gaussian(RectifiedFlow())
NULL = {"label": torch.tensor(2)}
MEANS = (-1.5, 1.5)


class Teacher(Denoiser):
    """The exact denoiser of two classes on a line, each a normal law; the label 2 means any. Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.process, self.calls = PROCESS, 0
        self.mean, self.variance = torch.tensor([*MEANS, 0.0]), torch.tensor([0.5, 0.5, 2.75])

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.calls += 1
        x, label = tensor(x_t), cond["label"].expand(len(tensor(x_t)))
        m, v = self.mean[label, None], self.variance[label, None]
        alpha, sigma = (c.to(x).expand(len(x))[:, None] for c in PROCESS.schedule(t))
        x0 = m + alpha * v / (alpha**2 * v + sigma**2) * (x - alpha * m)
        return Prediction(x0, x_t, t, PROCESS)


class Told(Denoiser):
    """Guides the teacher by the scale that it is told: the perfect student. Counts its calls."""

    def __init__(self, teacher: Denoiser, factor: float = 1.0) -> None:
        super().__init__()
        self.teacher, self.factor, self.process, self.calls = teacher, factor, PROCESS, 0
        self.told: list[Tensor] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(cond, Mapping)
        self.calls += 1
        self.told.append(cond["guidance"])
        label, w = {"label": cond["label"]}, self.factor * cond["guidance"]
        return CFG(self.teacher, label, NULL, w)(x_t, t)


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.level, self.scale = NoiseLevel(64, fourier=16), GuidanceScale(64)
        self.label, self.first = nn.Embedding(3, 64), nn.Linear(1, 64)
        self.middle, self.last = nn.Linear(64, 64), nn.Linear(64, 1)

    def forward(self, x: Tensor, log_snr: Tensor, cond: Condition, previous: None) -> Tensor:
        h = (
            self.first(x)
            + self.level(log_snr)
            + self.scale(cond["guidance"])
            + self.label(cond["label"])
        )
        h = nn.functional.silu(h)
        return self.last(nn.functional.silu(self.middle(h)))


def data(n: int) -> tuple[Tensor, dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (n,), generator=g)
    x0 = torch.tensor(MEANS)[label, None] + 0.5**0.5 * torch.randn(n, 1, generator=g)
    return x0, {"label": label}


OBJECTIVE = Objective(PROCESS, times=LogitNormal(), null=NULL)


def test_its_aim_is_the_guided_teacher_at_scales_spread_evenly_between_the_ends() -> None:
    teacher, (x0, cond) = Teacher(), data(2000)
    learn = DistilledGuidance(OBJECTIVE, teacher, low=1.0, high=5.0)
    perfect, wrong = Told(teacher), Told(teacher, 0.9)
    losses = [learn(student, x0, cond, noise=Noise(1)) for student in (perfect, wrong)]
    assert losses[0].per_sample.shape == (2000,)
    assert float(losses[0].mean) < 1e-10 < 1e-3 < float(losses[1].mean)
    (w,) = perfect.told
    assert w.min() > 1 and w.max() < 5
    assert w.double().mean() == pytest.approx(3.0, abs=0.1)
    assert w.double().var() == pytest.approx(16 / 12, rel=0.1)
    again = learn(wrong, x0, cond, noise=Noise(1))
    assert torch.equal(again.per_sample, losses[1].per_sample)


def test_its_weight_is_that_of_the_objective_and_the_teacher_gets_no_gradient() -> None:
    teacher, (x0, cond) = Teacher(), data(8)
    teacher.mean = nn.Parameter(teacher.mean)
    weighted = replace(OBJECTIVE, weight=MinSNR())
    bias = nn.Parameter(torch.zeros(()))

    class Offset(Denoiser):
        process = PROCESS

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            return Prediction(tensor(x_t) * 0 + bias, x_t, t, PROCESS)

    learn = DistilledGuidance(weighted, teacher)
    loss = learn(Offset(), x0, cond, noise=Noise(2))
    noise = Noise(2)
    noised = weighted.noised(x0, cond, noise)
    w = learn.low + (learn.high - learn.low) * noise.scalars(8)
    aim = tensor(CFG(teacher, cond, NULL, w)(noised.x_t, noised.t).x0)
    assert torch.equal(loss.t, noised.t)
    want = MinSNR()(PROCESS.schedule, noised.t) * aim[:, 0].square()
    torch.testing.assert_close(loss.per_sample, want.to(loss.per_sample), check_dtype=False)
    loss.mean.backward()
    assert bias.grad is not None and bias.grad.isfinite()
    assert teacher.mean.grad is None


def test_a_student_makes_in_one_call_what_guidance_makes_in_two() -> None:
    torch.manual_seed(0)
    teacher, student = Teacher(), Preconditioned(Student(), PROCESS, sigma_data=1.66)
    learn = DistilledGuidance(OBJECTIVE, teacher, low=1.0, high=4.0)
    x0, cond = data(4096)
    steps, optimizer = 300, torch.optim.Adam(student.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.arange(128) + 128 * (step % 32)
        loss = learn(student, x0[rows], {"label": cond["label"][rows]}, noise=Noise(step)).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    start, few = (
        torch.randn(64, 1, generator=torch.Generator().manual_seed(1)),
        {"label": cond["label"][:64]},
    )
    sampler, ends, errors = Sampler(DDIM(), 8), [], []
    for w in (1.5, 2.5, 3.5):
        teacher.calls = 0
        guided = tensor(sampler(CFG(teacher, few, NULL, w), start).x)
        assert teacher.calls == 16
        with torch.no_grad():
            solution = sampler(Embedded(student, few, w), start)
        assert solution.nfe == 8
        errors.append(float((tensor(solution.x) - guided).square().mean().sqrt()))
        ends.append(guided)
    effect = (ends[2] - ends[0]).square().mean().sqrt()  # as much as guidance matters
    assert max(errors) < 0.15 * float(effect)


def test_a_scale_may_be_a_number_or_one_for_each_sample_or_depend_on_the_level() -> None:
    perfect, (x, cond) = Told(Teacher()), data(3)
    t = torch.tensor(0.4, dtype=torch.float64)
    for scale in (2.0, torch.tensor([2.0, 2.0, 2.0]), lambda level: 2.0 + 0 * level):
        got = tensor(Embedded(perfect, cond, scale)(x, t).x0)
        torch.testing.assert_close(got, tensor(CFG(Teacher(), cond, NULL, 2.0)(x, t).x0))
    with pytest.raises(ValueError, match=r"one for each of 3 samples, got \(2,\)"):
        Embedded(perfect, cond, torch.ones(2))(x, t)
    with pytest.raises(ValueError, match="cond is bound already"):
        Embedded(perfect, cond, 2.0)(x, t, cond)


def test_what_does_not_fit_is_refused_by_name() -> None:
    teacher = Teacher()
    with pytest.raises(ValueError, match="objective needs null, and neither drop nor"):
        DistilledGuidance(Objective(PROCESS), teacher)
    with pytest.raises(ValueError, match="objective needs null, and neither drop nor"):
        DistilledGuidance(Objective(PROCESS, null=NULL, drop=0.1), teacher)
    with pytest.raises(ValueError, match="is an integrand"):
        DistilledGuidance(Objective(PROCESS, null=NULL, weight=Likelihood()), teacher)
    with pytest.raises(ValueError, match="0 <= low < high, got 3.0 and 2.0"):
        DistilledGuidance(OBJECTIVE, teacher, 3.0, 2.0)
    jumps = Objective(Jump(RectifiedFlow(), Categorical(2)), null=NULL)
    with pytest.raises(ValueError, match="of x0 holds classes"):
        DistilledGuidance(jumps, teacher)(teacher, torch.zeros(2, 3).long(), {}, noise=Noise(0))
    with pytest.raises(ValueError, match="cond must be a mapping, .* got Tensor"):
        Embedded(teacher, torch.zeros(2), 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"is added, got \['guidance'\]"):
        Embedded(teacher, {"guidance": torch.ones(2)}, 2.0)
