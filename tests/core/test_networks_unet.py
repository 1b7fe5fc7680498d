"""Laws of the U-Net: sizes, symmetries, its start, what acts on it, and how it runs."""

import pytest
import torch
from torch import Tensor, nn

from sciffusion.networks import Circular, Padding, SpherePadding, UNet, Zeros


def shaken(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64, away from its initial values, many of which are zero."""
    g = torch.Generator().manual_seed(seed)
    net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return net.eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(
    dims: int = 2,
    embedding: int = 0,
    context: int = 0,
    padding: Padding | None = None,
    signs: Tensor | None = None,
    checkpointing: bool = False,
) -> UNet:
    torch.manual_seed(0)
    return UNet(
        3,
        2,
        dims=dims,
        widths=(8, 16, 16),
        blocks=1,
        head_width=8,
        embedding=embedding,
        context=context,
        padding=padding or Zeros(),
        signs=signs,
        checkpointing=checkpointing,
    )


SIZES = [(1,), (37,), (3, 5), (33, 49), (61, 120), (5, 9, 12), (1, 2, 3)]


@pytest.mark.parametrize("size", SIZES)
def test_any_size_comes_back(size: tuple[int, ...]) -> None:
    dims = len(size)
    for padding in [Zeros(), Circular()] + [SpherePadding()] * (dims > 1):
        net = shaken(small(dims, padding=padding))
        with torch.no_grad():
            y = net(draw(2, 3, *size))
        assert y.shape == (2, 2, *size)
        assert y.isfinite().all()


SPHERE = SpherePadding(pole_rows=(True, False))


@pytest.mark.parametrize("padding", [Circular(), SPHERE], ids=["circle", "sphere"])
@pytest.mark.parametrize("shift", [4, 8, -12])
def test_it_commutes_with_rolls_of_the_longitude_by_whole_cells_of_the_coarsest_grid(
    padding: Padding, shift: int
) -> None:
    net, x = shaken(small(padding=padding)), draw(2, 3, 9, 24)
    with torch.no_grad():
        rolled, roll = net(x.roll(shift, -1)), net(x).roll(shift, -1)
    torch.testing.assert_close(rolled, roll, rtol=1e-10, atol=1e-12)


def test_its_output_is_zero_at_initialisation() -> None:
    net = small(embedding=6, context=4).double()
    y = net(draw(2, 3, 8, 8), draw(2, 6), draw(2, 3, 4))
    assert torch.equal(y, torch.zeros_like(y))
