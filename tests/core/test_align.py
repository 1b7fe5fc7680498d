"""Aligning noise with point clouds: exact where the optimum is known, lawful everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.coupling import Align
from sciffusion.coupling.align import kabsch
from sciffusion.layout import Dense, Layout, Masked
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Categorical, Euclidean, GaussianSpace, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import Knows, split
from tests.core.cases import dense, packed, padded, points, randn

pytest.importorskip("scipy")

FLOW = RectifiedFlow()
PROCESS = Joint(
    {
        "pos": Gaussian(FLOW, ZeroCoM()),
        "kind": Jump(FLOW, Categorical(7)),
        "charge": Gaussian(FLOW, Euclidean()),
        "cell": Gaussian(FLOW, Euclidean()),
    }
)
WAYS = [
    Align("pos", permute=False),
    Align("pos", rotate=False),
    Align("pos"),
    Align("pos", starts=24),
]
PAIRED = [Align("pos", r, p, pair=True) for r, p in ((True, False), (False, True), (True, True))]


def state(field: Tensor, layout: Layout) -> State:
    lead = field[..., 0]
    return State(
        {
            "pos": field,
            "kind": torch.zeros_like(lead, dtype=torch.long),
            "charge": lead.clone(),
            "cell": randn(layout.batch, 3, 3),
        },
        {"pos": layout, "kind": layout, "charge": layout, "cell": Dense(layout.batch)},
    )


def aligned(coupling: Align, x0: State, seed: int = 0) -> tuple[State, State]:
    """The noise before and after."""
    eps = PROCESS.draw(x0, Noise([10**6 + seed + i for i in range(x0.batch)]))
    moved = coupling(x0, eps, None, PROCESS)
    assert isinstance(eps, State) and isinstance(moved, State)
    return eps, moved


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-2, keepdim=True)


def cost(x: Tensor, e: Tensor) -> float:
    return float((centred(x) - e).square().sum())


def rotations(n: int, seed: int = 0) -> Tensor:
    q, r = torch.linalg.qr(randn(n, 3, 3, seed=seed))
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[:, None]
    return q * torch.linalg.det(q)[:, None, None]


def best_rotation(x: Tensor, e: Tensor) -> float:
    """The least cost over rotations, by Horn's quaternions: a way other than a singular value decomposition."""
    m = (centred(x).mT @ e).numpy()
    trace, skew = np.trace(m), m - m.T
    form = np.zeros((4, 4))
    form[0, 0] = trace
    form[0, 1:] = form[1:, 0] = -skew[[1, 2, 0], [2, 0, 1]]
    form[1:, 1:] = m + m.T - trace * np.eye(3)
    top = float(np.linalg.eigvalsh(form)[-1])
    return float(centred(x).square().sum() + e.square().sum()) - 2 * top


def orders(n: int) -> list[list[int]]:
    return [list(p) for p in permutations(range(n))]


@pytest.mark.parametrize("make", [padded, packed])
@pytest.mark.parametrize("coupling", WAYS, ids=str)
def test_no_sample_ends_farther_away_and_alone_it_ends_at_the_same_place(
    coupling: Align, make: Callable[..., tuple[Tensor, Layout]]
) -> None:
    samples = points((4, 2, 1, 5, 9))
    eps, moved = aligned(coupling, state(*make(samples)))
    for i, s in enumerate(samples):
        e, m = (split(v, "pos")[i].reshape(s.shape) for v in (eps, moved))
        assert cost(s, m) <= cost(s, e) + 1e-12
        _, alone = aligned(coupling, state(*make([s])), seed=i)
        assert torch.allclose(m, split(alone, "pos")[0].reshape(s.shape), rtol=0, atol=1e-12)


def test_a_rotation_alone_is_the_best_of_all() -> None:
    samples = points((2, 3, 4, 7))
    eps, moved = aligned(WAYS[0], state(*packed(samples)))
    for i, s in enumerate(samples):
        e, m = (split(v, "pos")[i].reshape(s.shape) for v in (eps, moved))
        assert cost(s, m) == pytest.approx(best_rotation(s, e), rel=1e-10)
        assert torch.allclose(m @ m.mT, e @ e.mT)  # turned as a whole
        if len(s) > 3:
            turn = torch.linalg.lstsq(e, m).solution
            assert float(torch.linalg.det(turn)) == pytest.approx(1.0)  # and not mirrored


def test_a_permutation_alone_is_the_best_of_all() -> None:
    samples = points((1, 2, 3, 4, 5, 5))
    eps, moved = aligned(WAYS[1], state(*packed(samples)))
    for i, s in enumerate(samples):
        e, m = (split(v, "pos")[i].reshape(s.shape) for v in (eps, moved))
        assert cost(s, m) == pytest.approx(min(cost(s, e[p]) for p in orders(len(s))), rel=1e-12)


