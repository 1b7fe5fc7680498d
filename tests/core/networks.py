"""What tests of networks share."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


def shaken(net: Net, scale: float = 0.1) -> Net:
    """The network in float64, away from its initial values, many of which are zero."""
    g = torch.Generator().manual_seed(0)
    net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=g, dtype=p.dtype) + 0.5 * p)
    return net.eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> None:
    """Equal but for rounding in float64."""
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def idle_after(net: nn.Module, inputs: tuple[Tensor | None, ...], steps: int) -> list[str]:
    """The names of the parameters whose gradient is zero after some steps of training towards noise."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps + 1):
        optimizer.zero_grad()
        y = net(*inputs)
        (y - draw(*y.shape, seed=5).to(y)).square().mean().backward()
        optimizer.step()
    return [k for k, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
