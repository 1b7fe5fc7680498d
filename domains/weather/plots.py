"""Pictures of scores: spectra beside the truth's, rank histograms, skill against lead time.

The figures are `matplotlib.figure.Figure` objects: they show themselves in a notebook and are stored with
``figure.savefig("skill.png")``. Nothing here touches pyplot's state. Pictures of fields stand in `maps`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sciffusion.errors import require

from .canvas import figure_of, label_of, tidy
from .matching import MEMBER, TIME
from .ranks import outlier_fraction
from .report import Report
from .spectra import SCALES

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

__all__ = ["rank_plot", "skill", "spectrum_plot"]

_OURS, _TRUTH, _SPREAD = "#1f6fb4", "#30343b", "#d1762a"


def spectrum_plot(
    spectra: Mapping[str, xr.DataArray], truth: xr.DataArray, *, ratio: bool = True
) -> Figure:
    """Spectra against scale, with the truth in black, and below them (``ratio``) each over the truth.

    ``spectra`` are named for the legend, as `spectra.spectrum` and its kin give them: averaged over time; where there
    are members, their mean is a line and their range a band. The axis above holds wavelengths in km.
    Raises ``ValueError`` for no spectra.
    """
    if not spectra:
        raise ValueError("spectra is empty; give at least one, named for the legend")
    figure = figure_of(5.6, 5.4 if ratio else 3.8)
    panels = figure.subplots(
        1 + ratio, 1, sharex=True, squeeze=False, height_ratios=[2.2, 1][: 1 + ratio]
    )
    upper = panels[0, 0]
    real = _curve(truth)
    (dim,) = (str(d) for d in real.dims)
    upper.plot(real[dim], real, color=_TRUTH, lw=2, label="truth")
    for colour, (name, spectrum) in zip(_colours(len(spectra)), spectra.items(), strict=True):
        curve = _curve(spectrum)
        each = curve if MEMBER in curve.dims else curve.expand_dims(MEMBER)
        for panel, values in zip(panels[:, 0], (each, each / real), strict=False):
            panel.plot(each[dim], values.mean(MEMBER), color=colour, lw=1.4, label=name)
            if each.sizes[MEMBER] > 1:
                low, high = values.min(MEMBER), values.max(MEMBER)
                panel.fill_between(each[dim], low, high, color=colour, alpha=0.2, lw=0)
    upper.set(xscale="log", yscale="log", ylabel=label_of(truth))
    upper.set_title("power spectrum", fontsize=10)
    upper.legend(frameon=False, fontsize=8)
    if ratio:
        panels[1, 0].axhline(1, color=_TRUTH, lw=1)
        panels[1, 0].set(ylabel="over truth", ylim=_ratio_limits(panels[1, 0]))
    unit = {"degree": "total wavenumber", "zonal_wavenumber": "zonal wavenumber"}
    panels[-1, 0].set_xlabel(unit.get(dim, "wavenumber (1 / km)"))
    _wavelengths(upper, real[dim].values, real["wavelength"].values)
    tidy(*panels[:, 0])
    return figure


def rank_plot(
    histograms: Mapping[str, xr.DataArray], *, cases: float | None = None, level: float = 0.95
) -> Figure:
    """Rank histograms relative to a flat one, which is the line at 1.

    ``histograms`` (rank,) are named for the legend, as `ranks.rank_histogram` gives them. ``cases``, the number of
    independent cases (see `ranks.effective_cases`), shades the band that holds each bin of a flat histogram in
    ``level`` of all samples. Raises ``ValueError`` for histograms with more dimensions, and for none.
    """
    if not histograms or any(h.dims != ("rank",) for h in histograms.values()):
        raise ValueError("histograms must hold at least one with the dimension 'rank' alone")
    figure = figure_of(5.2, 3.2)
    panel = figure.subplots()
    most = max(h.sizes["rank"] for h in histograms.values())
    if cases is not None:
        p = 1 / most
        normal = require("scipy.stats", extra="weather").norm.ppf((1 + level) / 2)
        half = normal * math.sqrt(p * (1 - p) / cases) / p
        panel.axhspan(
            1 - half, 1 + half, color="#c9ced6", alpha=0.6, lw=0, label=f"{level:.0%} of flat ones"
        )
    panel.axhline(1, color=_TRUTH, lw=1)
    for colour, (name, histogram) in zip(
        _colours(len(histograms)), histograms.items(), strict=True
    ):
        bins = histogram.sizes["rank"]
        outliers = outlier_fraction(histogram)
        text = f"{name}: outliers {outliers.item():.3f} (right: {outliers.attrs['expected']:.3f})"
        edges = np.linspace(0, 1, bins + 1)
        fill = len(histograms) == 1
        panel.stairs(
            bins * histogram.values, edges, color=colour, lw=1.5, fill=fill, alpha=0.75, label=text
        )
    panel.set(
        xlabel="rank of the truth among members (share below)",
        ylabel="frequency / flat",
        xlim=(0, 1),
    )
    panel.set_ylim(bottom=0, top=1.35 * max(panel.get_ylim()[1] / 1.05, 1))
    panel.set_title(
        f"rank histogram, {most - 1} members" if len(histograms) == 1 else "rank histogram",
        fontsize=10,
    )
    panel.legend(frameon=False, fontsize=7, loc="upper center")
    tidy(panel)
    return figure


def skill(
    reports: Report | Mapping[str, Report],
    variable: str,
    *,
    scores: Sequence[str] = ("rmse", "spread"),
) -> Figure:
    """Scores against lead time with their intervals: by default the error of the mean, solid, and the spread, dashed.

    ``reports`` come from `evaluation.evaluate` and are named for the legend; ``variable`` is a row's label without the
    lead: "t2m", or "z:500". Where a reliable ensemble has its spread, times root (M + 1) / M, lies its error. Raises
    ``ValueError`` for a report without leads of the variable, or without a score.
    """
    named = {"": reports} if isinstance(reports, Report) else reports
    styles = ("-", "--", ":", "-.")
    figure = figure_of(5.2, 3.4)
    panel = figure.subplots()
    unit = ""
    for colour, (name, report) in zip(_colours(len(named)), named.items(), strict=True):
        rows = [
            r
            for r in report.rows
            if r.lead is not None and f"{r.variable}:{r.at}".rstrip(":") == variable
        ]
        if not rows:
            labels = [r.label for r in report.rows]
            raise ValueError(
                f"variable {variable!r} has no lead times in the report; its rows are {labels}"
            )
        for score, style in zip(scores, styles, strict=False):
            if any(score not in row.scores for row in rows):
                raise ValueError(f"scores names {score!r}; the report has {list(rows[0].scores)}")
            found = [row.scores[score] for row in rows]
            leads = np.array([row.lead for row in rows])
            label = f"{name} {score}".strip().replace("_", " ")
            panel.plot(
                leads, [s.value for s in found], style, color=colour, marker="o", ms=3, label=label
            )
            panel.fill_between(
                leads,
                [s.low for s in found],
                [s.high for s in found],
                color=colour,
                alpha=0.15,
                lw=0,
            )
            unit = found[0].unit
    panel.set(xlabel="lead time (h)", ylabel=f"{', '.join(scores)} ({unit})".replace("_", " "))
    panel.set_ylim(bottom=0)
    panel.set_title(variable, fontsize=10)
    panel.legend(frameon=False, fontsize=8)
    tidy(panel)
    return figure


def _curve(spectrum: xr.DataArray) -> xr.DataArray:
    """A spectrum without its mean, over times."""
    (dim,) = (d for d in SCALES if d in spectrum.dims)
    found = spectrum.mean([d for d in (TIME,) if d in spectrum.dims], keep_attrs=True)
    if more := [str(d) for d in found.dims if d not in (dim, MEMBER)]:
        raise ValueError(f"a spectrum has also the dimensions {more}; select or average")
    return found.isel({dim: found[dim].values > 0})


def _wavelengths(panel: Panel, at: np.ndarray, wavelength: np.ndarray) -> None:
    """A second axis above, in km; at both axes ticks at 1, 2, 5, 10 ..."""
    ticker = require("matplotlib.ticker", extra="weather")
    panel.set_xlim(at[0], at[-1])
    above = panel.secondary_xaxis(
        "top",
        functions=(
            lambda k: np.interp(np.asarray(k), at, wavelength),
            lambda km: np.interp(np.asarray(km), wavelength[::-1], at[::-1]),
        ),
    )
    for axis, values in ((panel.xaxis, at), (above.xaxis, wavelength)):
        axis.set_major_locator(ticker.FixedLocator(_round_numbers(values)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(ticker.NullFormatter())
    above.set_xlabel("wavelength (km)", fontsize=8)
    above.tick_params(labelsize=7)


def _round_numbers(values: np.ndarray) -> list[float]:
    low, high = sorted((float(values[0]), float(values[-1])))
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = (m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5))
    return [x for x in every if low <= x <= high]


def _ratio_limits(panel: Panel) -> tuple[float, float]:
    low, high = panel.get_ylim()
    return max(min(low, 0.8), 0.0), min(max(high, 1.2), 3.0)


def _colours(n: int) -> list[str]:
    cycle = [_OURS, _SPREAD, "#3a9a5b", "#b5439a", "#7a6a53", "#3bb3c3"]
    return [cycle[i % len(cycle)] for i in range(n)]
