"""What a judgement of forecasts looks like: scores with intervals, printed, shown and stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, final

from sciffusion.errors import did_you_mean
from sciffusion.io import atomic_write

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Report", "Row", "Score"]

_SHOWN = {
    "crps": "CRPS",
    "mae": "MAE",
    "rmse": "RMSE",
    "spread": "spread",
    "spread_skill": "spread/skill",
    "outliers": "outliers",
    "power_low": "power from",
    "power_high": "to",
}
"""The scores that the table shows, in order, and what stands above them; the others are in the JSON."""


@final
@dataclass(frozen=True)
class Score:
    """One figure, its 95 % interval ``low`` to ``high`` (NaN where times are too few), its unit, and what it is."""

    value: float
    low: float
    high: float
    unit: str
    what: str

    def text(self) -> tuple[str, str]:
        """The value, and half the width of the interval, ready to print."""
        half = (self.high - self.low) / 2
        if not math.isfinite(self.value):
            return "-", ""
        # two digits of the uncertainty, three of the value where that is not known
        size = half if half > 0 else abs(self.value) / 10
        decimals = min(max(1 - math.floor(math.log10(size)), 0), 6) if size > 0 else 2
        return f"{self.value:.{decimals}f}", f"± {half:.{decimals}f}" if half >= 0 else ""


@final
@dataclass(frozen=True)
class Row:
    """The scores of one variable at one level (``at``: "500", or empty) and one lead time, hours, if there are any."""

    variable: str
    at: str
    lead: float | None
    scores: Mapping[str, Score]

    @property
    def label(self) -> str:
        """Such as ``t:850 +24 h``."""
        level = f":{self.at}" if self.at else ""
        return f"{self.variable}{level}" + ("" if self.lead is None else f" +{self.lead:g} h")


@final
@dataclass(frozen=True)
class Report:
    """The scores of an ensemble: ``report["t2m", "crps"].value``, ``report["z:500 +24 h", "rmse"]``.

    ``about`` says what was judged: how many members and times, and how the intervals came about.
    """

    rows: tuple[Row, ...]
    about: Mapping[str, str | int | float]

    def __getitem__(self, key: tuple[str, str]) -> Score:
        """The score of a row (its label, or its variable if it has one row) and a name.

        Raises ``KeyError`` for what is not there, and for a variable with several rows.
        """
        label, name = key
        rows = [row for row in self.rows if row.label == label]
        rows = rows or [row for row in self.rows if row.variable == label]
        if len(rows) != 1:
            labels = [row.label for row in self.rows]
            wrong = f"{len(rows)} rows" if rows else "no row"
            hint = "" if rows else f" {did_you_mean(label, labels)}"
            raise KeyError(
                f"the report has {wrong} {label!r}; its rows are {labels}.{hint}".rstrip()
            )
        if name not in rows[0].scores:
            hint = did_you_mean(name, rows[0].scores)
            raise KeyError(f"the row {label!r} has no score {name!r}. {hint}".rstrip())
        return rows[0].scores[name]

    def to_json(self) -> str:
        """The report as JSON; a figure that is not a number becomes null."""
        return json.dumps(_without_nan(asdict(self)), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote."""
        stored = json.loads(text)
        rows = [
            Row(
                row["variable"],
                row["at"],
                row["lead"],
                {name: _score(score) for name, score in row["scores"].items()},
            )
            for row in stored["rows"]
        ]
        return cls(tuple(rows), stored["about"])

    def save(self, path: str | Path) -> Path:
        """Write the JSON: all of it or nothing."""
        with atomic_write(path) as part:
            part.write_text(self.to_json() + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that was saved."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def header(self) -> tuple[str, ...]:
        """The titles over the columns of the tables."""
        return ("", "unit", *(_SHOWN[name] for name in self._names()))

    def cells(self) -> list[tuple[tuple[str, str], ...]]:
        """What the tables show in each row: pairs of a text and a smaller one below it."""
        out = []
        for row in self.rows:
            unit = next((s.unit for s in row.scores.values()), "")
            texts = [
                row.scores[name].text() if name in row.scores else ("-", "")
                for name in self._names()
            ]
            out.append(((row.label, ""), (unit, ""), *texts))
        return out

    def _names(self) -> list[str]:
        return [name for name in _SHOWN if any(name in row.scores for row in self.rows)]

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(caption=self._caption(), caption_justify="left", box=box.SIMPLE_HEAD)
        for title in self.header():
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
        for row in self.cells():
            table.add_row(
                *(f"{text}\n[dim]{below}[/dim]" if below else text for text, below in row)
            )
        return table

    def __str__(self) -> str:
        from rich.console import Console

        page = StringIO()
        Console(file=page, width=120).print(self)
        return "\n".join(line.rstrip() for line in page.getvalue().splitlines())

    def _repr_html_(self) -> str:
        style = "text-align:right;padding:.15em .8em"
        head = "".join(f'<th style="{style}">{escape(title)}</th>' for title in self.header())
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="{style}">{escape(text)}<br><small>{escape(below)}</small></td>'
                for text, below in row
            )
            + "</tr>"
            for row in self.cells()
        )
        caption = f"<small>{escape(self._caption())}</small>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{caption}"

    def _caption(self) -> str:
        return ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in self.about.items())


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _score(stored: dict) -> Score:
    number = {
        name: math.nan if stored[name] is None else stored[name]
        for name in ("value", "low", "high")
    }
    return Score(**number, unit=stored["unit"], what=stored["what"])
