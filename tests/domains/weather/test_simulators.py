"""The simulators obey the laws of their equations, converge in the step, and repeat themselves by the seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from sciffusion.domains.weather.simulators import kolmogorov, lorenz96, quasigeostrophic
from sciffusion.domains.weather.simulators.kolmogorov import Kolmogorov
from sciffusion.domains.weather.simulators.lorenz96 import Lorenz96
from sciffusion.domains.weather.simulators.quasigeostrophic import QuasiGeostrophic

OMEGA = 7.292115e-5
RADIUS = 6.371e6
BARE = QuasiGeostrophic(
    relaxation=math.inf,
    friction=math.inf,
    diffusion=math.inf,
    mountains=0.0,
    degree=15,
    dtype=torch.float64,
)
"""Nothing but advection."""
SHORT = QuasiGeostrophic(degree=10, step=0.25)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def march(advance: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        x = advance(x)
    return x


def order(run: Callable[[int], Tensor], coarse: int) -> float:
    """Of the error in the step, from runs with as many steps, twice and eight times as many."""
    truth = run(8 * coarse)
    first, second = (float((run(n) - truth).abs().max()) for n in (coarse, 2 * coarse))
    return math.log2(first / second)


# Lorenz-96


def test_lorenz_steps_converge_with_order_four() -> None:
    x = march(Lorenz96().advance, Lorenz96().start(0, range(3)), 200)
    found = order(lambda n: march(Lorenz96(dt=0.4 / n).advance, x, n), 8)
    assert found == pytest.approx(4, abs=0.25)


def test_lorenz_advection_conserves_energy_and_the_rest_is_decay_and_drive() -> None:
    model, x = Lorenz96(), 5 * randn(4, 40)
    work = (x * model.rate(x)).sum(-1)
    assert torch.allclose(work, -(x**2).sum(-1) + 8 * x.sum(-1), rtol=1e-12)


def test_lorenz_is_the_formula_site_by_site() -> None:
    x = randn(7).tolist()
    want = [(x[(i + 1) % 7] - x[i - 2]) * x[i - 1] - x[i] + 3.0 for i in range(7)]
    got = Lorenz96(7, 3.0).rate(torch.tensor(x, dtype=torch.float64))
    assert got.tolist() == pytest.approx(want)


@pytest.mark.parametrize("forcing", [0.5, 0.8, 1.0, 2.0])
def test_small_waves_on_the_resting_state_grow_as_linear_theory_says(forcing: float) -> None:
    # the wave exp(i k j) grows at -1 + F (cos k - cos 2k): rest is unstable from F = 8/9 on
    model, wave = Lorenz96(40, forcing, 0.01), 9
    k = 2 * math.pi * wave / 40
    rest = torch.full((1, 40), forcing, dtype=torch.float64)
    x = rest + 1e-7 * torch.cos(k * torch.arange(40, dtype=torch.float64))
    power = torch.fft.rfft(march(model.advance, x, 100) - rest).abs()[0, wave]
    growth = math.log(float(power) / (1e-7 * 20))
    assert growth == pytest.approx(-1 + forcing * (math.cos(k) - math.cos(2 * k)), abs=1e-4)


def test_errors_grow_under_chaos_and_die_without_it() -> None:
    for forcing, lowest, highest in ((8.0, 1.4, 2.0), (0.5, -1.0, -0.4)):
        model = Lorenz96(forcing=forcing)
        x = march(model.advance, model.start(1, range(20)), 400)
        nudge, rates = 1e-7 * randn(20, 40), []
        for _ in range(40):  # Benettin's method: let the difference grow, and shrink it again
            y = march(model.advance, x + nudge, 10)
            x = march(model.advance, x, 10)
            size = (y - x).norm(dim=-1, keepdim=True)
            rates.append(torch.log(size / nudge.norm(dim=-1, keepdim=True)) / 0.5)
            nudge = (y - x) / size * 1e-6
        assert lowest < float(torch.stack(rates[5:]).mean()) < highest


def test_a_lorenz_trajectory_depends_on_the_seed_and_its_number_alone() -> None:
    three, one = (lorenz96.simulate(100, 4, trajectories=n) for n in (3, 1))
    assert np.array_equal(three.x[:1], one.x)
    assert not np.array_equal(three.x[0], three.x[1])
    assert not np.array_equal(lorenz96.simulate(100, 5).x, one.x)
    assert dict(three.sizes) == {"trajectory": 3, "time": 400, "site": 40}
    assert float(one.time[1]) == pytest.approx(0.25) and one.time.attrs["units"] == "days"


# Kolmogorov flow


def free(dt: float = 0.02, reynolds: float = math.inf) -> Kolmogorov:
    """No forcing, no drag, float64."""
    return Kolmogorov(32, reynolds, forcing=0.0, drag=0.0, dt=dt, dtype=torch.float64, wavenumber=2)


def test_taylor_green_vortices_decay_by_viscosity_and_drag_alone() -> None:
    model = replace(free(reynolds=50.0), drag=0.1)
    y = torch.arange(32, dtype=torch.float64)[:, None] * (2 * math.pi / 32)
    w = 6 * torch.cos(3 * y) * torch.cos(3 * y.T)
    out = model.fields(march(model.advance, model.state(w), 50))
    decay = math.exp(-(2 * 9 / 50 + 0.1))
    assert torch.allclose(out["vorticity"], decay * w, rtol=0, atol=1e-12)
    assert torch.allclose(
        out["u"], -decay * torch.cos(3 * y.T) * torch.sin(3 * y), rtol=0, atol=1e-12
    )
    assert torch.allclose(
        out["v"], decay * torch.sin(3 * y.T) * torch.cos(3 * y), rtol=0, atol=1e-12
    )


def test_a_laminar_kolmogorov_flow_settles_to_its_closed_form() -> None:
    # the forcing sin(ky) against viscosity and drag: u = sin(ky) / (nu k^2 + alpha), stable when viscosity is large
    model = Kolmogorov(16, 2.0, wavenumber=2, drag=0.1, dtype=torch.float64)
    w = march(model.advance, model.state(1e-3 * randn(16, 16)), 1000)
    y = torch.arange(16, dtype=torch.float64)[:, None] * (2 * math.pi / 16)
    u = (torch.sin(2 * y) / (4 / 2 + 0.1)).expand(16, 16)
    assert torch.allclose(model.fields(w)["u"], u, rtol=0, atol=1e-6)


def test_kolmogorov_velocities_have_no_divergence_and_the_vorticity_that_is_carried() -> None:
    model = Kolmogorov(32, dtype=torch.float64)
    fields = model.fields(model.start(0, range(2)))
    k = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)

    def slope(x: Tensor, dim: int) -> Tensor:
        ik = 1j * (k[:, None] if dim == -2 else k)
        return torch.fft.ifft(torch.fft.fft(x, dim=dim) * ik, dim=dim).real

    assert float((slope(fields["u"], -1) + slope(fields["v"], -2)).abs().max()) < 1e-12
    curl = slope(fields["v"], -1) - slope(fields["u"], -2)
    assert torch.allclose(curl, fields["vorticity"], rtol=0, atol=1e-11)


def test_without_viscosity_energy_and_enstrophy_stay_to_the_error_of_the_step() -> None:
    def drift(dt: float) -> tuple[float, float]:
        model = free(dt)
        w = model.start(3, range(1))
        before, after = model.fields(w), model.fields(march(model.advance, w, round(1 / dt)))
        pairs = [
            [float((f["u"] ** 2 + f["v"] ** 2).mean()), float((f["vorticity"] ** 2).mean())]
            for f in (before, after)
        ]
        energy, enstrophy = (abs(b / a - 1) for a, b in zip(*pairs, strict=True))
        return energy, enstrophy

    coarse, fine = drift(0.04), drift(0.02)
    assert max(coarse) < 1e-4
    assert all(b < a / 12 for a, b in zip(coarse, fine, strict=True))


def test_the_energy_budget_of_the_driven_flow_closes() -> None:
    model = Kolmogorov(32, 100.0, dt=0.01, dtype=torch.float64)
    w = march(model.advance, model.start(0, range(2)), 500)

    def energy(w: Tensor) -> Tensor:
        f = model.fields(w)
        return (f["u"] ** 2 + f["v"] ** 2).mean((-1, -2)) / 2

    after = model.advance(w)
    slope = (energy(model.advance(after)) - energy(w)) / 0.02
    f = model.fields(after)
    y = torch.arange(32, dtype=torch.float64)[:, None] * (2 * math.pi / 32)
    gain = (f["u"] * torch.sin(4 * y)).mean((-1, -2))
    loss = (f["vorticity"] ** 2).mean((-1, -2)) / 100 + 0.2 * energy(after)
    assert torch.allclose(slope, gain - loss, rtol=2e-3, atol=1e-5)


def test_kolmogorov_steps_converge_with_order_four() -> None:
    driven = Kolmogorov(32, 200.0, dtype=torch.float64)
    w = march(driven.advance, driven.start(0, range(1)), 100)
    found = order(lambda n: march(replace(driven, dt=0.4 / n).advance, w, n).abs(), 10)
    assert found == pytest.approx(4, abs=0.3)


def test_a_kolmogorov_trajectory_depends_on_the_seed_and_its_number_alone() -> None:
    model = Kolmogorov(16)
    many, one = (
        kolmogorov.simulate(4, 2, model=model, trajectories=n, spin_up=10.0) for n in (9, 1)
    )
    assert xr.Dataset.equals(many.isel(trajectory=[0]), one)
    assert not np.array_equal(many.u[0], many.u[8])
    assert dict(many.sizes) == {"trajectory": 9, "time": 4, "y": 16, "x": 16}
    assert many.u.dtype == np.float32 and np.isfinite(many.u).all()
    assert np.allclose(np.diff(many.time), 0.2)


# The quasi-geostrophic atmosphere


def coefficient(model: QuasiGeostrophic, l: int, m: int, value: float) -> Tensor:
    """A streamfunction, the same at both levels, of one harmonic."""
    psi = torch.zeros(2, (model.degree + 1) ** 2, dtype=model.dtype)
    psi[:, l * l + l + m] = value
    return psi


@pytest.mark.parametrize(("l", "m"), [(5, 4), (7, 3), (3, 1)])
def test_rossby_haurwitz_waves_drift_with_their_speed_and_keep_their_form(l: int, m: int) -> None:
    # a harmonic on solid rotation w turns at w - 2 (Omega + w) / (l (l + 1)): Haurwitz 1940
    turn = 20.0 / RADIUS  # the rotation of a zonal wind of 20 m/s at the equator, per second
    solid = -turn * 86400 * math.sqrt(4 * math.pi / 3)  # psi = -w sin(latitude)
    psi = coefficient(BARE, 1, 0, solid) + coefficient(BARE, l, m, 0.3)
    days = 4
    q = march(BARE.advance, BARE.vorticity(psi), round(days / BARE.step))
    out = BARE.streamfunction(q)
    angle = m * (turn - 2 * (OMEGA + turn) / (l * (l + 1))) * 86400 * days
    want = coefficient(BARE, 1, 0, solid) + coefficient(BARE, l, m, 0.3 * math.cos(angle))
    want = want + coefficient(BARE, l, -m, 0.3 * math.sin(angle))
    assert torch.allclose(out, want, rtol=0, atol=2e-4)


def test_advection_conserves_energy_and_the_enstrophy_of_each_level() -> None:
    def drift(step: float) -> tuple[float, float]:
        model = replace(BARE, step=step, mountains=2000.0)
        q = model.vorticity(0.3 * randn(2, 256) * (1 / (1 + model.harmonics.degrees**2)))
        after = march(model.advance, q, round(2 / step))
        energy = float((model.energy(after) / model.energy(q) - 1).abs())
        return energy, float((model.enstrophy(after) / model.enstrophy(q) - 1).abs().max())

    coarse, fine = drift(0.125), drift(0.0625)
    assert max(coarse) < 1e-3
    assert all(b < a / 12 for a, b in zip(coarse, fine, strict=True))


def test_quasi_geostrophic_steps_converge_with_order_four() -> None:
    model = replace(SHORT, dtype=torch.float64)
    q = march(model.advance, model.start(0, range(1)), 200)
    found = order(lambda n: march(replace(model, step=1.0 / n).advance, q, n), 8)
    assert found == pytest.approx(4, abs=0.3)


def test_potential_vorticity_and_streamfunction_are_inverses() -> None:
    model = replace(BARE, mountains=1000.0)
    psi = randn(3, 2, 256)
    psi[..., 0] = 0.0  # a constant moves nothing; the inverse takes none
    assert torch.allclose(model.streamfunction(model.vorticity(psi)), psi, rtol=0, atol=1e-12)


def test_the_temperature_is_in_linear_balance_with_the_shear() -> None:
    # for psi1 - psi2 = -c sin(lat), lap(Phi) = div(f grad psi) gives Phi = -(2/3) Omega c P2(sin(lat))
    wind = 15.0
    psi = coefficient(BARE, 1, 0, -wind * 86400 / RADIUS * math.sqrt(4 * math.pi / 3))
    psi[1] = 0.0
    fields = BARE.fields(BARE.vorticity(psi))
    s = torch.cos(BARE.harmonics.grid.colatitudes)[:, None]
    thickness = -2 / 3 * OMEGA * wind * RADIUS * (3 * s**2 - 1) / 2
    want = 255 + thickness / (287.05 * math.log(3))
    assert torch.allclose(fields["t"], want.expand(fields["t"].shape), rtol=1e-9)
    assert torch.allclose(fields["u"][0], wind * (1 - s**2).sqrt() + 0 * fields["u"][0], rtol=1e-9)
    assert float(fields["u"][1].abs().max()) < 1e-9 and float(fields["v"].abs().max()) < 1e-9


def test_relaxation_friction_and_diffusion_act_at_their_rates() -> None:
    psi = torch.zeros(2, 256, dtype=torch.float64)
    psi[:, 15 * 15 + 15] = 1.0  # a zonal harmonic of the smallest scale is carried nowhere
    base = replace(BARE, shear=0.0)
    cases = [(replace(base, friction=2.0), 0.0), (replace(base, diffusion=2.0), 0.5)]
    for model, upper in cases:
        q = model.vorticity(psi)
        relative = model.rate(q) / (q - model.vorticity(0 * psi))
        found = relative[:, 15 * 15 + 15]
        assert torch.allclose(-found, torch.tensor([upper, 0.5]).double(), atol=1e-12)
    model = replace(base, relaxation=4.0)
    psi[1] = 0.0
    rate = model.rate(model.vorticity(psi))[:, 240]
    share = (RADIUS / model.deformation) ** 2 / 4
    assert torch.allclose(rate, torch.tensor([share, -share]).double())


def test_a_weather_trajectory_depends_on_the_seed_and_its_number_alone() -> None:
    def run(n: int, seed: int = 0) -> xr.Dataset:
        return quasigeostrophic.simulate(3, seed, model=SHORT, trajectories=n, spin_up=20.0)

    many, one = run(9), run(1)
    first = many.isel(time=many.trajectory.values == 0)
    assert xr.Dataset.equals(first, one)
    assert not np.array_equal(many.u[:6], many.u[-6:])
    assert not np.array_equal(run(1, 1).u, one.u)


def test_the_dataset_looks_like_a_reanalysis() -> None:
    ds = quasigeostrophic.simulate(2, model=SHORT, hours=6, trajectories=2, spin_up=0.0)
    assert ds.u.dims == ("time", "level", "lat", "lon") and ds.t.dims == ("time", "lat", "lon")
    assert dict(ds.sizes) == {"time": 16, "level": 2, "lat": 16, "lon": 32}
    assert ds.lat[0] > 80 and bool((np.diff(ds.lat) < 0).all()) and float(ds.lon[1]) == 11.25
    steps = np.diff(ds.time.values) / np.timedelta64(1, "h")
    assert set(steps[[*range(7), *range(8, 15)]]) == {6.0} and steps[7] > 24 * 30
    for name in ("psi", "u", "v", "t", "orography"):
        assert ds[name].dtype == np.float32 and ds[name].attrs["units"]
    assert float(ds.orography.max()) == pytest.approx(2500, rel=0.1)


@pytest.fixture(scope="module")
def climate() -> xr.Dataset:
    model = QuasiGeostrophic(step=0.1875)
    return quasigeostrophic.simulate(
        30, model=model, hours=4.5 * 8, trajectories=8, spin_up=60.0, progress=False
    )


def test_the_climate_has_westerly_jets_and_transient_eddies_and_stays(climate: xr.Dataset) -> None:
    u = climate.u.mean(("time", "lon")).sel(level=250)
    for jet in (u.sel(lat=slice(60, 25)), u.sel(lat=slice(-25, -60))):
        assert 20 < float(jet.max()) < 50
        assert float(jet.max()) > float(u.sel(lat=slice(15, -15)).max()) + 5
    belt = climate.v.sel(lat=slice(60, 30))
    upper, lower = (float(belt.sel(level=p).std()) for p in (250, 750))
    assert 10 < upper < 30 and 4 < lower < upper
    t = climate.t.mean(("time", "lon"))
    assert float(t.sel(lat=0, method="nearest") - t[0]) > 25
    halves = [climate.isel(time=climate.trajectory.values < 4), climate]
    energy = [float((part.u**2 + part.v**2).mean()) for part in halves]
    assert energy[0] == pytest.approx(energy[1], rel=0.15)


def test_weather_forgets_its_start(climate: xr.Dataset) -> None:
    # streamfunctions of different trajectories, without their means, are no more alike than chance makes them
    psi = climate.psi.sel(level=250) - climate.psi.sel(level=250).mean("time")
    last = [psi.isel(time=climate.trajectory.values == i)[-1].values.ravel() for i in range(8)]
    found = np.corrcoef(last)[np.triu_indices(8, 1)]
    assert abs(found.mean()) < 0.3 and np.abs(found).max() < 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lorenz96.simulate(0.1), "days must be at least one step"),
        (lambda: lorenz96.simulate(10, trajectories=0), "trajectories must be at least 1"),
        (lambda: Lorenz96(3), "size must be at least 4"),
        (lambda: Lorenz96(dt=0.0), "dt must be positive"),
        (lambda: Kolmogorov(6), "size must be at least 8"),
        (lambda: Kolmogorov(16, wavenumber=6), r"wavenumber must lie in 1\.\.5"),
        (lambda: Kolmogorov(dt=-1.0), "dt must be positive"),
        (lambda: kolmogorov.simulate(0), "frames must be at least 1"),
        (lambda: kolmogorov.simulate(2, every=0.03), "every must be a multiple of the step"),
        (lambda: quasigeostrophic.simulate(1, hours=5), "hours must be a multiple"),
        (lambda: quasigeostrophic.simulate(0.1), r"days must be at least 0\.5"),
        (lambda: quasigeostrophic.simulate(1, trajectories=0), "trajectories must be at least 1"),
        (lambda: QuasiGeostrophic(degree=4), "degree must be at least 5"),
        (lambda: QuasiGeostrophic(friction=0.0), "friction must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
