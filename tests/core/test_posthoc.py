"""Averages made after training: exact where stored, near the true ones elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciffusion.ema import EMA, Power
from sciffusion.posthoc import Snapshot, blend, posthoc

STEPS = 512
WIDTHS = (0.05, 0.1)


def profile(updates: int, sigma_rel: float, t: np.ndarray) -> np.ndarray:
    gamma = Power(sigma_rel=sigma_rel).gamma
    return np.where(t <= updates, (gamma + 1) / updates * (t / updates) ** gamma, 0.0)


def regular(count: int, steps: int = STEPS) -> list[tuple[int, float]]:
    """The profiles that are stored at so many regular times."""
    return [(steps * (i + 1) // count, s) for i in range(count) for s in WIDTHS]


class Weights(nn.Module):
    """Some numbers that a training moves, and a counter that it sets."""

    counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(20, dtype=torch.float64))
        self.register_buffer("counter", torch.zeros(()))


def path(kind: str) -> Tensor:
    """Weights after each update, (STEPS, 20): a ramp, or a noisy descent from far away."""
    k = torch.arange(1, STEPS + 1, dtype=torch.float64)[:, None]
    if kind == "ramp":
        return k.expand(STEPS, 20)
    steps = torch.randn(STEPS, 20, generator=torch.Generator().manual_seed(0)).double()
    return 5.0 - 4 * torch.exp(-k / 50) + steps.cumsum(0) / STEPS**0.5 + 0.3 * steps


def averaged(
    kind: str, wanted: Sequence[tuple[int, float]]
) -> dict[tuple[int, float], Mapping[str, Tensor]]:
    """The averages of these widths at these times, run along with the training."""
    model = Weights()
    found: dict[tuple[int, float], Mapping[str, Tensor]] = {}
    emas = {s: EMA(model, Power(sigma_rel=s)) for s in {s for _, s in wanted}}
    for k, w in enumerate(path(kind), 1):
        with torch.no_grad():
            model.w.copy_(w)
        model.counter.fill_(k)
        for s, ema in emas.items():
            ema.update(model)
            if (k, s) in wanted:
                found[k, s] = {n: t.clone() for n, t in ema.state_dict().items()}
    return found


def snapshots(found: Mapping[tuple[int, float], Mapping[str, Tensor]]) -> list[Snapshot]:
    return [
        Snapshot(t, s, lambda v=value: v, frozenset(["counter"]))  # type: ignore[misc]
        for (t, s), value in found.items()
    ]


def test_coefficients_are_the_least_squares_of_the_profiles_themselves() -> None:
    """Against a fit on a fine grid, with the same sum; no closed form is used there."""
    t = (np.arange(200_000) + 0.5) / 200_000 * STEPS
    stored, wanted = regular(3), (STEPS, 0.08)
    known = np.stack([profile(*s, t) for s in stored], 1)
    target = profile(*wanted, t)
    # the last coefficient is one minus the others
    rest = known[:, :-1] - known[:, -1:]
    c = np.linalg.lstsq(rest, target - known[:, -1], rcond=None)[0]
    want = np.append(c, 1 - c.sum())
    found = blend(stored, *wanted)
    assert np.allclose(found.coefficients, want, atol=1e-4)
    error = np.linalg.norm(known @ want - target) / np.linalg.norm(target)
    assert found.residual == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("which", [0, 3, 7])
def test_a_stored_profile_at_a_stored_time_comes_back_exactly(which: int) -> None:
    stored = regular(4)
    found = averaged("descent", stored)
    t, s = stored[which]
    assert blend(stored, t, s).residual == 0.0
    made = posthoc(snapshots(found), s, updates=t)
    assert torch.equal(made["w"], found[t, s]["w"])
    assert torch.equal(made["counter"], found[t, s]["counter"])


def test_the_solution_itself_finds_a_stored_profile_too() -> None:
    """Not only the short cut: a width that differs in the last digits."""
    stored = regular(8)
    found = blend(stored, STEPS, 0.1 + 1e-12)
    want = [float(s == (STEPS, 0.1)) for s in stored]
    assert np.allclose(found.coefficients, want, atol=1e-8) and found.residual < 1e-6


@pytest.mark.parametrize("sigma_rel", [0.03, 0.07, 0.15])
def test_the_average_of_a_ramp_has_its_analytic_mean(sigma_rel: float) -> None:
    gamma = Power(sigma_rel=sigma_rel).gamma
    made = posthoc(snapshots(averaged("ramp", regular(16))), sigma_rel)
    assert float(made["w"][0]) == pytest.approx(STEPS * (gamma + 1) / (gamma + 2), rel=2e-3)


@pytest.mark.parametrize(
    "wanted", [(STEPS, 0.03), (STEPS, 0.07), (STEPS, 0.15), (STEPS * 3 // 4, 0.08)]
)
def test_other_averages_come_near_the_ones_run_directly_and_nearer_with_more_snapshots(
    wanted: tuple[int, float],
) -> None:
    counts = (2, 4, 8, 16, 32)
    found = averaged("descent", [wanted, *regular(32)])
    true, errors, residuals = found[wanted]["w"], [], []
    for n in counts:
        stored = regular(n)
        made = posthoc(snapshots({s: found[s] for s in stored}), wanted[1], updates=wanted[0])
        errors.append(float((made["w"] - true).square().mean().sqrt()))
        residuals.append(blend(stored, *wanted).residual)
    last = float((path("descent")[wanted[0] - 1] - true).square().mean().sqrt())
    assert errors[-1] < 0.02 * errors[0] and errors[-1] < 5e-3 * last
    assert all(b < a for a, b in zip(errors, errors[1:], strict=False))
    assert all(b < a for a, b in zip(residuals, residuals[1:], strict=False))


def test_weights_that_never_move_are_kept_whatever_is_asked() -> None:
    """Coefficients sum to one, which least squares alone would not give."""
    constant = {n: torch.full((3,), 7.0) for n in ("w",)}
    for count, sigma_rel in ((1, 0.2), (2, 0.02), (5, 0.12)):
        stored = regular(count)
        made = posthoc([Snapshot(t, s, lambda: constant) for t, s in stored], sigma_rel)
        assert torch.allclose(made["w"], constant["w"])
        assert made["w"].dtype == torch.float32


def test_buffers_are_those_of_the_nearest_snapshot_and_are_not_combined() -> None:
    found = averaged("descent", regular(4))
    made = posthoc(snapshots(found), 0.07, updates=STEPS - 10)
    assert float(made["counter"]) == STEPS


def test_the_residual_tells_what_is_out_of_reach() -> None:
    stored = regular(8)
    assert blend(stored, STEPS, 0.075).residual < 0.02
    assert blend(stored, STEPS, 0.01).residual > 0.3


def test_snapshots_are_read_one_at_a_time_and_only_those_that_count() -> None:
    read: list[int] = []

    def value(t: int) -> Mapping[str, Tensor]:
        read.append(t)
        return {"w": torch.ones(1)}

    kept = [Snapshot(t, 0.1, lambda t=t: value(t)) for t in (1, 2, 3)]  # type: ignore[misc]
    posthoc(kept, 0.1, updates=2)
    assert set(read) == {2}


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no average"):
        posthoc([], 0.1)
    with pytest.raises(ValueError, match="between 1 and 512, the last snapshot; got 513"):
        blend(regular(4), STEPS + 1, 0.1)
    with pytest.raises(ValueError, match="more than once"):
        blend([(3, 0.1), (3, 0.1)], 3, 0.1)
    with pytest.raises(ValueError, match="sigma_rel must lie in"):
        blend(regular(4), STEPS, 0.3)
    with pytest.raises(ValueError, match="updates must be at least 1"):
        Snapshot(0, 0.1, dict)
    different = [
        Snapshot(1, 0.1, lambda: {"w": torch.ones(1)}),
        Snapshot(2, 0.1, lambda: {"w": torch.ones(2)}),
    ]
    with pytest.raises(ValueError, match="of different models"):
        posthoc(different, 0.05)
