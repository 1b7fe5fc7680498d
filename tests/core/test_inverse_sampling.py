"""Replacement, RePaint, SDEdit and windowed composition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse import RePaint, Windowed, edit
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Categorical as Classes
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.oracle import PointCloud
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import DDIM, Multistep, Sampler
from sciffusion.schedule import Cosine, RectifiedFlow
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State, Value, batch_of, take
from sciffusion.testing import split
from tests.core.cases import in_every_layout, mixture, randn

FLOW = RectifiedFlow()


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def state(x: Value) -> State:
    assert isinstance(x, State)
    return x


def pair(rho: float) -> GaussianOracle:
    """Two standard normal numbers with the correlation rho."""
    cov = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    return GaussianOracle(torch.zeros(2, dtype=torch.float64), cov, Gaussian(FLOW))


class Recorder(Denoiser):
    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process
        self.seen: list[tuple[Value, Tensor]] = []
        self.shown: list[Value | None] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.seen.append((x_t, t))
        self.shown.append(previous)
        return self.inner(x_t, t)


def test_repaint_is_less_biased_than_replacement() -> None:
    """Of the second number given that the first is 1.5: exactly N(1.2, 0.36)."""
    known, mask = torch.full((3000, 2), 1.5, dtype=torch.float64), torch.tensor([[True, False]])
    start, errors = randn(3000, 2), []
    for rounds in (1, 8):
        sampler = RePaint(Sampler(DDIM(1.0), 25), known, mask, rounds)
        solution = sampler(pair(0.8), start, seed=3)
        assert solution.nfe == 25 * rounds
        x = tensor(solution.x)[:, 1]
        errors.append((abs(float(x.mean()) - 1.2), abs(float(x.std()) - 0.6)))
    assert errors[0][0] > 0.2 and errors[1][0] < 0.3 * errors[0][0]
    assert errors[1][1] < 0.08


def test_longer_jumps_go_back_and_forth_as_often() -> None:
    known = torch.zeros(4, 2, dtype=torch.float64)
    sampler = RePaint(Sampler(DDIM(1.0), 10), known, torch.tensor([[True, False]]), 3, jump=4)
    solution = sampler(pair(0.5), randn(4, 2))
    assert solution.nfe == 30 and torch.equal(tensor(solution.x)[:, 0], known[:, 0])


def test_going_back_forgets_what_was_predicted_since() -> None:
    recorder = Recorder(pair(0.5))
    known = torch.zeros(4, 2, dtype=torch.float64)
    sampler = Sampler(DDIM(1.0), 6)
    RePaint(sampler, known, torch.tensor([[True, False]]), 3, jump=2)(recorder, randn(4, 2))
    times, shown = [float(t) for _, t in recorder.seen], recorder.shown
    for block in (0, 6, 12):  # three rounds of two steps
        assert times[block : block + 2] * 3 == times[block : block + 6]
        assert shown[block] is shown[block + 2] is shown[block + 4]
        assert shown[block + 1] is not shown[block + 3]


class Separate(Denoiser):
    """Points N(0.5, 1) in any layout, cells N(0, 1), and classes with given probabilities."""

    def __init__(self, absorbing: bool) -> None:
        super().__init__()
        jump = Jump(FLOW, Categorical(4, absorbing))
        self.process = Joint({"pos": Gaussian(FLOW), "cell": Gaussian(Cosine()), "kind": jump})
        self.classes = Classes(torch.tensor([0.1, 0.2, 0.3, 0.4]), self.process, "kind")

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        out = {"kind": state(self.classes(x_t, t).x0)["kind"]}
        for k, mean in (("pos", 0.5), ("cell", 0.0)):
            x, layout = state(x_t)[k], state(x_t).layout(k)
            alpha, sigma = (layout.expand(c.to(x), x) for c in self.process.field(k).clock(t))
            out[k] = mean + alpha / (alpha**2 + sigma**2) * (x - alpha * mean)
        return Prediction(state(x_t).replace(out), x_t, t, self.process)


def records(index: int) -> State:
    field, layout, _ = in_every_layout()[index]
    kind = layout.clean(torch.arange(field[..., 0].numel()).reshape(field.shape[:-1]) % 4)
    cell = randn(layout.batch, 3)
    return State(
        {"pos": field, "cell": cell, "kind": kind},
        {"pos": layout, "cell": Dense(layout.batch), "kind": layout},
    )


@pytest.mark.parametrize("absorbing", [False, True])
@pytest.mark.parametrize("index", [0, 1, 2], ids=["padded", "packed", "dense"])
def test_what_is_known_is_kept_bit_by_bit_in_every_field_and_layout(
    index: int, absorbing: bool
) -> None:
    denoiser, known = Separate(absorbing), records(index)
    process = denoiser.process
    half = torch.arange(known["kind"].numel()).reshape(known["kind"].shape) % 2 == 0
    masks = {"pos": half[..., None], "kind": half}
    seeds = list(range(10, 10 + batch_of(known)))
    sampler = Sampler(DDIM(1.0), 6)

    def run(x: State, mask: dict[str, Tensor], seed: list[int]) -> State:
        noise = Noise(seed)
        start = process.prior(x, noise)
        return state(RePaint(sampler, x, mask, 2)(denoiser, start, noise).x)

    out = run(known, masks, seeds)
    for k, mask in masks.items():
        layout = known.layout(k)
        held = layout.clean(mask.expand(known[k].shape))
        assert torch.equal(out[k][held], known[k][held])
        assert not torch.equal(layout.clean(out[k])[~held], layout.clean(known[k])[~held])
    whole = known.replace({"pos": half[..., None].expand(known["pos"].shape), "kind": half})
    whole = whole.replace({"cell": torch.zeros(batch_of(known), 3)})
    for i in range(batch_of(known)):
        one, held_one = take(known, torch.tensor([i])), state(take(whole, torch.tensor([i])))
        own = {"pos": held_one["pos"][..., :1], "kind": held_one["kind"]}
        alone = run(state(one), own, seeds[i : i + 1])
        for k in known:
            assert torch.allclose(split(alone, k)[0], split(out, k)[i], atol=1e-12)


def test_a_part_of_a_centred_cloud_is_kept() -> None:
    field, layout, _ = in_every_layout()[1]
    space = ZeroCoM()
    process = Joint({"x": Gaussian(FLOW, space)})
    known = State({"x": space.project(field, layout)}, layout)
    mask = {"x": torch.arange(len(field))[:, None] % 2 == 0}
    start = process.prior(known, Noise(1))
    sampler = RePaint(Sampler(DDIM(1.0), 8), known, mask, 2)
    out = state(sampler(PointCloud(1.0, process, "x"), start).x)["x"]
    held = mask["x"].expand(out.shape)
    assert torch.equal(out[held], known["x"][held])
    outside = State({"x": field + 1}, layout)
    with pytest.raises(ValueError, match="outside the space"):
        RePaint(Sampler(DDIM(1.0), 8), outside, mask)(PointCloud(1.0, process, "x"), start)


def test_wrong_repaints_are_refused() -> None:
    known, mask = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([[True, False]])
    with pytest.raises(ValueError, match="at least 1"):
        RePaint(Sampler(DDIM(), 3), known, mask, 0)
    with pytest.raises(ValueError, match="boolean"):
        RePaint(Sampler(DDIM(), 3), known, mask.double())
    with pytest.raises(ValueError, match="does not fit"):
        RePaint(Sampler(DDIM(), 3), known, mask[0])(pair(0.5), known)
    with pytest.raises(ValueError, match="without history"):
        RePaint(Sampler(Multistep(2), 3), known, mask)(pair(0.5), known)
    with pytest.raises(ValueError, match="not finite"):
        RePaint(Sampler(DDIM(), 3), known / 0, mask)(pair(0.5), known)
    with pytest.raises(ValueError, match="mask names"):
        RePaint(Sampler(DDIM(), 3), known, {"z": mask})(pair(0.5), known)


def test_an_edit_goes_from_the_input_to_an_unconditional_sample() -> None:
    denoiser, sampler = mixture(), Sampler(Multistep(2, eta=1.0), 6)
    x0 = randn(5, 2)
    assert edit(sampler, denoiser, x0, 0.0).x is x0
    noise = Noise(4)
    free = sampler(denoiser, denoiser.process.prior(x0, noise), noise).x
    assert torch.equal(tensor(edit(sampler, denoiser, x0, 1.0, 4).x), tensor(free))
    assert torch.equal(tensor(edit(sampler, denoiser, x0 + 7, 1.0, 4).x), tensor(free))
    for strength in (-0.1, 1.1):
        with pytest.raises(ValueError, match="strength"):
            edit(sampler, denoiser, x0, strength)


def test_an_edit_begins_denoising_where_it_noised_to() -> None:
    x0 = randn(4, 2)
    recorder = Recorder(mixture())
    edit(Sampler(DDIM(), 5), recorder, x0, 0.37, 2)
    x_t, t = recorder.seen[0]
    assert float(t) == 0.37 and len(recorder.seen) == 5
    want = recorder.process.perturb(x0, at(0.37), Noise(2)).x_t
    assert torch.equal(tensor(x_t), tensor(want))


def test_a_gentler_edit_stays_nearer() -> None:
    x0 = randn(500, 2)
    run = Sampler(Multistep(2), 10)
    far = [
        float((tensor(edit(run, mixture(), x0, s, 1).x) - x0).square().mean())
        for s in (0.05, 0.3, 0.8)
    ]
    assert far[0] < 0.3 * far[1] and far[1] < far[2]


def chain(n: int, rho: float = 0.7) -> Tensor:
    """Covariance of a stationary AR(1) sequence: a Gaussian Markov chain."""
    i = torch.arange(n, dtype=torch.float64)
    return rho ** (i[:, None] - i).abs()


def oracle(n: int) -> GaussianOracle:
    return GaussianOracle(torch.zeros(n, dtype=torch.float64), chain(n), Gaussian(FLOW))


def test_windows_compose_to_the_whole_chain_as_they_widen() -> None:
    n, x = 11, randn(400, 11)
    for t in (0.2, 0.5, 0.8):
        want, errors = tensor(oracle(n)(x, at(t)).x0), []
        for window in (1, 3, 5, 7, 11):
            got = tensor(Windowed(oracle(window), window, -1)(x, at(t)).x0)
            errors.append(float((got - want).norm()))
        assert errors[-1] < 1e-12  # the window spans the sequence
        assert all(b < 0.9 * a for a, b in zip(errors[:-1], errors[1:], strict=True))
    small = [
        float((tensor(Windowed(oracle(3), 3, -1)(x, at(t)).x0) - oracle(n)(x, at(t)).x0).norm())
        for t in (1e-2, 1e-3)
    ]
    # without noise, neighbours make an element independent of the others: the error is of order sigma^4
    assert small[1] < 1e-3 * small[0]


def test_windows_are_cut_along_their_axis_in_tensors_and_states() -> None:
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    x = randn(2, 4, 9, 3)
    flat = Windowed(oracle(5), 5, -1)
    out = tensor(Windowed(_Rows(oracle(5)), 5, -2)(x, t).x0)
    rows = x.movedim(-2, -1)
    for b in range(2):
        for c in range(4):
            want = tensor(flat(rows[b, c], t[b].expand(3)).x0)
            assert torch.allclose(out.movedim(-2, -1)[b, c], want, atol=1e-12)
    with pytest.raises(ValueError, match="dense fields of at least"):
        flat(randn(2, 4), t)
    with pytest.raises(ValueError, match="odd window"):
        Windowed(oracle(4), 4, -1)


class _Rows(Denoiser):
    """A denoiser of a sequence applied to every channel and feature of (B, C, L, F)."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        rows = tensor(x_t).movedim(-2, -1)
        flat = rows.reshape(-1, rows.shape[-1])
        times = t.repeat_interleave(len(flat) // len(rows)) if t.ndim else t
        x0 = tensor(self.inner(flat, times).x0).reshape(rows.shape).movedim(-1, -2)
        return Prediction(x0, x_t, t, self.process)


def test_windows_take_states_with_classes() -> None:
    process = Joint({"k": Jump(FLOW, Categorical(4)), "x": Gaussian(FLOW)})
    denoiser = Classes(torch.tensor([0.1, 0.2, 0.3, 0.4]), process, "k")
    x = State({"k": torch.arange(14).reshape(2, 7) % 4, "x": randn(2, 7)}, Dense(2))
    got = state(Windowed(denoiser, 3, -1)(x, at(0.4)).x0)
    want = state(denoiser(x, at(0.4)).x0)
    assert torch.equal(got["k"], want["k"]) and torch.equal(got["x"], want["x"])
