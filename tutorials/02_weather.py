# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weather, many times over
#
# A forecast that is one map claims to know what nobody knows. Better is a set of maps, each a
# weather that could come, together as different as our ignorance is large. A generative model draws
# such maps: every member looks like weather, and no two agree on what cannot be known.
#
# The same idea answers three questions in this lesson. What comes next (forecast)? What lies below
# the grid (downscaling)? What was the weather between the stations (assimilation)? An
# `xarray.Dataset` goes in, an `xarray.Dataset` with a dimension `member` comes out. All of it runs
# on a laptop without GPU, offline. It needs `pip install "sciffusion[weather]"`.

# %% tags=["parameters"]
import tempfile
import time
from pathlib import Path

import helper
import numpy as np
import pandas as pd
import torch
import xarray as xr

from sciffusion.domains import weather
from sciffusion.domains.weather import maps, plots, ranks, spectra

SEED = 0
STEPS = 2 if helper.QUICK else 5  # of the forecast, a day each
MEMBERS = 3 if helper.QUICK else 20  # of the forecast
FEW = 3 if helper.QUICK else 8  # members of the other ensembles
DAYS = 12 if helper.QUICK else 100  # of each simulated trajectory, of which there are
TRAJECTORIES = 2 if helper.QUICK else 8
SPIN_UP = 20 if helper.QUICK else 60  # days until the simulated weather has formed
CASES = 2 if helper.QUICK else 4  # times that are downscaled and analysed
TRAINING_STEPS = 2 if helper.QUICK else 500  # of each of our own two models
STATIONS = 60

figures: dict[str, float] = {}
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# The figures of the last full run, with the hardware and the command that made them. No figure
# stands in the prose, so none can grow stale there.

# %%
helper.published("02_weather")

# %% [markdown]
# ## Forecast
#
# One model ships with the library. It learnt from SPEEDY, an atmosphere of intermediate complexity
# on a coarse grid: a simulated world, with jets and cyclones, but not ours. It sees two states,
# twelve hours apart, and makes those of the next day. With it come states to start from, and what
# followed.

# %%
model = weather.load("speedy")
ds = weather.example("speedy")
truth = weather.verifying("speedy")
ds

# %%
started = time.process_time()
forecast = model.forecast(ds, steps=STEPS, members=MEMBERS, seed=SEED)
figures["forecast_cpu_seconds"] = round(time.process_time() - started, 1)
forecast

# %% [markdown]
# The members are their own forecasts from the first step on. Member number two depends on the seed,
# the number two and the start alone: ask for three members or for a thousand, in batches of any
# size, and it stays the same.

# %%
again = model.forecast(ds, steps=1, members=3, seed=SEED, batch_size=1)
first = forecast.sel(prediction_timedelta=again.prediction_timedelta, member=again.member)
assert np.allclose(again.z500, first.z500, rtol=1e-5)

# %%
last = forecast.z500.isel(time=0, prediction_timedelta=-1)
maps.stamps(last, truth.z500.sel(time=last.valid_time), members=8)

# %% [markdown]
# The mean is the smoothest of these maps, for where members disagree, their waves cancel. It has
# the smallest error of all, and it is not weather: use it as a best guess of one number, never as a
# map.
#
# ## Judge
#
# `evaluate` scores every variable at every lead time. A forecast that changes nothing is the least
# that a model has to beat, so we judge that too.

# %%
report = weather.evaluate(forecast, truth, seed=SEED)
report

# %%
start = ds[list(forecast.data_vars)].isel(time=-1, drop=True)
leads = {name: forecast[name] for name in ("time", "prediction_timedelta")}
persistence = weather.evaluate(start.expand_dims(leads), truth)
for hours in (24, 24 * STEPS):
    row = f"z500 +{hours} h"
    figures[f"z500_crps_m_at_{hours}_h"] = round(report[row, "crps"].value, 2)
    figures[f"z500_rmse_m_at_{hours}_h"] = round(report[row, "rmse"].value, 2)
    figures[f"z500_rmse_of_persistence_m_at_{hours}_h"] = round(persistence[row, "rmse"].value, 2)
    figures[f"z500_spread_skill_at_{hours}_h"] = round(report[row, "spread_skill"].value, 3)

