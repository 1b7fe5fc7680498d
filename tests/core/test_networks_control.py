"""Laws of controls: they start from the base, train without it, follow the hint, and run as the base does."""

from hashlib import sha256

import pytest
import torch
from torch import Tensor, nn

from sciffusion.networks import DiT, DiTControl, UNet, UNetControl

from .networks import close, draw, idle_after, shaken


def base(name: str) -> UNet | DiT:
    torch.manual_seed(0)
    if name == "DiT":
        return DiT(3, 2, width=24, depth=3, heads=2, embedding=6, context=4, prefix=5)
    return UNet(
        3,
        2,
        widths=(8, 16),
        blocks=1,
        attention=(False, True),
        head_width=8,
        embedding=6,
        context=4,
        temporal=(False, True) if name == "film" else (),
    )


class Controlled(nn.Module):
    """A base and its control as one network."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.base = shaken(base(name)).float().requires_grad_(False)
        self.control: UNetControl | DiTControl = (
            DiTControl(self.base, 1, 2) if isinstance(self.base, DiT) else UNetControl(self.base, 1)
        )

    def forward(self, x: Tensor, hint: Tensor, *given: Tensor) -> Tensor:
        more = {"prefix": draw(2, 2, 5).to(x)} if isinstance(self.base, DiT) else {}
        return self.base(x, *given, control=self.control(x, hint, *given, **more), **more)


def inputs(name: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    size = (3, 4, 6) if name == "film" else (5, 8)
    found = (draw(2, 3, *size), draw(2, 1, *size, seed=2), draw(2, 6), draw(2, 3, 4))
    return tuple(v.to(dtype) for v in found)


def digest(net: nn.Module) -> str:
    """The SHA-256 of all weights."""
    found = sha256()
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


NAMES = ["U-Net", "film", "DiT"]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_at_first_the_controlled_network_is_the_base_bit_for_bit(name: str) -> None:
    net = Controlled(name)
    x, hint, *given = inputs(name)
    more = {"prefix": draw(2, 2, 5).float()} if name == "DiT" else {}
    y = net.base(x, *given, **more)
    assert y.abs().max() > 1e-3
    assert torch.equal(net(x, hint, *given), y)


@pytest.mark.parametrize("name", NAMES)
def test_training_brings_the_output_nearer_and_leaves_the_base_as_it_is(name: str) -> None:
    net = Controlled(name)
    x, hint, *given = inputs(name)
    before = digest(net.base)
    with torch.no_grad():
        target = net(x, hint, *given) + hint
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = (net(x, hint, *given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert digest(net.base) == before
    assert all(p.grad is None for p in net.base.parameters())
    with torch.no_grad():
        turned = net(x, -hint, *given) - net(x, hint, *given)
    assert turned.abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_control_is_trained(name: str) -> None:
    net = Controlled(name)
    idle = idle_after(net, inputs(name), 3)
    assert all(k.startswith("base.") for k in idle)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_see_each_other(name: str) -> None:
    net = Controlled(name)
    shaken(net)
    values = inputs(name, torch.float64)
    whole = net.control(*values, **({"prefix": draw(2, 2, 5)} if name == "DiT" else {}))
    for i in range(2):
        more = {"prefix": draw(2, 2, 5)[i : i + 1]} if name == "DiT" else {}
        frames = 3 if name == "film" else 1
        rows = slice(i * frames, (i + 1) * frames)
        for a, b in zip(net.control(*(v[i : i + 1] for v in values), **more), whole, strict=True):
            close(a, b[rows])


@torch.no_grad()
def test_hints_where_nothing_counts_do_not_matter() -> None:
    net = shaken(Controlled("DiT"))
    x, hint, e, context = inputs("DiT", torch.float64)
    mask, prefix = torch.ones(2, 5, 8, dtype=torch.bool), draw(2, 2, 5)
    mask[..., 6:] = False
    spoilt = torch.where(mask[:, None], hint, torch.nan)
    found = []
    for h in (hint, spoilt):
        control = net.control(x, h, e, context, mask=mask, prefix=prefix)
        found.append(net.base(x, e, context, mask=mask, prefix=prefix, control=control))
    close(found[0], found[1])


def test_it_compiles_to_one_graph() -> None:
    control, values = shaken(Controlled("film")).control, inputs("film", torch.float64)
    torch.compiler.reset()
    found = torch.compile(control, fullgraph=True, backend="eager")(*values)
    for a, b in zip(found, control(*values), strict=True):
        close(a, b)


def test_a_copy_has_its_own_weights_and_no_second_half() -> None:
    net = Controlled("U-Net")
    names = {name.split(".")[1] for name, _ in net.control.named_parameters() if "copy" in name}
    assert names == {"embed", "first", "down", "descent"}
    mine = {p.data_ptr() for p in net.control.parameters()}
    assert not mine & {p.data_ptr() for p in net.base.parameters()}


def test_what_does_not_fit_is_refused_by_name() -> None:
    for name in NAMES:
        net = Controlled(name)
        x, hint, *given = inputs(name)
        with pytest.raises(ValueError, match="hint must be .*, on the grid of x, got"):
            net(x, hint[..., :-1], *given)
    with pytest.raises(ValueError, match="depth must be between 1 and the base's 3 blocks, not 4"):
        DiTControl(net.base, 1, 4)  # type: ignore[arg-type]
