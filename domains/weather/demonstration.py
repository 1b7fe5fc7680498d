"""The demonstration: a forecast by the shipped model from a state that ships with it, judged and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from sciffusion.io import atomic_write

from .api import load, models
from .sources import read

if TYPE_CHECKING:
    from .report import Report

__all__ = ["demo", "example", "judge", "verifying"]

_HERE = Path(__file__).parent


def example(name: str | Path) -> xr.Dataset:
    """The states from which a shipped model may start, with the statics that it needs.

    Raises:
        ValueError: a model that does not ship, or ships without an example: name states to start from.
    """
    ds = _packaged(name)
    return ds.isel(time=slice(0, ds.attrs["states_to_start_from"]))


def verifying(name: str | Path) -> xr.Dataset:
    """What followed :func:`example`."""
    ds = _packaged(name)
    return ds.isel(time=slice(ds.attrs["states_to_start_from"] - 1, None))


def _packaged(name: str | Path) -> xr.Dataset:
    path = _HERE / "weights" / f"{name}.start.nc"
    if not path.is_file():
        raise ValueError(
            f"the model {str(name)!r} comes without states to start from; name a file with --start"
        )
    with xr.open_dataset(path, engine="h5netcdf") as ds:
        return ds.load()


def judge(file: str, reference: str | None = None, *, seed: int = 0) -> Report:
    """Judge a forecast or any ensemble in a file against the truth in another; see `evaluate`.

    Raises:
        ValueError: no reference.
    """
    from .evaluation import evaluate

    if reference is None:
        raise ValueError("an ensemble is judged against what happened: name it with --reference")
    return evaluate(read(file), read(reference), seed=seed)


def demo(directory: str | Path, *, members: int = 20, days: int = 5, seed: int = 0) -> Report:
    """Forecast by the first shipped model; ``directory`` receives ``forecast.nc``, pictures and ``report.json``."""
    from .evaluation import evaluate
    from .maps import animation, stamps

    folder, name = Path(directory), next(iter(models()))
    model = load(name)
    steps = days * 24 // model.config.targets[-1]
    made = model.forecast(example(name), steps, members, seed=seed, out=folder / "forecast.nc")
    with made as forecast:
        truth = verifying(name)
        report = evaluate(forecast, truth, seed=seed, lmax=model.config.lmax)
        report.save(folder / "report.json")
        first = str(next(iter(forecast.data_vars)))
        field = forecast[first].isel(time=0)
        with atomic_write(folder / "members.png") as part:
            stamps(field.isel(prediction_timedelta=-1), truth[first].isel(time=-1)).savefig(
                part, dpi=150
            )
        animation(field.isel(member=0), folder / "member.gif")
    return report
