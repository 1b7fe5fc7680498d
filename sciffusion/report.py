"""What a judgement of samples looks like: figures with intervals, printed, shown and stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, final

from sciffusion.errors import did_you_mean
from sciffusion.io import atomic_write

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Metric", "Report"]

_SHORT = {"fraction": "%", "angstrom": "Å", "degree": "°"}


@final
@dataclass(frozen=True)
class Metric:
    """One figure: its value, its interval ``low`` to ``high``, and what it is.

    ``n`` samples entered; ``failed`` more were meant to and could not. ``unit`` "fraction" is
    printed in percent.
    """

    value: float
    low: float
    high: float
    n: int
    what: str
    unit: str = "fraction"
    failed: int = 0

    def text(self) -> tuple[str, str]:
        """The value and the interval, ready to print."""
        if math.isnan(self.value):
            return "-", "-"
        scale = 100.0 if self.unit == "fraction" else 1.0
        unit = _SHORT.get(self.unit, self.unit)
        low, value, high = (
            _digits(scale * x, self.unit) for x in (self.low, self.value, self.high)
        )
        return f"{value} {unit}".rstrip(), f"{low} - {high}"


@final
@dataclass(frozen=True)
class Report:
    """The figures of one set of samples; ``report["validity"].value``.

    ``ceiling`` holds the same figures for real data of the reference, judged in the same way:
    what a perfect model would reach. ``details`` holds the figures behind the summaries, such as
    one per type of bond or class. ``about`` says what was judged, and with which versions; ``level``
    is that of the intervals.
    """

    metrics: Mapping[str, Metric]
    ceiling: Mapping[str, Metric] = field(default_factory=dict)
    details: Mapping[str, Metric] = field(default_factory=dict)
    about: Mapping[str, str | int] = field(default_factory=dict)
    level: float = 0.95

    def __getitem__(self, name: str) -> Metric:
        for found in (self.metrics, self.details):
            if name in found:
                return found[name]
        hint = did_you_mean(name, [*self.metrics, *self.details])
        raise KeyError(f"the report holds no metric {name!r}. {hint}".rstrip())

    def to_json(self) -> str:
        """The report as JSON; a figure that is not a number becomes null."""
        return json.dumps(_without_nan(asdict(self)), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote."""
        stored = json.loads(text)
        groups = {
            group: {name: Metric(**_with_nan(one)) for name, one in stored[group].items()}
            for group in ("metrics", "ceiling", "details")
        }
        return cls(**groups, about=stored["about"], level=stored.get("level", 0.95))

    def save(self, path: str | Path) -> Path:
        """Write the JSON: all of it or nothing."""
        with atomic_write(path) as part:
            part.write_text(self.to_json() + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that was saved."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def rows(self) -> list[tuple[str, ...]]:
        """What the tables show: name, value, interval, the data's value (if any) and n."""
        rows = []
        for name, metric in self.metrics.items():
            failed = f" ({metric.failed} failed)" if metric.failed else ""
            row = [name.replace("_", " "), *metric.text(), f"{metric.n}{failed}"]
            if self.ceiling:
                row.insert(3, self.ceiling[name].text()[0] if name in self.ceiling else "-")
            rows.append(tuple(row))
        return rows

    def header(self) -> tuple[str, ...]:
        """The titles over `rows`."""
        data = ("real data",) if self.ceiling else ()
        return ("", "value", f"{100 * self.level:g} % interval", *data, "n")

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(caption=self._caption(), caption_justify="left", box=box.SIMPLE_HEAD)
        for title in self.header():
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
        for row in self.rows():
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        page = StringIO()
        Console(file=page, width=100).print(self)
        return page.getvalue()

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str, title: str = "") -> str:
            style = "text-align:right;padding:.15em .8em"
            styles = ["text-align:left;" + style[17:], *[style] * (len(cells) - 1)]
            row = "".join(
                f'<{tag} style="{s}">{escape(c)}</{tag}>'
                for c, s in zip(cells, styles, strict=True)
            )
            return f'<tr title="{escape(title)}">{row}</tr>'

        body = "".join(
            line(row, "td", metric.what)
            for row, metric in zip(self.rows(), self.metrics.values(), strict=True)
        )
        return (
            f"<table><thead>{line(self.header(), 'th')}</thead><tbody>{body}</tbody></table>"
            f"<small>{escape(self._caption())}</small>"
        )

    def _caption(self) -> str:
        return ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in self.about.items())


def _digits(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{value:.1f}"
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3g}"


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(stored: dict[str, float | str | int | None]) -> dict:
    return {key: float("nan") if value is None else value for key, value in stored.items()}