# %% [markdown]
# How to read the table:
#
# * **CRPS**, in the unit of the variable, smaller is better: how far the members lie from the
#   truth, less half of how far they lie from each other. For one member it would be its absolute
#   error, so compare it with the column MAE, that of the ensemble mean. *Fair* means that the number
#   of members does not enter: ensembles of ten and of fifty can be compared.
# * **Spread/skill**: how far members are from their mean, over how far the truth is from it.
#   1 is right. Below 1 the ensemble is too sure of itself, above 1 not sure enough. It cannot be
#   read off alone: a climatology has a ratio near 1 as well, with a large error.
# * **Outliers**: how often the truth lies outside of all members. A few members are exceeded often
#   even if they are perfect; `report` keeps the right share for their number.
# * **Power from, to**: the members' power over that of the truth, at the scale where it is least
#   and where it is largest.

# %%
print(report["z500 +24 h", "outliers"].what)
plots.skill(report, "z500")

# %%
plots.skill({"model": report, "persistence": persistence}, "z500", scores=("rmse",))

# %% [markdown]
# Solid is the error of the mean, dashed the spread: in a good ensemble they lie on each other, as
# far as days are alike. One start is one draw of the weather, though. The report gives no intervals
# for it, for there is nothing to draw again, and a ratio of this one week says little of the model.
# To judge a model, forecast from many starts, `model.forecast(ds, ..., times=ds.time[::20])`:
# `evaluate` then adds intervals over initial times.
#
# Two more questions. Has every member as much weather at each scale as the truth has? And where
# does the truth fall among the members?

# %%
then = truth.z500.sel(time=last.valid_time)
curves = {"members": spectra.spectrum(last), "mean": spectra.spectrum(last.mean("member"))}
plots.spectrum_plot(curves, spectra.spectrum(then))

# %%
histogram = ranks.rank_histogram(forecast.z500, truth.z500)
plots.rank_plot({"z500": histogram.mean("prediction_timedelta")})

# %% [markdown]
# A flat histogram is right. Raised ends mean too little spread, a dome too much, a slope a bias.
#
# ## Downscale: train a model of your own
#
# The next two models learn from data that we make here: a quasi-geostrophic atmosphere with two
# levels, jets and storms, in seconds. Its last trajectory is kept from training. With data of your
# own, `world = xr.open_dataset(...)` stands here.

# %%
from sciffusion.domains.weather.simulators import quasigeostrophic

world = quasigeostrophic.simulate(
    DAYS, SEED, hours=24, trajectories=TRAJECTORIES, spin_up=SPIN_UP, progress=False
)
world = world.sel(level=750.0, drop=True)[["t", "u", "v", "orography"]]
seen = world.isel(time=world.trajectory.values < TRAJECTORIES - 1)
unseen = world.isel(time=world.trajectory.values == TRAJECTORIES - 1)
unseen = unseen.isel(time=np.linspace(0, DAYS - 1, CASES).astype(int))
print(f"{seen.sizes['time']} states to learn from, {unseen.sizes['time']} to be judged by")

# %% [markdown]
# What a model does is said by what it is given (`inputs`, hours from a reference time), what it
# makes (`targets`), and to which `base` it adds the residual that it draws. To downscale is to make
# the state of now out of its own means over boxes: each is a number where there were sixteen. The
# base `ridge` is a linear regression from all boxes to all cells, and the network draws what is left.
# `lmax` says that the data are resolved up to this degree of spherical harmonics (leave it out for
# data from a grid), `noise="fitted"` starts from noise that already has the spectrum of the
# residuals, and `vectors` turn around beyond a pole.

# %%
from sciffusion.domains.weather import ModelConfig, UNetConfig, WeatherTraining
from sciffusion.ema import Constant
from sciffusion.training import TrainConfig

network = UNetConfig(widths=(16, 32), blocks=1, attention=(False, False), embedding=32)
training = TrainConfig(
    steps=TRAINING_STEPS,
    batch_size=8,
    lr=4e-3,
    warmup=30,
    ema=Constant(0.99),
    print_seconds=30,
)
downscaling = ModelConfig(
    network,
    variables=("u", "v"),
    statics=("orography",),
    vectors=("u", "v"),
    inputs=(0,),
    targets=(0,),
    coarse=4,
    base="ridge",
    schedule="rectified-flow",
    noise="fitted",
    lmax=21,
)

