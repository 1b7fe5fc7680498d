"""A network trained under one schedule samples the same under any other with the same noise levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Preconditioned
from sciffusion.grid import Times
from sciffusion.process import Gaussian, Joint
from sciffusion.samplers import DDIM, Heun, Multistep, Sampler
from sciffusion.schedule import Cosine, Learned, RectifiedFlow, Schedule
from sciffusion.solver import Solver
from sciffusion.state import State, Value
from tests.core.cases import SCHEDULES, name, padded, points, randn

LOW, HIGH, STEPS = -4.0, 5.0, 6
"""Log-SNRs of the start and of the last evaluation: all schedules reach them."""


class Net(nn.Module):
    """Some smooth function of what a network sees, for tensors and states."""

    def forward(
        self, x: Value, level: Tensor | dict[str, Tensor], cond: Condition, previous: Value | None
    ) -> Value | dict[str, Tensor]:
        if isinstance(x, Tensor):
            assert isinstance(level, Tensor)
            return torch.sin(2 * x + 0.3 * level[:, None])
        assert not isinstance(level, Tensor)
        return {k: torch.sin(2 * v + 0.3 * x.layout(k).expand(level[k], v)) for k, v in x.items()}


def run(trained: Preconditioned, process: Gaussian | Joint, solver: Solver, start: Value) -> Value:
    """Samples under another process, on that process's own times for the same noise levels."""
    clock = process.clock
    levels = torch.linspace(LOW, HIGH, STEPS, dtype=torch.float64)
    times = torch.cat([clock.time(levels).detach(), torch.zeros(1, dtype=torch.float64)])
    grid, first = Times(times), float(times[0])
    # what is the same under all schedules is x / |(alpha, sigma)|
    out = {
        k: v * float(torch.hypot(*process.field(k).clock(first)).detach())
        for k, v in process.fields(start).items()
    }
    x = process.rebuild(start, out)
    return Sampler(solver, STEPS, grid, first)(trained.under(process), x).x


@pytest.mark.parametrize("solver", [DDIM(), Heun(), Multistep(2)], ids=name)
@pytest.mark.parametrize("schedule", [*SCHEDULES, Learned(width=4)], ids=name)
def test_samples_do_not_change_with_the_schedule(schedule: Schedule, solver: Solver) -> None:
    """Equal to those of one schedule, for all, hence for all pairs: trained under one, sampled under another."""
    start = randn(5, 3)
    for trained_under in (Cosine(), schedule):
        trained = Preconditioned(Net(), Gaussian(trained_under), sigma_data=0.7)
        ends = [run(trained, Gaussian(s), solver, start) for s in (RectifiedFlow(), schedule)]
        assert isinstance(ends[0], Tensor) and isinstance(ends[1], Tensor)
        assert float(ends[0].std()) > 0.1
        assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_states_do_not_change_with_the_schedule_either(schedule: Schedule) -> None:
    (a, layout), (b, _) = padded(points()), padded(points(features=(2,)))
    start = State({"a": a, "b": b}, layout)
    pairs = []
    for s in (RectifiedFlow(), schedule):
        process = Joint({"a": Gaussian(s), "b": Gaussian(s.shift(1.5))})
        trained = Preconditioned(Net(), process, sigma_data={"a": 0.7, "b": 0.4})
        end = run(trained, process, Multistep(2), start)
        pairs.append([layout.clean(v) for v in process.fields(end).values()])
    for one, other in zip(*pairs, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-8)