def test_what_both_together_end_at_neither_alone_can_better() -> None:
    samples = [randn(5, 3, seed=i) for i in range(60)]
    x0 = state(*dense(samples))
    _, moved = aligned(WAYS[2], x0)
    for alone in WAYS[:2]:
        again = alone(x0, moved, None, PROCESS)
        assert isinstance(again, State)
        assert torch.allclose(again["pos"], moved["pos"], rtol=0, atol=1e-9)


def test_both_together_come_near_the_best_of_all_and_nearer_from_more_starts() -> None:
    """Turns end in local minima: the joint optimum, over all orders, bounds them from below."""
    n, hits, excess = 40, {}, {}
    samples = [randn(4, 3, seed=i) for i in range(n)]
    best = None
    for starts in (1, 24):
        eps, moved = aligned(Align("pos", starts=starts), state(*dense(samples)))
        if best is None:
            best = [
                min(best_rotation(s, e[p]) for p in orders(4))
                for s, e in zip(samples, eps["pos"], strict=True)
            ]
        got = [cost(s, m) for s, m in zip(samples, moved["pos"], strict=True)]
        assert all(g >= b - 1e-9 for g, b in zip(got, best, strict=True))
        hits[starts] = sum(g < b + 1e-6 for g, b in zip(got, best, strict=True))
        excess[starts] = sum(got) / sum(best)
    assert hits[24] > hits[1] and hits[24] >= 0.95 * n
    assert excess[24] < excess[1] < 2 and excess[24] < 1.1


@pytest.mark.parametrize("coupling", [*WAYS, *PAIRED], ids=str)
def test_the_points_of_all_fields_move_together_and_every_draw_is_used_once(
    coupling: Align,
) -> None:
    eps, moved = aligned(coupling, state(*dense(points((4, 4, 4)))))
    # the charges' noise has no two equal numbers, so it tells where every point went
    flat = eps["charge"].flatten().tolist()
    went = torch.tensor([flat.index(v) for v in moved["charge"].flatten().tolist()])
    assert sorted(went.tolist()) == list(range(12))
    assert torch.equal(moved["kind"].flatten(), eps["kind"].flatten()[went])
    lengths = [v["pos"].norm(dim=-1).flatten() for v in (eps, moved)]
    assert torch.allclose(lengths[1], lengths[0][went])
    records = (went // 4).reshape(3, 4)
    assert bool((records == records[:, :1]).all())  # the points of a sample stay together
    assert torch.equal(moved["cell"], eps["cell"][records[:, 0]])
    if not coupling.pair:
        assert records[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("coupling", PAIRED, ids=str)
def test_trading_aligned_noise_is_the_best_of_all_assignments(coupling: Align, seed: int) -> None:
    n, single = 6, Align("pos", coupling.rotate, coupling.permute)
    samples = [randn(5, 3, seed=10 * seed + i) for i in range(n)]  # three would be flat
    x0 = state(*dense(samples))
    eps, moved = aligned(coupling, x0, seed=100 * seed)
    costs = np.zeros((n, n))
    for shift in range(n):
        order = torch.arange(n).roll(shift)
        other = single(x0, eps.map(lambda v, o=order: v[o]), None, PROCESS)
        assert isinstance(other, State)
        for i, j in enumerate(order.tolist()):
            costs[i, j] = cost(samples[i], other["pos"][i])
    best = min(sum(costs[i, j] for i, j in enumerate(p)) for p in permutations(range(n)))
    got = sum(cost(s, m) for s, m in zip(samples, moved["pos"], strict=True))
    assert got == pytest.approx(best, rel=1e-10)


@pytest.mark.parametrize("coupling", [WAYS[0], WAYS[1], WAYS[2], PAIRED[2]], ids=str)
def test_the_noise_keeps_the_law_of_the_prior_when_the_data_have_no_orientation_and_no_order(
    coupling: Align,
) -> None:
    """Moments up to the fourth, of all points and axes, against those of centred normal noise."""
    n, points_ = (10, 3) if coupling.pair else (3000, 3)
    shape = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.3], [-1.0, 0.5, 0.0]], dtype=torch.float64)
    moments = []
    for seed in range(50 if coupling.pair else 1):
        rows = torch.argsort(randn(n, points_, seed=1000 + seed), 1)
        x0 = state(shape[rows] @ rotations(n, seed), Dense(n))
        _, moved = aligned(coupling, x0, seed=7000 * seed)
        moments.append(moved["pos"].flatten(1))
    e = torch.cat(moments)
    projector = torch.eye(3).double() - 1 / 3
    want = torch.kron(projector, torch.eye(3).double())
    count, error = len(e), 6 / math.sqrt(len(e))
    assert float(e.mean(0).abs().max()) < error
    assert float((e.mT @ e / count - want).abs().max()) < 1.5 * error
    # of a normal variable of variance v the fourth moment is 3 v^2, its deviation sqrt(96) v^2
    assert float((e**4).mean(0).sub(3 * (2 / 3) ** 2).abs().max()) < 5 * error


