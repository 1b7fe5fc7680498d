"""Whether units agree however they are spelled (m/s, m s-1, m s**-1), and what to do where they do not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

__all__ = ["check_units", "conversion", "same_units"]

_GRAVITY = 9.80665  # standard gravity, m s-2 (exact by definition: 3rd CGPM, 1901)
_PREFIXES = {"h": 1e2, "k": 1e3, "m": 1e-3, "c": 1e-2, "d": 1e-1, "M": 1e6, "u": 1e-6, "µ": 1e-6}
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

# name: factor, offset and powers of (m, kg, s, K); value in SI = factor * value + offset
_Unit = tuple[float, float, tuple[int, int, int, int]]
_UNITS: dict[str, _Unit] = {
    "m": (1.0, 0.0, (1, 0, 0, 0)),
    "g": (1e-3, 0.0, (0, 1, 0, 0)),
    "s": (1.0, 0.0, (0, 0, 1, 0)),
    "K": (1.0, 0.0, (0, 0, 0, 1)),
    "degC": (1.0, 273.15, (0, 0, 0, 1)),
    "degF": (5 / 9, 459.67 * 5 / 9, (0, 0, 0, 1)),
    "Pa": (1.0, 0.0, (-1, 1, -2, 0)),
    "bar": (1e5, 0.0, (-1, 1, -2, 0)),
    "N": (1.0, 0.0, (1, 1, -2, 0)),
    "J": (1.0, 0.0, (2, 1, -2, 0)),
    "W": (1.0, 0.0, (2, 1, -3, 0)),
    "min": (_MINUTE, 0.0, (0, 0, 1, 0)),
    "h": (_HOUR, 0.0, (0, 0, 1, 0)),
    "d": (_DAY, 0.0, (0, 0, 1, 0)),
    "kt": (1852 / 3600, 0.0, (1, 0, -1, 0)),
    "%": (1e-2, 0.0, (0, 0, 0, 0)),
    "1": (1.0, 0.0, (0, 0, 0, 0)),
}
_ALIASES = {
    "m": "metre metres meter meters gpm gpmetre geopotential_metre geopotential_meter",
    "g": "gram grams gramme grammes",
    "s": "sec secs second seconds",
    "K": "kelvin kelvins degk deg_k degrees_kelvin degree_kelvin degree_k",
    "degC": "celsius degc deg_c °c ℃ degrees_celsius degree_celsius degrees_c degree_c",
    "degF": "fahrenheit degf deg_f °f ℉ degrees_fahrenheit degree_fahrenheit degrees_f degree_f",
    "Pa": "pascal pascals",
    "J": "joule joules",
    "W": "watt watts",
    "min": "minute minutes mins",
    "h": "hr hrs hour hours",
    "d": "day days",
    "kt": "knot knots kts",
    "%": "percent per_cent",
    "1": "dimensionless fraction (0-1) 0-1 none unitless",
}
_BY_WORD = {word: unit for unit, words in _ALIASES.items() for word in words.split()}
_BY_WORD |= {f"kilo{w}": f"k{_BY_WORD[w]}" for w in ("gram", "grams", "metre", "meter", "metres")}
_BY_WORD |= {"mb": "mbar", "millibar": "mbar", "millibars": "mbar", "hpa": "hPa", "mbar": "mbar"}
_TOKEN = re.compile(
    r"\s*(?P<divide>/|per\b)?[\s*.·]*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![A-Za-z])"
    r"|(?P<name>[A-Za-z°℃℉µ%_]+)\^?(?P<power>[-+]?\d+)?)"
)


@final
@dataclass(frozen=True)
class Quantity:
    """Units taken apart: a value in them is ``factor`` * value + ``offset`` in the product of SI ``powers``."""

    factor: float
    offset: float
    powers: tuple[int, int, int, int]

    @staticmethod
    def of(units: str) -> Quantity | None:
        """Parse UDUNITS-like text; None if a part of it is unknown.

        >>> Quantity.of("km/h") == Quantity.of("km h**-1")
        True
        """
        text = units.strip().replace("**", "^")
        if text.strip("[]()") == "" or text.lower().replace(" ", "") in _BY_WORD:
            text = _BY_WORD.get(text.lower().replace(" ", ""), "1")
        for word in ("degrees ", "degree ", "deg "):
            text = text.replace(word, word.strip() + "_")
        factor, offset, powers, at = 1.0, 0.0, [0, 0, 0, 0], 0
        parts = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                return None
            at, sign, parts = token.end(), -1 if token["divide"] else 1, parts + 1
            if token["number"]:
                factor *= float(token["number"]) ** sign
                continue
            unit = _unit(token["name"])
            if unit is None:
                return None
            power = sign * int(token["power"] or 1)
            factor *= unit[0] ** power
            offset = unit[1]
            powers = [a + power * b for a, b in zip(powers, unit[2], strict=True)]
        if parts > 1:  # degC m-1 is a difference of temperatures: its zero does not matter
            offset = 0.0
        return Quantity(factor, offset, (powers[0], powers[1], powers[2], powers[3]))


def _unit(name: str) -> _Unit | None:
    name = _BY_WORD.get(name, _BY_WORD.get(name.lower(), name) if len(name) > 1 else name)
    if name in _UNITS:
        return _UNITS[name]
    rest = _UNITS.get(name[1:])
    if name[:1] not in _PREFIXES or rest is None or name[1:] in ("degC", "degF", "%", "1", "min"):
        return None
    return _PREFIXES[name[0]] * rest[0], rest[1], rest[2]


def same_units(first: str, second: str) -> bool:
    """Whether two spellings mean the same units; unknown ones must be spelled alike.

    >>> same_units("m s-1", "m/s"), same_units("K", "degC"), same_units("mbar", "hPa")
    (True, False, True)
    """
    a, b = Quantity.of(first), Quantity.of(second)
    if a is None or b is None:
        return first.split() == second.split()
    close = abs(a.factor - b.factor) <= 1e-9 * abs(b.factor) and abs(a.offset - b.offset) < 1e-9
    return close and a.powers == b.powers


def conversion(given: str, wanted: str) -> str | None:
    """What turns numbers in ``given`` units into ``wanted`` ones, as a formula; None if nothing that is known does.

    >>> conversion("degC", "K"), conversion("hPa", "Pa"), conversion("m2 s-2", "m")
    ('x + 273.15', 'x * 100', 'x / 9.80665')
    """
    a, b = Quantity.of(given), Quantity.of(wanted)
    if a is None or b is None:
        return None
    difference = tuple(y - x for x, y in zip(a.powers, b.powers, strict=True))
    if difference == (0, 0, 0, 0):
        return _formula(a.factor / b.factor, (a.offset - b.offset) / b.factor)
    if a.powers == (2, 0, -2, 0) and b.powers == (1, 0, 0, 0) and a.factor == b.factor:
        return f"x / {_GRAVITY}"  # geopotential to geopotential height
    if a.powers == (1, 0, 0, 0) and b.powers == (2, 0, -2, 0) and a.factor == b.factor:
        return f"x * {_GRAVITY}"
    if difference in ((3, -1, 0, 0), (-3, 1, 0, 0)):  # rain, by the density of water
        density = 1000.0 if difference[1] > 0 else 1e-3
        return _formula(density * a.factor / b.factor, 0.0)
    return None


def _formula(factor: float, shift: float) -> str:
    scaled = "x"
    if abs(factor - 1) > 1e-12:
        upright = factor > 1 or abs(round(1 / factor) * factor - 1) > 1e-9
        scaled = f"x * {factor:.9g}" if upright else f"x / {1 / factor:.9g}"
    if abs(shift) < 1e-9:
        return scaled
    return f"{scaled} {'+' if shift > 0 else '-'} {abs(shift):.9g}"


def check_units(
    names: Sequence[str], given: Sequence[str | None], wanted: Sequence[str | None]
) -> None:
    """Raise ``ValueError`` where fields do not have the units that a model wants; None or "" wants nothing.

    The message says how to convert. Nothing is converted in silence: numbers and units may both be wrong.
    """
    for name, mine, theirs in zip(names, given, wanted, strict=True):
        if not theirs or (mine is not None and same_units(mine, theirs)):
            continue
        variable = name.split(":")[0]
        label = f"ds[{variable!r}].attrs['units'] = {theirs!r}"
        if mine is None:
            raise ValueError(
                f"{name} has no units, and the model wants {theirs!r}; if its numbers are in these, "
                f"say so: {label}"
            )
        formula = conversion(mine, theirs)
        if formula is None:
            raise ValueError(
                f"{name} is in {mine!r}; the model wants {theirs!r}, and no factor leads there"
            )
        raise ValueError(
            f"{name} is in {mine!r}, and the model wants {theirs!r}; convert it, "
            f"ds[{variable!r}] = {formula.replace('x', f'ds[{variable!r}]', 1)}, then label it, {label}"
        )
