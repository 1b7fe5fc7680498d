"""Laws of the transformer on two streams of tokens: its start, its symmetries, what acts on it, and how it runs."""

import pytest
import torch

from sciffusion.networks import GuidanceScale, MMDiT

from .networks import close, draw, idle_after, shaken


def small(
    dims: int = 2,
    *,
    embedding: int = 6,
    double: int = 1,
    single: int = 1,
    circular: tuple[bool, ...] | None = None,
    checkpointing: bool = False,
) -> MMDiT:
    torch.manual_seed(0)
    return MMDiT(
        3,
        2,
        context=4,
        dims=dims,
        width=24,
        double=double,
        single=single,
        heads=2,
        embedding=embedding,
        circular=circular,
        checkpointing=checkpointing,
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [(7,), (3, 5), (2, 3, 4)])
def test_any_size_comes_back_in_one_to_three_dimensions(size: tuple[int, ...]) -> None:
    y = shaken(small(len(size)))(draw(2, 3, *size), draw(2, 6), draw(2, 3, 4))
    assert y.shape == (2, 2, *size)
    assert y.isfinite().all()


@pytest.mark.parametrize("embedding", [0, 6])
def test_its_output_is_zero_at_initialisation_and_its_blocks_are_the_identity(
    embedding: int,
) -> None:
    net, x, context = small(embedding=embedding).double(), draw(2, 3, 4, 6), draw(2, 3, 4)
    e = draw(2, embedding) if embedding else None
    assert not net(x, e, context).any()
    tokens, _ = net.read(x, e, context, None)
    c = net.read_context(context)
    after, text = net.paired[0](tokens.h, c, e, tokens.rotation, None)
    assert torch.equal(after, tokens.h) and torch.equal(text, c)
    assert torch.equal(net.blocks[0](tokens.h, e, tokens.rotation, None, None, None), tokens.h)


@torch.no_grad()
def test_embedding_and_context_act_and_masked_context_does_not() -> None:
    net, x, e, context = shaken(small()), draw(2, 3, 5, 8), draw(2, 6), draw(2, 3, 4)
    y = net(x, e, context)
    assert (net(x, e + 1, context) - y).abs().max() > 1e-3
    assert (net(x, e, context + 1) - y).abs().max() > 1e-3
    mask = torch.tensor([[True, True, False]] * 2)
    close(net(x, e, context, mask), net(x, e, context[:, :2]))
    empty = net(x, e, context, torch.zeros(2, 3, dtype=torch.bool))
    assert empty.isfinite().all()
    close(empty, net(x, e, context[:, :0]))