# %%
started = time.process_time()
downscaler, state = weather.train(
    WeatherTraining(downscaling, train=training), folder / "downscaler", seen
)
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["downscaler_training_cpu_seconds"] = round(time.process_time() - started, 1)

# %% [markdown]
# The run lives in a folder: interrupt it, call it again, and it goes on. Its model lies beside as
# `model.safetensors`, for `weather.load`.
#
# Now the coarse fields, as area-weighted means over boxes, and many fine ones for each.

# %%
area = xr.DataArray(np.cos(np.deg2rad(world.lat.values)), dims="lat")
fine = unseen[["u", "v"]]
with xr.set_options(keep_attrs=True):
    boxes = (fine * area).coarsen(lat=4, lon=4).mean()
    coarse = boxes / area.coarsen(lat=4).mean()
dict(coarse.sizes)

# %%
started = time.process_time()
members = downscaler.downscale(coarse, members=FEW, seed=SEED)
figures["downscaling_cpu_seconds_per_map"] = round(
    (time.process_time() - started) / (FEW * CASES), 3
)
maps.stamps(members.v.isel(time=0), fine.v.isel(time=0), members=3)

# %% [markdown]
# The rival is interpolation. It knows nothing of weather, and has no detail to be wrong about.

# %%
from sciffusion.domains.weather.baselines import enlarge


def interpolated(field: xr.DataArray) -> xr.DataArray:
    """The coarse version of a fine field, interpolated bilinearly around the globe."""
    cells = torch.from_numpy(coarse[str(field.name)].values)
    return field.copy(data=enlarge(cells, 4, "bilinear", circular=True).numpy())


smooth = fine.map(interpolated)
curves = {
    "members": spectra.spectrum(members.v),
    "mean of members": spectra.spectrum(members.v.mean("member")),
    "interpolated": spectra.spectrum(smooth.v),
}
real = spectra.spectrum(fine.v)
plots.spectrum_plot(curves, real)

# %% [markdown]
# This picture is why one draws members. Up to the scale of the boxes all curves agree, for the
# coarse field tells what is there. Beyond it, the mean of the members and the interpolated field
# lose their power: both are best guesses, and the best guess of a wave whose phase is unknown is no
# wave. The members keep what they should: each is one fine field that could have been.
#
# The error tells the reverse. Here is a member as if it were a forecast, the mean, and the
# interpolation, beside the ensemble. Whoever compares models by the error of single maps chooses
# the one that blurs.

# %%
judged = {
    "members": weather.evaluate(members, fine, seed=SEED),
    "one_member": weather.evaluate(members.isel(member=0), fine),
    "interpolated": weather.evaluate(smooth, fine),
}
for name, of in judged.items():
    figures[f"downscaled_v_mae_of_{name}_m_s"] = round(of["v", "mae"].value, 3)
figures["downscaled_v_crps_m_s"] = round(judged["members"]["v", "crps"].value, 3)
figures["downscaled_v_spread_skill"] = round(judged["members"]["v", "spread_skill"].value, 3)
for name, spectrum in curves.items():
    ratio = spectra.spectral_ratio(spectrum, real).sel(degree=slice(12, None))
    key = f"downscaled_v_power_over_truth_beyond_degree_12_{name.replace(' ', '_')}"
    figures[key] = round(float(ratio.mean()), 3)
    print(f"{name:<16} {figures[key]:.3f} of the power of the truth, mean beyond degree 12")
judged["members"]

# %% [markdown]
# (The column MAE is that of the mean of the members.)
#
# ## Assimilate: weather between the stations
#
# For this the model need not know what it will be asked. A *prior* has no inputs: it draws weather
# as it could be at any time. Observations come in afterwards, when it is sampled: at every step the
# fields are drawn to what was observed, as strongly as the errors of the observations allow. So one
# prior serves thermometers, swaths of a satellite, and functions that you write.

