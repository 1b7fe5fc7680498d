"""Laws of the U-Net: sizes, symmetries, its start, what acts on it, and how it runs."""

import gc
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciffusion.networks import Circular, Padding, SpherePadding, UNet, Zeros

from .networks import close, draw, idle_after, shaken

SPHERE = SpherePadding(pole_rows=(True, False))


def small(
    dims: int = 2,
    *,
    widths: tuple[int, ...] = (8, 16, 16),
    embedding: int = 0,
    context: int = 0,
    padding: Padding | None = None,
    signs: Tensor | None = None,
    dropout: float = 0.0,
    checkpointing: bool = False,
) -> UNet:
    torch.manual_seed(0)
    return UNet(
        3,
        2,
        dims=dims,
        widths=widths,
        blocks=1,
        attention=[False] * (len(widths) - 1) + [True],
        head_width=8,
        embedding=embedding,
        context=context,
        padding=padding or Zeros(),
        dropout=dropout,
        signs=signs,
        checkpointing=checkpointing,
    )


@pytest.mark.parametrize("size", [(1,), (37,), (3, 5), (33, 49), (61, 120), (5, 9, 12), (1, 2, 3)])
def test_any_size_comes_back(size: tuple[int, ...]) -> None:
    dims = len(size)
    paddings: list[Padding] = [Zeros(), Circular()]
    if dims > 1:
        paddings += [SpherePadding(), SpherePadding(pole_rows=(True, True))]
    for padding in paddings:
        with torch.no_grad():
            y = shaken(small(dims, padding=padding))(draw(2, 3, *size))
        assert y.shape == (2, 2, *size)
        assert y.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("padding", [Circular(), SPHERE], ids=["circle", "sphere"])
def test_it_commutes_with_rolls_of_the_longitude_by_cells_of_the_coarsest_grid(
    padding: Padding,
) -> None:
    net, x = shaken(small(padding=padding)), draw(2, 3, 9, 24)
    y = net(x)
    for shift in (4, 8, -12):
        close(net(x.roll(shift, -1)), y.roll(shift, -1))


@torch.no_grad()
def test_with_one_level_it_commutes_with_all_rolls() -> None:
    net, x = shaken(small(widths=(16,), padding=SPHERE)), draw(2, 3, 5, 12)
    close(net(x.roll(5, -1)), net(x).roll(5, -1))


@torch.no_grad()
def test_samples_do_not_see_each_other() -> None:
    net = shaken(small(embedding=6, context=4, padding=SPHERE))
    x, e, context = draw(3, 3, 5, 8), draw(3, 6), draw(3, 3, 4)
    each = [net(x[i : i + 1], e[i : i + 1], context[i : i + 1]) for i in range(3)]
    close(net(x, e, context), torch.cat(each))


def test_its_output_is_zero_at_initialisation_and_its_blocks_are_the_identity() -> None:
    net = small(embedding=6, context=4).double()
    x, e, context = draw(2, 3, 8, 8), draw(2, 6), draw(2, 3, 4)
    y = net(x, e, context)
    assert torch.equal(y, torch.zeros_like(y))
    for stage in (*net.descent, *net.ascent):
        for block in stage.children():
            h = draw(2, block.conv1.weight.shape[0], 4, 4)
            assert torch.equal(block(h, Zeros(), e, context, None), h)


@torch.no_grad()
def test_embedding_and_context_act_and_masked_context_does_not() -> None:
    net = shaken(small(embedding=6, context=4))
    x, e, context = draw(2, 3, 5, 8), draw(2, 6), draw(2, 3, 4)
    y = net(x, e, context)
    assert (net(x, e + 1, context) - y).abs().max() > 1e-3
    assert (net(x, e, context + 1) - y).abs().max() > 1e-3
    mask = torch.tensor([[True, True, False]] * 2)
    close(net(x, e, context, mask), net(x, e, context[:, :2]))
    assert net(x, e, context, torch.zeros(2, 3, dtype=torch.bool)).isfinite().all()


