"""Units: there and back, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciffusion.domains.weather.scales import Scales


def fields(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mean", [(2, 1, 1), (2, 3, 4)])
def test_fields_come_back_and_keep_dtype_and_gaps(mean: tuple[int, ...]) -> None:
    scales = Scales(
        5500 + fields(*mean).double(), torch.tensor([80.0, 3.0]).double()[:, None, None]
    )
    x = scales.restore(fields(5, 2, 3, 4))
    x[0, 0, 0, 0] = float("nan")
    z = scales.normalise(x)
    assert z.dtype == x.dtype == torch.float32
    assert z.isnan().sum() == 1
    assert torch.allclose(scales.restore(z), x, equal_nan=True)
    window = scales.normalise(x[None])  # any leading dimensions: windows, members
    assert torch.equal(window.nan_to_num(), z[None].nan_to_num())


def test_normalised_channels_have_mean_zero_and_deviation_one() -> None:
    x = 280 + 7 * fields(50, 1, 8, 8)
    z = Scales(x.mean((0, 2, 3), keepdim=True)[0], x.std((0, 2, 3), keepdim=True)[0]).normalise(x)
    assert abs(float(z.mean())) < 1e-4
    assert float(z.std()) == pytest.approx(1, abs=1e-4)


def test_wrong_shapes_and_numbers_are_refused() -> None:
    one = torch.ones(2, 1, 1)
    with pytest.raises(ValueError, match=r"std must be \(C, 1, 1\)"):
        Scales(one, torch.ones(2))
    with pytest.raises(ValueError, match="mean must be"):
        Scales(torch.ones(3, 1, 1), one)
    with pytest.raises(ValueError, match="mean is not finite"):
        Scales(one * float("nan"), one)
    with pytest.raises(ValueError, match=r"channels \[1\]"):
        Scales(one, torch.tensor([1.0, 0.0])[:, None, None])
    with pytest.raises(ValueError, match=r"fields must be \(..., 2, H, W\)"):
        Scales(one, one).normalise(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"fields must be \(..., 2, 3, 4\)"):
        Scales(torch.zeros(2, 3, 4), one).restore(torch.zeros(2, 4, 4))
