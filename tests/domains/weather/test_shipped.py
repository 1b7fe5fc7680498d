"""What ships with the domain: recipes, models, and the state that a forecast may start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciffusion.domains import weather
from sciffusion.domains.weather import api

RECIPES = sorted(path.stem for path in (Path(api.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_read(name: str) -> None:
    config = weather.recipe(name)
    assert config.data.source in weather.DATASETS
    assert weather.recipe(name, ["train.steps=7"]).train.steps == 7


def test_an_unknown_recipe_or_model_is_told_the_right_name() -> None:
    with pytest.raises(FileNotFoundError, match="Did you mean 'speedy-mean'"):
        weather.recipe("speedy-meen")
    with pytest.raises(FileNotFoundError, match="Did you mean 'speedy'"):
        weather.load("speedi")
    with pytest.raises(ValueError, match="comes without states"):
        weather.example("mrms")


@pytest.mark.parametrize("name", list(weather.models()))
def test_every_model_loads_and_says_what_it_was_trained_on(name: str) -> None:
    model = weather.load(name)
    assert model.info is not None and {"data", "training", "parameters"} <= set(model.info)
    assert weather.models()[name].stat().st_size < 6_000_000


def test_the_shipped_forecast_beats_persistence_and_its_rival_is_deterministic() -> None:
    assert next(iter(weather.models())) == "speedy"
    ds, truth = weather.example("speedy"), weather.verifying("speedy")
    forecast = weather.load("speedy").forecast(ds, 2, 4)
    rival = weather.load("speedy-mean").forecast(ds, 2, 2)
    np.testing.assert_array_equal(rival.z500[0], rival.z500[1])
    at = forecast.valid_time.values[0]
    y = truth.z500.sel(time=at).values
    last = ds.z500.isel(time=-1).values

    def error(x: np.ndarray) -> np.ndarray:
        weights = weather.Grid.of(ds).area.numpy()
        return np.sqrt((weights * (x - y) ** 2).mean((1, 2)))

    assert (error(forecast.z500.mean("member").values[0]) < 0.6 * error(last[None])).all()


def test_the_shipped_interpolation_finds_the_middle_of_a_day_better_than_a_straight_line() -> None:
    truth = weather.verifying("speedy")
    ends = truth.isel(time=slice(None, None, 2))
    middle = truth.time[1::2]
    made = weather.load("speedy-interpolate").interpolate_time(ends, 4)
    line = ends.interp(time=middle)
    for name in ("z500", "t850", "u850", "v850"):
        y = truth[name].sel(time=middle)
        ours, theirs = (
            float(((x[name] - y) ** 2).mean()) ** 0.5 for x in (made.mean("member"), line)
        )
        assert ours < 0.5 * theirs


def test_the_demonstration_leaves_a_forecast_pictures_and_a_report(tmp_path: Path) -> None:
    report = weather.demo(tmp_path, members=3, days=1)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"forecast.nc", "members.png", "member.gif", "report.json"}
    assert report["z500 +24 h", "crps"].value > 0


def test_no_module_stands_where_something_of_its_name_is_offered() -> None:
    modules = {path.stem for path in Path(api.__file__).parent.iterdir()}
    assert modules.isdisjoint(weather.__all__)