def test_noise_aligned_with_one_fixed_orientation_does_not_have_the_law_of_the_prior() -> None:
    """Why data must be turned at random, or the network be equivariant."""
    x0 = state(randn(1, 4, 3).expand(500, 4, 3), Dense(500))
    _, moved = aligned(WAYS[0], x0)
    assert float(moved["pos"].mean(0).abs().max()) > 0.3


@pytest.mark.parametrize("garbage", [1e6, math.nan])
@pytest.mark.parametrize("coupling", WAYS, ids=str)
def test_padding_moves_nothing_and_is_not_moved_into_a_sample(
    coupling: Align, garbage: float
) -> None:
    field, layout = padded(points())
    moved = [
        aligned(coupling, state(torch.where(layout.mask[..., None], field, g), layout))[1]
        for g in (0.0, garbage)
    ]
    assert torch.equal(moved[0]["pos"], moved[1]["pos"])
    assert torch.equal(moved[0]["kind"], moved[1]["kind"])
    outside = moved[0]["pos"][~layout.mask]
    assert bool((outside == 0).all())


@pytest.mark.parametrize("coupling", [*WAYS, PAIRED[2]], ids=str)
def test_a_denoiser_that_knows_the_data_has_no_loss(coupling: Align) -> None:
    x0 = state(*dense(points((3, 3, 3))))
    assert isinstance(PROCESS.perturb(x0, torch.tensor(0.5), Noise(0)).x0, State)
    clean = PROCESS.perturb(x0, torch.tensor(0.5), Noise(0)).x0
    objective = Objective(PROCESS, coupling=coupling)
    assert float(objective(Knows(clean, PROCESS), x0, noise=Noise(0)).mean.abs()) < 1e-12


def test_a_plain_tensor_of_points_in_any_dimension_is_aligned() -> None:
    for d in (1, 2, 4):
        process, x0 = Gaussian(FLOW), randn(3, 5, d)
        eps = process.draw(x0, Noise(7))
        moved = Align(starts=3)(x0, eps, None, process)
        assert isinstance(eps, Tensor) and isinstance(moved, Tensor)
        assert float((x0 - moved).square().sum()) <= float((x0 - eps).square().sum())
        assert torch.allclose(
            moved.square().sum((1, 2)), eps.square().sum((1, 2))
        )  # turned about the origin


def test_the_rotation_is_found_again_in_every_layout() -> None:
    turns, samples = rotations(3), points((4, 6, 5))
    for make in (padded, packed):
        field, layout = make(samples)
        turned, _ = make([s @ r for s, r in zip(samples, turns, strict=True)])
        x, e = layout.clean(field), layout.clean(turned)
        assert torch.allclose(kabsch(x, e, layout), turns, atol=1e-10)


def test_float32_noise_stays_float32() -> None:
    samples = points((3, 2), dtype=torch.float32)
    eps, moved = aligned(WAYS[2], state(*padded(samples)))
    assert moved["pos"].dtype == torch.float32 and moved["kind"].dtype == torch.long


def refused(coupling: Align, x0: Value, process: Gaussian | Joint, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coupling(x0, process.draw(x0, Noise(0)), None, process)


def test_what_cannot_be_aligned_is_refused() -> None:
    with pytest.raises(ValueError, match="rotate and permute are both False"):
        Align(rotate=False, permute=False)
    with pytest.raises(ValueError, match="starts must be at least 1"):
        Align(starts=0)
    ragged = state(*padded(points()))
    refused(Align("kind"), ragged, PROCESS, "has no Gaussian noise")
    refused(Align("charge"), ragged, PROCESS, "does not hold points")
    refused(Align("places"), ragged, PROCESS, "field must name one of")
    refused(Align("pos", pair=True), ragged, PROCESS, "samples of one size can trade")
    by_axis: GaussianSpace = Euclidean(torch.tensor([1.0, 2.0, 3.0]))
    refused(Align(), randn(2, 4, 3), Gaussian(FLOW, by_axis), "every direction; set rotate=False")
    by_point: GaussianSpace = Euclidean(torch.rand(4, 1) + 1)
    refused(Align(rotate=False), randn(2, 4, 3), Gaussian(FLOW, by_point), "for every point")
    Align(rotate=False)(randn(2, 4, 3), randn(2, 4, 3), None, Gaussian(FLOW, by_axis))


def test_layouts_that_differ_are_other_points() -> None:
    """A field with points of its own is left alone."""
    pos, layout = padded(points((3, 2)))
    other = Masked(torch.ones(2, layout.mask.shape[1], dtype=torch.bool))
    process = Joint({"pos": PROCESS.field("pos"), "charge": PROCESS.field("charge")})
    x0 = State(
        {"pos": pos, "charge": randn(2, layout.mask.shape[1])}, {"pos": layout, "charge": other}
    )
    eps = process.draw(x0, Noise(0))
    moved = Align("pos")(x0, eps, None, process)
    assert isinstance(eps, State) and isinstance(moved, State)
    assert torch.equal(moved["charge"], eps["charge"]) and not torch.equal(moved["pos"], eps["pos"])
