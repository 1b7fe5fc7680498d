"""Laws of the transformer on patches: sizes, symmetries, its start, what acts on it, and how it runs."""

import pytest
import torch

from sciffusion.networks import DiT
from sciffusion.networks.patches import complete, join, split

from .networks import close, draw, idle_after, shaken


def small(
    dims: int = 2,
    *,
    patch: int | tuple[int, ...] = 2,
    embedding: int = 0,
    context: int = 0,
    prefix: int = 0,
    circular: tuple[bool, ...] | None = None,
    learned: tuple[int, ...] | None = None,
    checkpointing: bool = False,
) -> DiT:
    torch.manual_seed(0)
    return DiT(
        3,
        2,
        dims=dims,
        patch=patch,
        width=24,
        depth=2,
        heads=2,
        embedding=embedding,
        context=context,
        prefix=prefix,
        circular=circular,
        learned=learned,
        checkpointing=checkpointing,
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [(1,), (37,), (3, 5), (33, 49), (5, 9, 12), (1, 2, 3)])
def test_any_size_comes_back(size: tuple[int, ...]) -> None:
    dims = len(size)
    for patch in (1, 2, (4, 3, 2)[:dims]):
        for circular in (None, (True,) * dims):
            net = shaken(small(dims, patch=patch, circular=circular))
            y = net(draw(2, 3, *size))
            assert y.shape == (2, 2, *size)
            assert y.isfinite().all()


