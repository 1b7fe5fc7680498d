"""Log-likelihoods against closed forms: exact and estimated traces, every layout, subspaces, several fields."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.harmonics import Harmonics, SphereGrid
from sciffusion.layout import Dense, Layout
from sciffusion.likelihood import (
    Divergence,
    Exact,
    Hutchinson,
    HutchinsonPlusPlus,
    log_likelihood,
)
from sciffusion.likelihood.divergence import Probes
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.schedule import VE, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical, Euclidean, SphereField, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import check_divergence
from tests.core.cases import in_every_layout, mixture, name, packed, padded, points, randn, rng

FLOW = RectifiedFlow()


@pytest.mark.parametrize("schedule", [FLOW, TrigFlow(), Cosine(), VE(1e-4, 1e3)], ids=name)
def test_the_flow_of_a_mixture_gives_its_log_density(schedule: Schedule) -> None:
    exact = mixture(Gaussian(schedule))
    x = exact.sample(6, rng())
    got = log_likelihood(exact, x)
    assert got.shape == (6,) and got.dtype == torch.float64
    assert torch.allclose(got, exact.log_prob(x), rtol=0, atol=1e-3)


def test_noise_of_any_scale_gives_the_same_density() -> None:
    for scale in (0.5, torch.tensor([0.5, 2.0]).double()):
        exact = mixture(Gaussian(FLOW, Euclidean(scale)))
        x = exact.sample(4, rng())
        assert torch.allclose(log_likelihood(exact, x), exact.log_prob(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2), (3, 1, 2, 2)])
def test_fields_of_any_rank_have_their_density(shape: tuple[int, ...]) -> None:
    d = math.prod(shape[1:])
    root = torch.tril(0.3 * randn(d, d)) + 0.5 * torch.eye(d, dtype=torch.float64)
    exact = oracle.Gaussian(0.3 * randn(d), root @ root.mT, Gaussian(FLOW))
    law = torch.distributions.MultivariateNormal(exact.mean, exact.cov)
    x = (exact.mean + randn(3, d, seed=3) @ root.mT).reshape(shape)
    want = law.log_prob(x.reshape(3, -1))
    assert torch.allclose(log_likelihood(exact, x), want, rtol=0, atol=1e-3)


def test_point_clouds_have_their_density_on_the_subspace_packed_and_padded() -> None:
    exact = oracle.PointCloud(1.3, Joint({"pos": Gaussian(FLOW, ZeroCoM())}), "pos")
    values = []
    for field, layout in (packed(points()), padded(points())):
        x = State({"pos": field}, layout)
        got = log_likelihood(exact, x)
        clean = State({"pos": ZeroCoM().project(field, layout)}, layout)
        assert torch.allclose(got, exact.log_prob(clean), rtol=0, atol=1e-3)
        values.append(got)
    assert torch.allclose(values[0], values[1], rtol=0, atol=1e-9)
    assert float(values[0][2]) == 0.0  # one point has no freedom


def test_two_correlated_fields_on_schedules_of_their_own_have_their_joint_density() -> None:
    process = Joint({"a": Gaussian(FLOW), "b": Gaussian(TrigFlow(), Euclidean(2.0))})
    root = torch.tensor([[0.8, 0, 0], [0.5, 0.4, 0], [-0.3, 0.2, 0.6]]).double()
    exact = oracle.Gaussian(torch.tensor([0.1, -0.5, 0.4]).double(), root @ root.mT, process)
    flat = randn(5, 3)
    x = State({"a": flat[:, :2], "b": flat[:, 2:]}, Dense(5))
    law = torch.distributions.MultivariateNormal(exact.mean, exact.cov)
    assert torch.allclose(log_likelihood(exact, x), law.log_prob(flat), rtol=0, atol=1e-3)


def test_where_the_way_is_cut_short_every_field_counts_by_its_own_levels() -> None:
    """The flow of a Gaussian keeps its quantiles: what is measured is known for any two ends."""
    schedules, variances = {"a": FLOW, "b": VE()}, {"a": 0.4, "b": 1.7}
    process = Joint({k: Gaussian(v) for k, v in schedules.items()})
    exact = oracle.Gaussian(
        torch.zeros(2).double(),
        torch.diag(torch.tensor(list(variances.values())).double()),
        process,
    )
    x = State({"a": randn(5, 1), "b": randn(5, 1, seed=1)}, Dense(5))
    t_data, t_prior = FLOW.time(2.0), FLOW.time(-3.0)
    want = torch.zeros(5).double()
    for k, schedule in schedules.items():
        (a0, s0), (a1, s1) = schedule(t_data), schedule(t_prior)
        grown = ((variances[k] * a1**2 + s1**2) / (variances[k] * a0**2 + s0**2)).sqrt()
        end = torch.distributions.Normal(0.0, float(s1)).log_prob(grown * a0 * x[k][:, 0])
        want += end + (grown * a0).log()
    got = log_likelihood(exact, x, low=-3.0, high=2.0)
    assert torch.allclose(got, want, rtol=0, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(log_likelihood(exact, x, low=-3.0, high=2.0), got)


def test_an_oblique_projection_leaves_the_density_alone() -> None:
    """A sphere's fields are cut to their degrees cell by cell, which is no right angle in the plain dot product."""
    space = SphereField(Harmonics(SphereGrid.gauss(3, 5), 1), torch.tensor([2.0, 0.7]))
    basis = space.project(torch.eye(15).double().reshape(15, 3, 5), Dense(15)).reshape(15, 15).T
    assert float((basis - basis.T).abs().max()) > 0.01
    onto = torch.linalg.svd(basis).U[:, :4]
    root = 0.5 * torch.eye(4).double() + 0.3 * torch.tril(randn(4, 4))
    cov, noise = (
        root @ root.mT,
        onto.T @ space.covariance(onto.T.reshape(4, 3, 5), Dense(4)).reshape(4, 15).T,
    )

    class Cutting(Denoiser):
        """The exact denoiser of N(0, cov), which looks at its input's projection."""

        def __init__(self) -> None:
            super().__init__()
            self.process = Gaussian(FLOW, space)

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            assert isinstance(x_t, Tensor)
            a, s = (c.reshape(-1, 1, 1) for c in FLOW(t))
            gain = a * onto @ cov @ torch.linalg.inv(a**2 * cov + s**2 * noise) @ onto.T @ basis
            return Prediction(
                (gain @ x_t.reshape(-1, 15, 1)).reshape(x_t.shape), x_t, t, self.process
            )

    z = randn(3, 4) @ root.T
    want = torch.distributions.MultivariateNormal(torch.zeros(4).double(), cov).log_prob(z)
    x = (z @ onto.T).reshape(3, 3, 5)
    for divergence in (Exact(), HutchinsonPlusPlus(18)):
        got = log_likelihood(Cutting(), x, divergence=divergence)
        assert torch.allclose(got, want, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "divergence", [Hutchinson(1), Hutchinson(4), HutchinsonPlusPlus(3)], ids=name
)
def test_estimates_are_right_on_average(divergence: Divergence) -> None:
    exact, n = mixture(), 200
    x = exact.sample(1, rng()).repeat(n, 1)
    got = log_likelihood(exact, x, divergence=divergence, seed=list(range(n)), rtol=1e-3)
    error = got.mean() - exact.log_prob(x[:1])
    assert abs(float(error)) < 4 * float(got.std()) / math.sqrt(n) + 1e-3
    assert float(got.std()) > 1e-3