# %%
climate = ModelConfig(
    network,
    variables=("t", "v"),
    statics=("orography",),
    vectors=("v",),
    inputs=(),
    targets=(0,),
    base="cell",
    schedule="rectified-flow",
    noise="fitted",
    lmax=21,
)
started = time.process_time()
prior, state = weather.train(WeatherTraining(climate, train=training), folder / "prior", seen)
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["prior_training_cpu_seconds"] = round(time.process_time() - started, 1)

# %%
dreamt = prior.sample(3, unseen.time.values[:1], seed=SEED)
maps.stamps(dreamt.v.isel(time=0), members=3)

# %% [markdown]
# Weather that never was. Now the observations: a table with a row for each, as it comes out of an
# archive. The stations are anywhere on the globe, they measure temperature with an error of one
# kelvin, and nobody measures the wind.

# %%
from sciffusion.domains.weather.observations import Points

rng = np.random.default_rng(SEED)
stations = pd.DataFrame(
    {
        "lat": np.rad2deg(np.arcsin(rng.uniform(-1, 1, STATIONS))),
        "lon": rng.uniform(0, 360, STATIONS),
    }
)
ERROR = 1.0  # K
names = ("t", "v")
fields = weather.Fields.of(unseen, names)
points = Points(fields.grid, stations.lat, stations.lon, names.index("t"))
measured = points(fields.read(np.arange(CASES))).double().numpy()
measured += ERROR * rng.standard_normal(measured.shape)
table = pd.concat(
    stations.assign(time=date, variable="t", value=row, std=ERROR)
    for date, row in zip(unseen.time.values, measured, strict=True)
)
table.head()

# %% [markdown]
# `settings` says how: fewer steps than by default, for our time is short.

# %%
from sciffusion.samplers import Multistep, Sampler

how = weather.Assimilation(
    sampler=Sampler(Multistep(2, eta=1.0), 4 if helper.QUICK else 16), members=FEW
)
started = time.process_time()
analysis = prior.assimilate(table, unseen.time.values, settings=how, seed=SEED)
figures["assimilation_cpu_seconds"] = round(time.process_time() - started, 1)
analysis

# %%
sketch = maps.field_map(analysis.t.isel(time=0).std("member", keep_attrs=True), title="spread of t")
sketch.axes[0].scatter(stations.lon, stations.lat, s=8, c="white", edgecolors="black", lw=0.5)
sketch

# %%
maps.stamps(analysis.v.isel(time=0), unseen.v.isel(time=0), members=3)

# %% [markdown]
# The wind was never observed: what the members know of it, they know from the temperature.
#
# First check, without any truth: members should miss the observations by as much as the
# observations err. A ratio below 1 says that they follow the noise, above 1 that they ignore what
# was measured.

# %%
from sciffusion.domains.weather.observed import misfits
from sciffusion.domains.weather.stations import read_stations

reports = read_stations(table, fields.grid, fields.channels, fields.times)
each = [weather.Fields.of(analysis.isel(member=m), names) for m in range(FEW)]
states = torch.stack([member.read(np.arange(CASES)) for member in each])
for misfit in misfits(reports, states):
    print(misfit)
    figures["misfit_ratio"] = round(misfit.ratio, 3)

# %% [markdown]
# Second check, against rivals. *Climatology* draws past states, whatever was observed. *Optimal
# interpolation* is what to do if weather were Gaussian: the covariance of past states tells how far
# an observation reaches, and how much of it is wind. It is exact for its assumption, and hard to
# beat by a network that trained for a minute.

# %%
from sciffusion.domains.weather.baselines import OptimalInterpolation

