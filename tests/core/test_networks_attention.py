"""Laws of attention, of rotary positions and of embeddings."""

import pytest
import torch
from torch import Tensor

from sciffusion.networks import (
    CrossAttention,
    FourierEmbedding,
    NoiseLevel,
    Rotary,
    SelfAttention,
    attention,
)
from sciffusion.networks.rotary import rotate

from .networks import close, draw, shaken


def test_attention_is_the_mean_of_values_weighted_by_the_softmax_of_scaled_products() -> None:
    q, k, v = draw(2, 3, 4, 5), draw(2, 3, 6, 5, seed=2), draw(2, 3, 6, 5, seed=3)
    weights = (q @ k.mT / 5**0.5).softmax(-1)
    close(attention(q, k, v), weights @ v)


def test_keys_that_do_not_count_do_not_matter() -> None:
    q, k, v = draw(2, 3, 4, 5), draw(2, 3, 6, 5, seed=2), draw(2, 3, 6, 5, seed=3)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 6])
    out = attention(q, k, v, mask)
    close(out[:1], attention(q[:1], k[:1, :, :4], v[:1, :, :4]))
    assert torch.equal(out[1], torch.zeros_like(out[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_on_a_cpu_is_not_rounded_to_bfloat16(dtype: torch.dtype) -> None:
    q, k, v = (draw(2, 3, 6, 5, seed=i).to(dtype) for i in range(3))
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 6])
    with torch.autocast("cpu", torch.bfloat16):
        out, coarse = attention(q, k, v, mask), attention(q, k, v.bfloat16(), mask)
    assert out.dtype == dtype and torch.equal(out, attention(q, k, v, mask))
    assert coarse.dtype == torch.float32


@pytest.mark.parametrize("norm", [False, True])
def test_attention_without_positions_commutes_with_permutations(norm: bool) -> None:
    net, x = shaken(SelfAttention(8, 2, norm=norm)), draw(2, 7, 8)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    close(net(x[:, order]), net(x)[:, order])


def test_cross_attention_does_not_see_the_order_of_the_context_nor_what_is_masked() -> None:
    net, x, context = shaken(CrossAttention(8, 2, 5)), draw(2, 7, 8), draw(2, 4, 5, seed=2)
    mask = torch.tensor([[True, True, True, False]] * 2)
    close(net(x, context.flip(1)), net(x, context))
    close(net(x, context, mask), net(x, context[:, :3]))


def test_heads_share_the_width_evenly() -> None:
    with pytest.raises(ValueError, match="width 8 is no multiple of the 3 heads"):
        SelfAttention(8, 3)
    with pytest.raises(ValueError, match="width 8 is no multiple of the 3 heads"):
        CrossAttention(8, 3, 5)


def products(n: int, circular: tuple[bool, ...], size: float) -> Tensor:
    """Products of one query and one key at all places of a line of n, the query's by the key's."""
    at = torch.arange(n, dtype=torch.float64)
    rotation = Rotary(12, circular)([at], [size])
    q, k = draw(12), draw(12, seed=2)
    return rotate(q.expand(n, 12), rotation) @ rotate(k.expand(n, 12), rotation).mT


def test_products_depend_on_differences_of_positions_only() -> None:
    p = products(9, (False,), 9)
    for offset in range(-8, 9):
        diagonal = p.diagonal(offset)
        close(diagonal, diagonal[:1].expand_as(diagonal))
    assert p[0].unique().numel() == 9


def test_on_a_circle_differences_count_modulo_its_circumference() -> None:
    p = products(9, (True,), 9)
    for shift in range(9):
        close(p.roll((shift, shift), (0, 1)), p)
    assert p[0].unique().numel() == 9


def test_axes_of_a_grid_turn_pairs_of_their_own_and_lengths_stay() -> None:
    at = [torch.arange(n, dtype=torch.float64) for n in (3, 4, 5)]
    rotation = Rotary(20, (False, True, False))(at, [3.0, 4.0, 5.0])
    assert rotation.shape == (60, 10)
    close(rotation.abs(), torch.ones(60, 10).double())
    angles = rotation.angle().view(3, 4, 5, 10)
    for axis in range(3):
        own = angles[..., 3 * axis : 3 * axis + 3]
        others = [a for a in range(3) if a != axis]
        close(own, own.amin(others, keepdim=True).expand_as(own))
    assert not angles[..., 9].any()
    x = draw(60, 20)
    close(rotate(x, rotation).norm(dim=-1), x.norm(dim=-1))


def test_heads_too_narrow_for_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="an even width of at least 6"):
        Rotary(4, (False, False, False))


def test_fourier_features_have_one_length_and_their_products_know_the_difference_only() -> None:
    embed = FourierEmbedding(16, 100.0, 1.0)
    x = draw(5)
    close(embed(x).square().sum(-1), torch.full((5,), 8.0).double())
    close((embed(x) * embed(x + 0.7)).sum(-1), (embed(-x) * embed(0.7 - x)).sum(-1))
    periods = embed(torch.tensor([0.0, 100.0], dtype=torch.float64))
    close(periods[0, [0, 7, 8, 15]], periods[1, [0, 7, 8, 15]])  # longest and shortest divide 100


def test_noise_levels_stay_apart_in_low_precision() -> None:
    net = NoiseLevel(32).bfloat16()
    levels = torch.tensor([-20.0, -10.0, 0.0, 10.0, 10.1], dtype=torch.float64)
    features = net.fourier(levels)
    assert features.dtype == torch.float64
    assert net(levels).dtype == torch.bfloat16
    apart = (net(levels)[:-1] - net(levels)[1:]).float().norm(dim=-1)
    assert (apart > 0.02).all()


def test_noise_levels_take_as_many_features_as_they_were_built_for() -> None:
    net, level = shaken(NoiseLevel(8, 2)), draw(3)
    assert net(level, draw(3, 2)).shape == (3, 8)
    assert not torch.equal(net(level, draw(3, 2)), net(level, draw(3, 2, seed=2)))
    with pytest.raises(ValueError, match=r"features must be \(B, 2\), got 0"):
        net(level)
    with pytest.raises(ValueError, match="even number, not 3"):
        FourierEmbedding(3, 2.0, 1.0)
    with pytest.raises(ValueError, match="periods run from shortest 2.0 to longest 1.0"):
        FourierEmbedding(4, 1.0, 2.0)
