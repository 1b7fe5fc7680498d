from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from sciffusion.domains.weather.datasets.radar import decode_rain, encode_rain, from_pgm

DECODE = (
    "0: dry (< 0.08 mm/h); 1..250: R[mm/h] = 10**((0.14*(code-1)-11)/10); 255: no radar coverage"
)


def coded(codes: NDArray[np.uint8]) -> xr.Dataset:
    return xr.Dataset({"rain_code": (("y", "x"), codes, {"decode": DECODE})})


def test_codes_mean_what_their_attribute_says() -> None:
    codes = np.array([[0, 1, 79, 250, 255, 253]], np.uint8)
    out = decode_rain(coded(codes))
    assert list(out) == ["rain"] and out["rain"].attrs["units"] == "mm h-1"
    expected = [0, 10**-1.1, 10 ** ((0.14 * 78 - 11) / 10), 10 ** ((0.14 * 249 - 11) / 10)]
    np.testing.assert_allclose(out["rain"].values[0, :4], expected, rtol=1e-6)
    assert np.isnan(out["rain"].values[0, 4:]).all()


def test_every_code_survives_decoding_and_encoding() -> None:
    codes = np.array([[0, *range(2, 251), 255]], np.uint8)  # 1 is 0.0794 mm/h: dry
    assert np.array_equal(encode_rain(decode_rain(coded(codes))["rain"].values), codes)


def test_rates_come_back_to_half_a_step() -> None:
    rain = np.geomspace(0.08, 240, 1000)
    back = decode_rain(coded(encode_rain(rain[None])))["rain"].values[0]
    assert np.abs(10 * np.log10(back / rain)).max() <= 0.07 + 1e-5
    assert encode_rain(np.array([0.0, 0.079, 1e4])).tolist() == [0, 0, 250]


def test_decoding_is_lazy() -> None:
    assert decode_rain(coded(np.zeros((4, 4), np.uint8)).chunk(x=2))["rain"].chunks == (
        (4,),
        (2, 2),
    )


def test_another_code_is_refused() -> None:
    with pytest.raises(ValueError, match="no variable 'rain_code'"):
        decode_rain(xr.Dataset({"rain": ("x", [0.0])}))
    other = coded(np.zeros((1, 1), np.uint8))
    other["rain_code"].attrs["decode"] = "dBZ"
    with pytest.raises(ValueError, match="is coded as 'dBZ'"):
        decode_rain(other)
    with pytest.raises(ValueError, match=r"must not be negative, got -1\.0"):
        encode_rain(np.array([0.0, -1.0, np.nan]))


def write_pgm(path: Path, pixels: NDArray[np.uint8]) -> Path:
    header = f"P5\n# obstime {path.name[:12]}\n{pixels.shape[1]} {pixels.shape[0]}\n# more\n255\n"
    content = header.encode() + pixels.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_composites_become_the_mean_rain_of_four_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((5, 6), np.uint8)  # the fifth row is left over
    pixels[0, :2], pixels[1, :2] = 128, 64  # 32 and 0 dBZ
    pixels[2, 2] = 255
    paths = [
        write_pgm(tmp_path / "201705091050_b.pgm.gz", pixels),
        write_pgm(tmp_path / "201609281445_a.pgm", np.zeros_like(pixels)),
    ]
    ds = from_pgm(paths)
    assert ds.sizes == {"time": 2, "y": 2, "x": 3}
    assert ds["time"].values[0] == np.datetime64("2016-09-28T14:45")
    rain = decode_rain(ds)["rain"].values
    assert (rain[0] == 0).all()
    z32, z0 = 10**3.2, 1.0  # 223 R^1.53
    mean = ((z32 / 223) ** (1 / 1.53) + (z0 / 223) ** (1 / 1.53)) / 2
    assert rain[1, 0, 0] == pytest.approx(mean, rel=0.017)
    assert np.isnan(rain[1, 1, 1]) and np.isfinite(rain[1]).sum() == 5


def test_files_that_are_no_composites_are_refused(tmp_path: Path) -> None:
    good = write_pgm(tmp_path / "201609281445_a.pgm", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="paths names no file"):
        from_pgm([])
    with pytest.raises(ValueError, match="does not begin with its time"):
        from_pgm([write_pgm(tmp_path / "noname.pgm", np.zeros((4, 4), np.uint8))])
    with pytest.raises(ValueError, match=r"\(6, 6\) pixels, unlike"):
        from_pgm([good, write_pgm(tmp_path / "201609281450_a.pgm", np.zeros((6, 6), np.uint8))])
    bad = tmp_path / "201609281455_a.pgm"
    bad.write_bytes(good.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is cut off"):
        from_pgm([bad])
    bad.write_bytes(b"P2 1 1 255 0")
    with pytest.raises(ValueError, match="is no binary PGM"):
        from_pgm([bad])
    zipped = tmp_path / "201609281500_a.pgm.gz"
    zipped.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="is damaged"):
        from_pgm([zipped])