def test_more_probes_err_less_and_hutch_plus_plus_least() -> None:
    exact, n = mixture(), 100
    x = exact.sample(1, rng()).repeat(n, 1)

    def spread(divergence: Divergence) -> float:
        got = log_likelihood(exact, x, divergence=divergence, seed=list(range(n)), rtol=1e-4)
        return float(got.std())

    one, nine = spread(Hutchinson(1)), spread(Hutchinson(9))
    assert one / nine == pytest.approx(3, rel=0.35)
    assert spread(HutchinsonPlusPlus(6)) < 1e-3  # its two sketches span the plane


@pytest.mark.parametrize(
    ("divergence", "price"),
    [(Exact(), 5), (Hutchinson(3), 3), (HutchinsonPlusPlus(6), 6), (HutchinsonPlusPlus(8), 6)],
    ids=name,
)
def test_every_divergence_keeps_its_contract_at_its_price(
    divergence: Divergence, price: int
) -> None:
    check_divergence(divergence)
    probes = Probes([randn(2, 5)], [Dense(2)])
    asked = []

    def products(v: Sequence[Tensor]) -> Sequence[Tensor]:
        asked.append(v)
        return v

    trace = divergence.trace(products, probes, divergence.draw(probes, Noise([1, 2])))
    assert trace.shape == (2,)
    assert len(asked) == price


