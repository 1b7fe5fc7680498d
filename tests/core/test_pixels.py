"""Pictures: bytes and floats are told apart, layouts are read, grids put each in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciffusion.pixels import Pixels, tile, to_bytes, to_floats

KIND = Pixels("frames", "frame", "films", "T", "Film.of")
BYTES = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)


def test_every_byte_comes_back_from_floats() -> None:
    x = torch.arange(256, dtype=torch.uint8)[None, None, None]
    assert torch.equal(to_bytes(to_floats(x)), x)
    assert to_floats(to_floats(x)).max() == 1


@pytest.mark.parametrize("array", [BYTES, BYTES.numpy(), BYTES.permute(0, 2, 3, 1)])
def test_channels_may_come_last(array: np.ndarray | torch.Tensor) -> None:
    read = KIND.read(array)
    assert torch.equal(read, BYTES)
    read[:] = 0
    assert torch.equal(KIND.read(array), BYTES)  # a copy
    assert torch.equal(KIND.read(BYTES[:, 0].double() / 255), BYTES[:, :1].float() / 255)


def test_a_grid_has_each_picture_in_its_place() -> None:
    x = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 2, 3, 4)
    grid = tile(x, columns=2, gap=1, fill=9)
    assert grid.shape == (2, 3 * 3 + 2, 2 * 4 + 1)
    for i in range(5):
        top, left = i // 2 * 4, i % 2 * 5
        assert (grid[:, top : top + 3, left : left + 4] == i).all()
    assert (grid == 9).sum() == grid.numel() - 5 * 2 * 3 * 4
    films = tile(x[:4, None].expand(4, 6, 2, 3, 4), gap=0)
    assert films.shape == (6, 2, 6, 8)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (BYTES.float(), "these look like bytes"),
        (BYTES.float() / 120 - 0.5, "these run from -1 to 1"),
        (BYTES.float() / 100, "0 to 1, got 0 to 1.19; clamp or scale"),
        (BYTES.float() * torch.nan, "frames hold NaN"),
        (BYTES.double(), "got torch.float64; Film.of converts"),
        (BYTES[:, :2], "films have 1 channel .*got 2 in .*drop the others"),
        (BYTES.permute(0, 2, 3, 1), "channels come second: permute"),
        (BYTES[:0], r"frames must be \(T, C, H, W\) with at least one frame"),
        (BYTES[0], r"frames must be \(T, C, H, W\)"),
    ],
)
def test_what_is_no_picture_is_refused(x: torch.Tensor, told: str) -> None:
    KIND.check(BYTES)
    with pytest.raises(ValueError, match=told):
        KIND.check(x)