@torch.no_grad()
def test_signs_matter_where_there_is_a_pole_and_only_there() -> None:
    signs, x = torch.tensor([1.0, -1.0, -1.0]), draw(2, 3, 9, 8)
    for padding, same in [(SPHERE, False), (SpherePadding(poles=(False, False)), True)]:
        turned = shaken(small(padding=padding, signs=signs))(x)
        assert torch.equal(turned, shaken(small(padding=padding))(x)) is same


def test_gradients_reach_every_parameter() -> None:
    net = small(embedding=6, context=4)
    assert (
        idle_after(net, (draw(2, 3, 5, 8).float(), draw(2, 6).float(), draw(2, 3, 4).float()), 3)
        == []
    )


def test_checkpointing_changes_neither_values_nor_gradients() -> None:
    found = []
    for checkpointing in (False, True):
        net = shaken(small(embedding=6, checkpointing=checkpointing))
        y = net(draw(2, 3, 5, 8), draw(2, 6))
        y.square().sum().backward()
        found.append((y, *(p.grad for p in net.parameters())))
    for a, b in zip(*found, strict=True):
        assert a is not None and b is not None
        close(a, b)


@torch.no_grad()
def test_it_runs_channels_last_and_in_low_precision() -> None:
    net, x, e = shaken(small(embedding=6, padding=SPHERE)), draw(2, 3, 9, 8), draw(2, 6)
    y = net(x, e)
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    close(net(x.contiguous(memory_format=torch.channels_last), e), y)
    rough = net.bfloat16()(x.bfloat16(), e.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough - y).norm() < 0.1 * y.norm()


def test_it_compiles_to_one_graph() -> None:
    net = shaken(small(widths=(8, 8), embedding=6, context=4, padding=SPHERE))
    inputs = (draw(2, 3, 5, 8), draw(2, 6), draw(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    y = compiled(*inputs)
    close(y, net(*inputs))
    y.sum().backward()


def test_dropout_acts_in_training_only() -> None:
    net, x = shaken(small(dropout=0.5)), draw(1, 3, 5, 8)
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


def test_what_does_not_fit_is_refused_by_name() -> None:
    net = small(embedding=6)
    with pytest.raises(ValueError, match=r"x must be \(B, 3, \*, \*\), got \(1, 4, 8, 8\)"):
        net(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="built with embedding=6: give it embedding"):
        net(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"embedding must be \(1, 6\), got \(2, 6\)"):
        net(torch.zeros(1, 3, 8, 8), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="built without context"):
        net(torch.zeros(1, 3, 8, 8), torch.zeros(1, 6), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="dims must be 1, 2 or 3, not 4"):
        UNet(1, 1, dims=4)
    with pytest.raises(ValueError, match="of one length, not 2, 2, 3"):
        UNet(1, 1, widths=(8, 8))
    with pytest.raises(ValueError, match=r"widths \[48\] .* no multiples of head_width 32"):
        UNet(1, 1, widths=(48,), attention=(True,))
    with pytest.raises(ValueError, match="context needs attention"):
        UNet(1, 1, widths=(8,), attention=(False,), context=3)
    with pytest.raises(ValueError, match=r"signs must be \(2,\), got \(3,\)"):
        UNet(2, 1, signs=torch.ones(3))
    with pytest.raises(ValueError, match="rows and columns"):
        UNet(1, 1, dims=1, padding=replace(SPHERE))


def test_nothing_of_the_descent_is_held_once_it_was_added() -> None:
    net, held = UNet(1, 1, widths=(8, 16), blocks=1, attention=(False, False)), []

    def count(module: torch.nn.Module, inputs: tuple[object, ...]) -> None:
        shape = (2, 8, 16, 16)
        found = (x for x in gc.get_objects() if type(x) is torch.Tensor and x.shape == shape)
        held.append(len({x.data_ptr() for x in found}))

    net.ascent[0][0].register_forward_pre_hook(count)  # type: ignore[index]
    with torch.no_grad():
        net(torch.randn(2, 1, 16, 16))
    assert held == [1]