@torch.no_grad()
def test_two_streams_see_each_other_through_weights_of_their_own() -> None:
    block, e = shaken(small()).get_submodule("paired.0"), draw(2, 6)
    x, c = draw(2, 5, 24), draw(2, 3, 24, seed=2)
    y = block(x, c, e, None, None)
    moved = (
        block(x, draw(2, 3, 24, seed=3), e, None, None),
        block(draw(2, 5, 24, seed=4), c, e, None, None),
    )
    assert (moved[0][0] - y[0]).abs().max() > 1e-3 < (moved[1][1] - y[1]).abs().max()
    swapped = block(c, x, e, None, None)
    assert (swapped[1] - y[0]).abs().max() > 1e-3
    hidden = block(x, c, e, None, torch.tensor([[False] * 3 + [True] * 5] * 2))
    close(hidden[0], block(x, c[:, :0], e, None, None)[0])
    turned = block(x, c, e, torch.polar(torch.ones(5, 6).double(), draw(5, 6)), None)
    assert (turned[0] - y[0]).abs().max() > 1e-3
    block.get_parameter("context.narrow.weight").zero_()
    other = block(x, c, e, None, None)
    close(other[0], y[0])
    assert (other[1] - y[1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("double", [0, 1])
def test_the_order_of_the_context_does_not_matter_and_that_of_the_grid_does(double: int) -> None:
    net, x, e, context = shaken(small(double=double)), draw(2, 3, 4, 8), draw(2, 6), draw(2, 3, 4)
    close(net(x, e, context.flip(1)), net(x, e, context))
    swapped = torch.cat((x[..., 4:], x[..., :4]), -1)
    y = net(swapped, e, context)
    assert (torch.cat((y[..., 4:], y[..., :4]), -1) - net(x, e, context)).abs().max() > 1e-3


@torch.no_grad()
def test_without_a_context_it_commutes_with_rolls_of_a_circle_by_patches() -> None:
    net, x, e = shaken(small(circular=(False, True))), draw(2, 3, 4, 8), draw(2, 6)
    none = draw(2, 0, 4)
    close(net(x.roll(4, -1), e, none), net(x, e, none).roll(4, -1))
    assert (net(x.roll(2, -2), e, none) - net(x, e, none).roll(2, -2)).abs().max() > 1e-3


@torch.no_grad()
def test_samples_and_padding_are_not_seen() -> None:
    net, x, e, context = shaken(small(1)), draw(3, 3, 8), draw(3, 6), draw(3, 3, 4)
    each = [net(x[i : i + 1], e[i : i + 1], context[i : i + 1]) for i in range(3)]
    close(net(x, e, context), torch.cat(each))
    more = torch.cat((x, torch.full((3, 3, 4), torch.nan).double()), -1)
    mask = (torch.arange(12) < 8).expand(3, 12)
    y = net(more, e, context, mask=mask)
    close(y[..., :8], net(x, e, context))
    assert not y[..., 8:].any()


def test_gradients_reach_every_parameter() -> None:
    inputs = (draw(2, 3, 5, 8).float(), draw(2, 6).float(), draw(2, 3, 4).float())
    assert idle_after(small(), inputs, 3) == []


def test_checkpointing_changes_neither_values_nor_gradients() -> None:
    found = []
    for checkpointing in (False, True):
        net = shaken(small(checkpointing=checkpointing))
        y = net(draw(2, 3, 4, 6), draw(2, 6), draw(2, 3, 4))
        y.square().sum().backward()
        found.append((y, *(p.grad for p in net.parameters())))
    for a, b in zip(*found, strict=True):
        assert a is not None and b is not None
        close(a, b)


def test_it_compiles_to_one_graph() -> None:
    net = shaken(small())
    inputs = (draw(2, 3, 4, 6), draw(2, 6), draw(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    torch.compiler.reset()
    y = torch.compile(net, fullgraph=True, backend="eager")(*inputs)
    close(y, net(*inputs))
    y.sum().backward()


@torch.no_grad()
def test_it_runs_in_low_precision_and_on_channels_that_lie_last() -> None:
    net, x, e, context = shaken(small()), draw(2, 3, 4, 8), draw(2, 6), draw(2, 3, 4)
    y = net(x, e, context)
    close(net(x.contiguous(memory_format=torch.channels_last), e, context), y)
    rough = net.bfloat16()(x.bfloat16(), e.bfloat16(), context.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough - y).norm() < 0.1 * y.norm()


def test_a_guidance_scale_changes_nothing_at_first_and_acts_when_trained() -> None:
    embed, w = GuidanceScale(8), torch.tensor([1.0, 2.0, 7.5], dtype=torch.float64)
    assert embed(w).shape == (3, 8) and not embed(w).any()
    apart = shaken(embed)(w)
    assert (apart[1:] - apart[:-1]).norm(dim=-1).min() > 1e-2
    assert idle_after(GuidanceScale(8), (w,), 2) == []
    with pytest.raises(ValueError, match=r"scale must not be negative, got -7.5"):
        embed(-w)


def test_what_does_not_fit_is_refused_by_name() -> None:
    net, x, e = small(), torch.zeros(1, 3, 4, 4), torch.zeros(1, 6)
    with pytest.raises(ValueError, match="built with context=4: give it context"):
        net(x, e)
    with pytest.raises(ValueError, match=r"x must be \(B, 3, \*, \*\)"):
        net(x[0], e, torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="an embedding for each frame tells nothing of the"):
        net(x, torch.zeros(1, 2, 6), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="context and single must be at least 1"):
        small(single=0)