@pytest.mark.parametrize("size", [(8,), (4, 6), (2, 4, 6)])
def test_patches_are_blocks_of_the_grid_and_come_back(size: tuple[int, ...]) -> None:
    patch = (2, 1, 3)[: len(size)] if len(size) == 3 else (2,) * len(size)
    x = draw(2, 3, *size)
    tokens = split(x, patch)
    close(join(tokens, patch, [n // p for n, p in zip(size, patch, strict=True)]), x)
    corner = x[(slice(None), slice(None), *(slice(p) for p in patch))]
    close(tokens[:, 0], corner.flatten(1))


def test_grids_are_completed_by_their_beginning_on_circles_and_by_their_edge_elsewhere() -> None:
    x = draw(1, 1, 2, 5)
    whole = complete(x, (3, 4), (False, True))
    assert torch.equal(whole[..., :2, 5:], x[..., :3])
    assert torch.equal(whole[..., 2, :], whole[..., 1, :])


@torch.no_grad()
def test_on_a_circle_it_commutes_with_rolls_by_patches() -> None:
    net, x = shaken(small(circular=(False, True), patch=(2, 3))), draw(2, 3, 5, 12)
    y = net(x)
    for shift in (3, 6, -3):
        close(net(x.roll(shift, -1)), y.roll(shift, -1))
    assert (net(x.roll(2, -2)) - y.roll(2, -2)).abs().max() > 1e-3


@torch.no_grad()
def test_samples_do_not_see_each_other() -> None:
    net = shaken(small(embedding=6, context=4))
    x, e, context = draw(3, 3, 5, 8), draw(3, 6), draw(3, 3, 4)
    each = [net(x[i : i + 1], e[i : i + 1], context[i : i + 1]) for i in range(3)]
    close(net(x, e, context), torch.cat(each))


@pytest.mark.parametrize("embedding", [0, 6])
def test_its_output_is_zero_at_initialisation_and_its_blocks_are_the_identity(
    embedding: int,
) -> None:
    net, x = small(embedding=embedding, context=4).double(), draw(2, 3, 8, 8)
    e, context = (draw(2, embedding) if embedding else None), draw(2, 3, 4)
    y = net(x, e, context)
    assert torch.equal(y, torch.zeros_like(y))
    tokens = net.first(split(x, (2, 2)))
    rotation = net._rotation(x, (4, 4), (8, 8))
    for block in net.blocks:
        assert torch.equal(block(tokens, e, rotation, None, context, None), tokens)


@torch.no_grad()
def test_embedding_and_context_act_and_masked_context_does_not() -> None:
    net = shaken(small(embedding=6, context=4))
    x, e, context = draw(2, 3, 5, 8), draw(2, 6), draw(2, 3, 4)
    y = net(x, e, context)
    assert (net(x, e + 1, context) - y).abs().max() > 1e-3
    assert (net(x, e, context + 1) - y).abs().max() > 1e-3
    mask = torch.tensor([[True, True, False]] * 2)
    close(net(x, e, context, mask), net(x, e, context[:, :2]))


@torch.no_grad()
def test_a_padded_row_gives_what_the_row_alone_gives() -> None:
    net, x = shaken(small(1)), draw(3, 3, 20)
    lengths = (20, 13, 8)
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    y = net(x, mask=mask)
    assert torch.equal(net(torch.where(mask[:, None], x, torch.nan), mask=mask), y)
    for i, n in enumerate(lengths):
        whole = -(-n // 2) * 2  # the last patch ends in a point that does not count
        alone = net(x[i : i + 1, :, :whole], mask=mask[i : i + 1, :whole])
        close(y[i : i + 1, :, :whole], alone)
        assert not y[i, :, n:].any()


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
def test_it_runs_in_low_precision() -> None:
    net, x, e = shaken(small(embedding=6, circular=(False, True))), draw(2, 3, 9, 8), draw(2, 6)
    y = net(x, e)
    rough = net.bfloat16()(x.bfloat16(), e.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough - y).norm() < 0.1 * y.norm()


def test_it_compiles_to_one_graph() -> None:
    net = shaken(small(embedding=6, context=4, circular=(False, True)))
    inputs = (draw(2, 3, 5, 7), draw(2, 6), draw(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    mask = torch.ones(2, 5, 7, dtype=torch.bool)
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    y = compiled(*inputs, mask=mask)
    close(y, net(*inputs, mask=mask))
    y.sum().backward()


@torch.no_grad()
def test_learned_places_tell_equal_patches_apart_and_rotary_ones_alone_do_not() -> None:
    x = torch.ones(1, 3, 6, 8, dtype=torch.float64)
    for learned, differ in (((3, 0), True), ((0, 0), False)):
        y = shaken(small(learned=learned))(x)
        assert (float((y[..., 2:4, :] - y[..., :2, :]).abs().max()) > 1e-3) is differ


@torch.no_grad()
def test_the_other_axis_stays_relative_when_one_has_learned_places() -> None:
    net, x = shaken(small(learned=(3, 0), circular=(False, True))), draw(2, 3, 6, 8)
    close(net(x.roll(2, -1)), net(x).roll(2, -1))


@torch.no_grad()
def test_all_places_can_be_learned() -> None:
    y = shaken(small(learned=(3, 4)))(torch.ones(1, 3, 6, 8, dtype=torch.float64))
    assert y.shape == (1, 2, 6, 8)
    rows, columns = y[..., 2:4, :] - y[..., :2, :], y[..., 2:4] - y[..., :2]
    assert float(rows.abs().max()) > 1e-3 and float(columns.abs().max()) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("learned", [None, (3, 0)])
def test_a_prefix_acts_and_what_is_padded_does_not(learned: tuple[int, ...] | None) -> None:
    net, x, prefix = shaken(small(prefix=5, learned=learned)), draw(2, 3, 6, 4), draw(2, 2, 5)
    y = net(x, prefix=prefix)
    assert float((net(x, prefix=2 * prefix) - y).abs().max()) > 1e-3
    more = torch.cat((x, draw(2, 3, 6, 4, seed=9)), -1)
    mask = torch.arange(8).expand(2, 6, 8) < 4
    close(net(more, mask=mask, prefix=prefix)[..., :4], y)


@torch.no_grad()
def test_the_order_of_a_prefix_does_not_matter() -> None:
    net, x, prefix = shaken(small(prefix=5)), draw(2, 3, 6, 4), draw(2, 3, 5)
    close(net(x, prefix=prefix.flip(1)), net(x, prefix=prefix))


def test_what_does_not_fit_is_refused_by_name() -> None:
    net = small(context=4)
    with pytest.raises(ValueError, match=r"x must be \(B, 3, \*, \*\), got \(1, 3, 8\)"):
        net(torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match=r"context must be \(1, \*, 4\), got \(1, 4\)"):
        net(torch.zeros(1, 3, 8, 8), None, torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"mask must be \(1, 8, 8\), got \(1, 8\)"):
        net(torch.zeros(1, 3, 8, 8), None, torch.zeros(1, 2, 4), mask=torch.ones(1, 8).bool())
    with pytest.raises(ValueError, match="dims must be 1, 2 or 3, not 0"):
        DiT(1, 1, dims=0)
    with pytest.raises(ValueError, match="one value for each of 2 axes"):
        DiT(1, 1, patch=(2, 2, 2))
    with pytest.raises(ValueError, match="width 10 is no multiple of heads 4"):
        DiT(1, 1, width=10)
    with pytest.raises(ValueError, match="an even width of at least 4"):
        DiT(1, 1, width=8, heads=4)
    with pytest.raises(ValueError, match="built with prefix=5: give it prefix"):
        small(prefix=5)(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="built without prefix"):
        small()(torch.zeros(1, 3, 8, 8), prefix=torch.zeros(1, 1, 5))
    with pytest.raises(ValueError, match=r"prefix must be \(1, \*, 5\), got \(1, 2, 4\)"):
        small(prefix=5)(torch.zeros(1, 3, 8, 8), prefix=torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="learned 3 places on axis 0, but x has 4 patches"):
        small(learned=(3, 0))(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="learned needs a number of patches, or 0, for each of 2"):
        DiT(1, 1, learned=(1,))
