"""Denoisers that share the noise levels: who is called, what is said at a boundary, and in batches across it."""

import pytest
import torch

from sciffusion.denoiser import Preconditioned
from sciffusion.experts import TimeExperts
from sciffusion.guidance import CFG, CFGPlusPlus
from sciffusion.process import Gaussian
from sciffusion.samplers import DDIM, Sampler
from sciffusion.schedule import VP, RectifiedFlow, Schedule
from sciffusion.testing import check_denoiser

from .cases import name, randn
from .guided import NONE, Labelled, points_network, tensor


def experts(schedule: Schedule, n: int = 2) -> list[Labelled]:
    """Exact denoisers of shifted mixtures, which can be told apart."""
    process = Gaussian(schedule)
    found = [Labelled(process) for _ in range(n)]
    for i, expert in enumerate(found):
        for mode in (expert.whole, *expert.modes):
            mode.means = mode.means + i
    return found


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VP()], ids=name)
def test_the_expert_of_the_noise_level_acts_alone_and_the_noisier_one_at_the_boundary(
    schedule: Schedule,
) -> None:
    noisy, clean = experts(schedule)
    t0 = torch.tensor(0.875, dtype=torch.float64)
    both, x, cond = TimeExperts([noisy, clean], [float(schedule.log_snr(t0))]), randn(2, 2), 1
    for t, expert in (
        (t0, noisy),
        (torch.nextafter(t0, t0 + 1), noisy),
        (torch.tensor(1.0), noisy),
        (torch.nextafter(t0, t0 - 1) - 1e-12, clean),
        (torch.tensor(0.1), clean),
    ):
        noisy.calls = clean.calls = 0
        got = tensor(both(x, t, torch.tensor(cond)).x0)
        assert expert.calls == 1 == noisy.calls + clean.calls
        assert torch.equal(got, tensor(expert(x, t, torch.tensor(cond)).x0))


def test_samples_on_both_sides_get_what_they_get_alone_and_nobody_else_is_called() -> None:
    schedule = RectifiedFlow()
    three = experts(schedule, 3)
    levels = [float(schedule.log_snr(t)) for t in (0.8, 0.3)]
    all_of_them, cond = TimeExperts(three, levels), torch.tensor([0, 1, 2, 0])
    x, t = randn(4, 2), torch.tensor([0.9, 0.2, 0.81, 0.1], dtype=torch.float64)
    got = tensor(all_of_them(x, t, cond).x0)
    assert [e.calls for e in three] == [1, 0, 1]
    each = [all_of_them(x[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(4)]
    assert torch.equal(got, torch.cat([tensor(p.x0) for p in each]))


def test_a_run_calls_every_expert_at_its_own_steps_only() -> None:
    schedule = RectifiedFlow()
    noisy, clean = experts(schedule)
    both = TimeExperts([noisy, clean], [float(schedule.log_snr(0.6))])
    sampler = Sampler(DDIM(), 10)
    starts = [w.start for w in sampler.windows(both.process)]
    sampler(both.given(torch.tensor(1)), randn(2, 2))
    assert noisy.calls == sum(t >= 0.6 for t in starts)
    assert clean.calls == sum(t < 0.6 for t in starts)


def test_experts_have_scales_of_their_own_one_by_one_or_by_level() -> None:
    schedule = RectifiedFlow()
    boundary, cond = -0.5, torch.tensor([0, 1, 2])
    noisy, clean = experts(schedule)
    each = TimeExperts([CFG(noisy, cond, NONE, 4.0), CFG(clean, cond, NONE, 1.0)], [boundary])
    whole = CFG(
        TimeExperts([noisy, clean], [boundary]),
        cond,
        NONE,
        lambda level: torch.where(level <= boundary, 4.0, 1.0),
    )
    x = randn(3, 2)
    for t, calls in ((0.9, 2), (0.2, 1)):
        noisy.calls = clean.calls = 0
        got = tensor(each(x, torch.tensor(t)).x0)
        assert noisy.calls + clean.calls == calls
        torch.testing.assert_close(got, tensor(whole(x, torch.tensor(t)).x0))
    mixed = torch.tensor([0.9, 0.2, 0.7], dtype=torch.float64)
    torch.testing.assert_close(tensor(each(x, mixed).x0), tensor(whole(x, mixed).x0))


def test_points_that_a_guidance_moved_stay_moved_where_it_acts() -> None:
    noisy, clean = experts(RectifiedFlow())
    cond, x, t = torch.tensor([0, 1]), randn(2, 2), torch.tensor([0.9, 0.2]).double()
    moving = CFGPlusPlus(CFG(noisy, cond, NONE, 0.7))
    got = TimeExperts([moving, clean.given(cond)], [0.0])(x, t)
    want = moving(x, t)
    assert torch.equal(tensor(got.x_t)[0], tensor(want.x_t)[0])
    assert torch.equal(tensor(got.x_t)[1], x[1])
    assert not torch.equal(tensor(got.x_t)[0], x[0])


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_experts_keep_the_contract_of_denoisers_in_every_layout(kind: str) -> None:
    (noisy, x), (clean, _) = points_network(kind), points_network(kind)
    check_denoiser(TimeExperts([noisy, clean], [0.0]), x, torch.arange(x.batch).double())


def test_each_element_may_have_its_own_time() -> None:
    schedule = RectifiedFlow()
    process = Gaussian(schedule)
    nets = [Preconditioned(Rows(i), process, sigma_data=1.0, target="x0") for i in (1.0, 2.0)]
    t = torch.tensor([[0.9, 0.1], [0.1, 0.1]], dtype=torch.float64)
    x0 = tensor(TimeExperts(nets, [0.0])(torch.zeros(2, 2, 3), t).x0)
    assert x0[..., 0].tolist() == [[1.0, 2.0], [2.0, 2.0]]


class Rows(torch.nn.Module):
    """Says one number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, cond: None, previous: None
    ) -> torch.Tensor:
        return torch.full_like(x, self.value)


def test_what_does_not_fit_is_refused_by_name() -> None:
    found = experts(RectifiedFlow(), 3)
    with pytest.raises(ValueError, match="3 experts need 2 boundaries"):
        TimeExperts(found, [0.0])
    with pytest.raises(ValueError, match="boundaries must rise"):
        TimeExperts(found, [1.0, 0.0])
    with pytest.raises(ValueError, match="their clocks differ"):
        TimeExperts([found[0], *experts(VP(), 1)], [0.0])