past = weather.Fields.of(seen, names)
history = past.read(np.arange(len(past)))
shape = history.shape[1:]
law = OptimalInterpolation.fit(history.flatten(1).double().numpy())
where = points(torch.eye(len(law.mean)).unflatten(1, shape)).T.double().numpy()
drawn = law.analyse(measured, where, ERROR**2).sample(FEW, SEED)  # (member, time, place)
optimal = torch.from_numpy(drawn).unflatten(-1, shape).transpose(0, 1)
usual = history[rng.choice(len(history), FEW, replace=False)].expand(CASES, -1, *shape)
rivals = {
    "climatology": fields.dataset(usual, fields.times),
    "optimal_interpolation": fields.dataset(optimal, fields.times),
    "prior_and_observations": analysis,
}
judged = {name: weather.evaluate(of, unseen[list(names)], seed=SEED) for name, of in rivals.items()}
for variable in names:
    for name, of in judged.items():
        score, ratio = of[variable, "crps"], of[variable, "spread_skill"]
        figures[f"analysis_{variable}_crps_{name}"] = round(score.value, 3)
        figures[f"analysis_{variable}_spread_skill_{name}"] = round(ratio.value, 3)
        print(f"{variable}  {name:<24} CRPS {' '.join(score.text()):<16} {score.unit:<6}", end="")
        print(f"spread/skill {' '.join(ratio.text())}")

# %%
curves = {name.replace("_", " "): spectra.spectrum(of.v) for name, of in rivals.items()}
plots.spectrum_plot(curves, spectra.spectrum(unseen.v))

# %% [markdown]
# ## Your own data
#
# Weather is larger than memory. Open it lazily, from NetCDF or from Zarr: what a model needs is
# read when it needs it. Variables and units must be those that the model was trained on (an error
# names the one that is not, and the factor between them); order of latitudes, counting of
# longitudes, calendar and attributes are yours, and come back as they were.

# %%
own = ds.isel(lat=slice(None, None, -1)).assign_coords(lon=(ds.lon + 180) % 360 - 180)
own = own.sortby("lon").convert_calendar("noleap", use_cftime=True)
own.to_netcdf(folder / "own.nc", engine="h5netcdf")
lazy = weather.read(folder / "own.nc")
print(weather.Fields.of(lazy))
lazy

# %% [markdown]
# `out` streams to disk: memory holds one step, however long the forecast is. A run that dies goes
# on where it stopped when it is called again, and so does one that is to become longer.

# %%
file = folder / "forecast.zarr"
model.forecast(lazy, steps=1, members=3, seed=SEED, out=file)
written = model.forecast(lazy, steps=2, members=3, seed=SEED, out=file)  # makes the second only
print(dict(written.sizes), written.valid_time.values[0, -1])
back = written.assign_coords(lon=written.lon % 360).sortby("lon").reindex(lat=forecast.lat)
direct = forecast.z500.isel(
    member=slice(3), prediction_timedelta=slice(written.sizes["prediction_timedelta"])
)
assert np.allclose(back.z500, direct, rtol=1e-5)

# %% [markdown]
# Another forecast in the same file is refused, for then nobody would know what the file holds.

# %%
try:
    model.forecast(lazy, steps=2, members=3, seed=SEED + 1, out=file)
except ValueError as error:
    print(error)

# %% [markdown]
# A region is a selection, before or after. A forecast of the globe is judged on a part of it:


# %%
def atlantic(ds: xr.Dataset) -> xr.Dataset:
    """The North Atlantic and Europe."""
    ds = ds.assign_coords(lon=(ds.lon + 180) % 360 - 180).sortby("lon")
    return ds.sel(lat=slice(20, 75), lon=slice(-60, 42))


print(weather.evaluate(atlantic(forecast[["z500", "t850"]]), atlantic(truth)))

# %% [markdown]
# And a model of a region is trained on nothing else than the region: hand `weather.train` the
# selection (or say `data.rows` and `data.columns`), without `lmax` and with `noise="white"`, for
# spherical harmonics need the globe. The edges of the map are then edges, and its columns no longer
# close around the earth; the library sees that from the coordinates.

# %%
regional = seen.sel(lat=slice(75, 30), lon=slice(20, 110))
print(weather.Fields.of(regional, ["u", "v"]))

# %% [markdown]
# Where next: `sciffusion --help` for forecasts, training and judging on the command line;
# `weather.ModelConfig` for what else a model can be (states between states, windows, heavy-tailed
# noise, ensembles in one pass, a generative residual on a deterministic model);
# [choose a sampler](choose_a_sampler.md) for what to do if sampling is too slow.

# %%
for name, value in figures.items():
    print(f"{name:<68} {value:g}")