def test_an_estimate_on_a_subspace_counts_its_freedom_alone() -> None:
    exact, n = oracle.PointCloud(1.3, Joint({"pos": Gaussian(FLOW, ZeroCoM())}), "pos"), 200
    x = State({"pos": ZeroCoM().project(randn(1, 3, 2), Dense(1)).expand(n, 3, 2)}, Dense(n))
    got = log_likelihood(exact, x, divergence=Hutchinson(4), seed=list(range(n)), rtol=1e-3)
    error = got.mean() - exact.log_prob(x)[0]
    assert abs(float(error)) < 4 * float(got.std()) / math.sqrt(n) + 1e-3


@pytest.mark.parametrize("case", range(3), ids=["padded", "packed", "dense"])
@pytest.mark.parametrize("space", [Euclidean(), ZeroCoM()], ids=name)
def test_all_traces_agree_on_a_linear_map(case: int, space: Euclidean | ZeroCoM) -> None:
    field, layout, _ = in_every_layout()[case]
    field = layout.clean(field)
    diagonal = layout.clean(randn(*field.shape, seed=5))
    probes = Probes([field], [layout])

    def products(v: Sequence[Tensor]) -> list[Tensor]:
        return [space.project(diagonal * space.project(v[0], layout), layout)]

    want = trace_of(products, field, layout)
    exact = Exact()
    got = exact.trace(products, probes, exact.draw(probes, Noise(0)))
    assert torch.allclose(got, want, rtol=0, atol=1e-12)
    many = HutchinsonPlusPlus(48)
    estimate = many.trace(products, probes, many.draw(probes, Noise(1)))
    assert torch.allclose(estimate, want, rtol=0, atol=1e-9)  # the sketch spans everything
    rows = probes.flatten([field])
    assert torch.equal(layout.clean(probes.unflatten(rows)[0]), field)


def trace_of(products: object, field: Tensor, layout: Layout) -> Tensor:
    """The trace, entry by entry."""
    assert callable(products)
    total = torch.zeros(layout.batch, dtype=field.dtype)
    for i in range(field.numel()):
        e = torch.zeros_like(field).flatten()
        e[i] = 1
        e = layout.clean(e.reshape(field.shape))
        total += layout.reduce(products([e])[0] * e)
    return total


def test_an_estimate_depends_on_its_seed_and_on_no_other_sample() -> None:
    exact = mixture()
    x = exact.sample(3, rng())
    whole = log_likelihood(exact, x, divergence=Hutchinson(2), seed=[4, 5, 6])
    alone = log_likelihood(exact, x[1:2], divergence=Hutchinson(2), seed=[5])
    assert torch.equal(whole[1:2], alone)
    other = log_likelihood(exact, x[1:2], divergence=Hutchinson(2), seed=[7])
    assert not torch.equal(alone, other)


def test_single_precision_is_good_to_a_thousandth() -> None:
    exact = mixture()
    x = exact.sample(6, rng())
    got = log_likelihood(exact, x.float(), rtol=1e-4, atol=1e-5, high=10.0)
    assert torch.allclose(got, exact.log_prob(x), rtol=0, atol=2e-2)


class Bound(Denoiser):
    """Data that are N(c, 1), with c the condition."""

    process: Gaussian

    def __init__(self) -> None:
        super().__init__()
        self.process = Gaussian(FLOW)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        alpha, sigma = (c.reshape(-1, 1) for c in self.process.schedule(t))
        gain = alpha / (alpha**2 + sigma**2)
        return Prediction(cond + gain * (x_t - alpha * cond), x_t, t, self.process)


def test_a_condition_is_bound_first() -> None:
    x, c = randn(4, 2), randn(4, 2, seed=1)
    want = -0.5 * (x - c).square().sum(1) - math.log(2 * math.pi)
    assert torch.allclose(log_likelihood(Bound().given(c), x), want, rtol=0, atol=1e-3)


def test_what_has_no_density_is_refused() -> None:
    jump = oracle.Categorical(torch.full((3,), 1 / 3), Jump(FLOW, Categorical(3)))
    with pytest.raises(ValueError, match="has no probability flow"):
        log_likelihood(jump, torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="lies between low=5.0 and high=5.0; widen them"):
        log_likelihood(mixture(), randn(2, 2), low=5.0, high=5.0)
    with pytest.raises(ValueError, match="x is not finite"):
        log_likelihood(mixture(), torch.tensor([[0.0, math.inf]]).double())
    for make in (lambda: Hutchinson(0), lambda: HutchinsonPlusPlus(2)):
        with pytest.raises(ValueError, match="probes must be at least"):
            make()
