"""Units agree by meaning, and what disagrees is refused with a conversion that is right."""

import pytest

from sciffusion.domains.weather.units import check_units, conversion, same_units


@pytest.mark.parametrize(
    "spellings",
    [
        ("m s-1", "m/s", "m s**-1", "m s^-1", "m.s-1", "metres per second", "meter second-1"),
        ("m2 s-2", "m**2 s**-2", "m^2/s^2", "J kg-1", "J/kg"),
        ("K", "kelvin", "Kelvin", "degK"),
        ("degC", "°C", "celsius", "deg C", "degrees C", "degrees_celsius"),
        ("hPa", "mb", "mbar", "millibars"),
        ("m", "gpm", "metre"),
        ("1", "", "dimensionless", "(0 - 1)", "kg kg**-1", "m m-1", "%/%"),
        ("mm/h", "mm hr-1", "mm h^-1"),
        ("W m-2", "W/m2", "J m-2 s-1"),
    ],
)
def test_spellings_of_the_same_units_agree(spellings: tuple[str, ...]) -> None:
    assert all(same_units(a, b) for a in spellings for b in spellings)


@pytest.mark.parametrize(
    ("a", "b"),
    [("K", "degC"), ("m", "km"), ("Pa", "hPa"), ("m/s", "m s"), ("dBZ", "K"), ("%", "1")],
)
def test_units_that_differ_do_not_agree(a: str, b: str) -> None:
    assert not same_units(a, b) and not same_units(b, a)


def test_unknown_units_agree_if_spelled_alike() -> None:
    assert same_units("dBZ", "dBZ") and same_units("m of  water", "m of water")


@pytest.mark.parametrize(
    ("given", "wanted", "x", "y"),
    [
        ("degC", "K", 10.0, 283.15),
        ("K", "degC", 283.15, 10.0),
        ("degF", "K", 50.0, 283.15),
        ("hPa", "Pa", 5.0, 500.0),
        ("Pa", "hPa", 500.0, 5.0),
        ("g/kg", "kg/kg", 3.0, 0.003),
        ("%", "1", 40.0, 0.4),
        ("km/h", "m s-1", 36.0, 10.0),
        ("m2 s-2", "m", 98.0665, 10.0),
        ("m", "m2 s-2", 10.0, 98.0665),
        ("kg m-2 s-1", "mm/h", 1.0, 3600.0),
        ("mm/h", "kg m-2 s-1", 3600.0, 1.0),
        ("m", "kg m-2", 0.001, 1.0),
    ],
)
def test_conversions_are_right(given: str, wanted: str, x: float, y: float) -> None:
    formula = conversion(given, wanted)
    assert formula is not None
    assert eval(formula, {"x": x}) == pytest.approx(y, rel=1e-8)


@pytest.mark.parametrize(("given", "wanted"), [("K", "m"), ("dBZ", "K"), ("m s-1", "Pa")])
def test_there_is_no_conversion_between_different_things(given: str, wanted: str) -> None:
    assert conversion(given, wanted) is None


def test_fields_in_other_units_are_refused_with_the_conversion() -> None:
    check_units(["t:850", "u", "q"], ["kelvin", "m/s", None], ["K", "m s-1", None])
    with pytest.raises(ValueError, match=r"t:850 is in 'degC'.*ds\['t'\] = ds\['t'\] \+ 273.15"):
        check_units(["t:850"], ["degC"], ["K"])
    with pytest.raises(ValueError, match=r"has no units.*ds\['t'\].attrs\['units'\] = 'K'"):
        check_units(["t:850"], [None], ["K"])
    with pytest.raises(ValueError, match="no factor leads there"):
        check_units(["t:850"], ["m"], ["K"])
