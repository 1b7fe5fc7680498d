"""Chains: points whose order means something, told of their neighbours along the chain and in space."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciffusion.domains.shapes import ShapeModel, Shapes, ShapeTask, recipe
from sciffusion.domains.shapes.adapter import shape_state
from sciffusion.domains.shapes.chains import Moves, Neighbours, SpatialBlock
from tests.domains.shapes.small import settings


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def walks(n: int, points: int) -> Shapes:
    """Random walks, the steps of which have coordinates of deviation 0.5."""
    return Shapes.of(list((0.5 * randn(n, points, 3)).cumsum(1)))


@pytest.fixture(scope="module")
def task() -> ShapeTask:
    config = settings()
    network = replace(config.model.network, chain=2)
    model = replace(config.model, network=network, attributes=())
    return ShapeTask(replace(config, model=model), walks(20, 12))


@pytest.fixture(scope="module")
def model(task: ShapeTask) -> ShapeModel:
    denoiser = task.model()
    with torch.no_grad():
        for i, p in enumerate(denoiser.parameters()):
            p.copy_(0.05 * randn(*p.shape, seed=i))
    return ShapeModel(task.config.model, denoiser.eval())


def test_steps_are_measured(task: ShapeTask) -> None:
    config = task.config.model
    assert config.scale is not None and config.bond is not None
    assert config.bond * config.scale == pytest.approx(0.5, rel=0.1)


def test_chains_may_not_be_thinned(task: ShapeTask) -> None:
    config = replace(task.config, data=replace(task.config.data, points=4))
    with pytest.raises(ValueError, match="tears chains"):
        ShapeTask(config, walks(3, 12))
    with pytest.raises(ValueError, match="at least 2 neighbours"):
        Neighbours(1, 1.0)


def test_padding_changes_nothing_in_a_chain(model: ShapeModel) -> None:
    x, mask = randn(2, 9, 3), torch.ones(2, 9, dtype=torch.bool)
    t = torch.tensor(0.4)
    alone = model.denoiser(shape_state(x, mask), t).x0["points"]
    wide = torch.cat([x, torch.zeros(2, 5, 3)], 1)
    padded = model.denoiser(shape_state(wide, torch.arange(14).expand(2, 14) < 9), t).x0["points"]
    torch.testing.assert_close(padded[:, :9], alone, rtol=1e-4, atol=1e-5)


def test_order_means_something_in_a_chain(model: ShapeModel) -> None:
    x, mask, order = randn(1, 9, 3), torch.ones(1, 9, dtype=torch.bool), torch.randperm(9)
    t = torch.tensor(0.4)
    whole = model.denoiser(shape_state(x, mask), t).x0["points"]
    other = model.denoiser(shape_state(x[:, order], mask), t).x0["points"]
    assert float((other - whole[:, order]).detach().abs().max()) > 1e-2


def test_vectors_turn_with_the_points_and_a_mirror_image_is_told_from_them() -> None:
    near, x, points = Neighbours(3, 0.5), randn(2, 20, 3), torch.tensor([20, 20])
    turn = torch.linalg.qr(randn(3, 3, seed=1))[0]
    turn = turn * torch.linalg.det(turn)
    features, vectors = near(x, points)
    turned, found = near(x @ turn, points)
    torch.testing.assert_close(found, vectors @ turn, rtol=1e-4, atol=1e-4)
    ways = 3 * (2 * 3 + 2 * 4)
    torch.testing.assert_close(turned[..., ways:], features[..., ways:], rtol=1e-4, atol=1e-4)
    mirrored = near(-x, points)[0]
    assert torch.equal(mirrored[..., ways:-1], features[..., ways:-1])
    assert torch.equal(mirrored[..., -1], -features[..., -1])


def test_ways_end_with_the_chain() -> None:
    near, x = Neighbours(2, 1.0), randn(1, 6, 3)
    _, vectors = near(x, torch.tensor([6]))
    assert not vectors[0, 0, 0].any() and not vectors[0, 5, 1].any()  # back and on by one
    torch.testing.assert_close(vectors[0, 2, 1], x[0, 3] - x[0, 2])
    # eight places on there is nothing: the way to the end, over the root of its length
    torch.testing.assert_close(vectors[0, 2, 5], (x[0, 5] - x[0, 2]) / 3**0.5)


def test_points_move_by_weighted_sums_of_what_they_know() -> None:
    moves, vectors = Moves(4, 2), randn(1, 5, 2, 3)
    assert not moves(randn(1, 5, 4), vectors).any()
    torch.nn.init.ones_(moves.weights.bias)
    torch.testing.assert_close(moves(torch.zeros(1, 5, 4), vectors), vectors.sum(2))


def rested(x: torch.Tensor, reach: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The ways of a block that attends by distance alone, a single head."""
    block = SpatialBlock(4, 1, 4, 2)
    torch.nn.init.zeros_(block.block.own.qkv.weight)
    torch.nn.init.constant_(block.reach.bias, reach)
    h, embedding = torch.zeros(*x.shape[:2], 4), torch.zeros(len(x), 2)
    return block(h, x, embedding, None, mask)[1][:, :, 0]


def test_attention_falls_with_the_square_of_the_distance() -> None:
    x = randn(2, 7, 3)
    lam = torch.nn.functional.softplus(torch.tensor(0.7))
    weights = (-lam * torch.cdist(x, x).square()).softmax(-1)
    torch.testing.assert_close(rested(x, 0.7), weights @ x - x, rtol=1e-4, atol=1e-5)
    assert (
        float(rested(x, 60.0).detach().abs().max()) < 1e-3
    )  # so narrow that a point sees itself alone
    # so wide that all are equal: the way to the mean of the points that count
    mask = torch.arange(7).expand(2, 7) < 5
    mean = x[:, :5].mean(1, keepdim=True)
    torch.testing.assert_close(rested(x, -30.0, mask), mean - x, rtol=1e-4, atol=1e-5)


def test_without_reach_a_block_is_one_of_sets() -> None:
    block, h, embedding = SpatialBlock(8, 2, 8, 4), randn(2, 9, 8, seed=1), randn(2, 4, seed=3)
    for i, p in enumerate(block.parameters()):
        torch.nn.init.normal_(p, std=0.7, generator=torch.Generator().manual_seed(i))
    for name in ("told.weight", "told.bias", "reach.weight"):
        torch.nn.init.zeros_(block.get_parameter(name))
    torch.nn.init.constant_(block.reach.bias, -40.0)
    mask = torch.arange(9).expand(2, 9) < 7
    plain = block.block(h, embedding, None, mask, None, None)
    torch.testing.assert_close(block(h, randn(2, 9, 3), embedding, None, mask)[0], plain)


def test_what_a_block_is_told_of_space_changes_neither_when_turned_nor_when_moved() -> None:
    block, x, h = SpatialBlock(8, 2, 8, 4), randn(1, 9, 3), randn(1, 9, 8, seed=1)
    for i, p in enumerate(block.parameters()):
        torch.nn.init.normal_(p, std=0.5, generator=torch.Generator().manual_seed(i))
    # of what it is told, only the ways themselves turn; their lengths do not
    torch.nn.init.zeros_(block.told.weight[:, :6])
    turn, embedding = torch.linalg.qr(randn(3, 3, seed=2))[0], randn(1, 4, seed=3)
    found, ways = block(h, x, embedding, None, None)
    moved, turned = block(h, x @ turn + 3.0, embedding, None, None)
    torch.testing.assert_close(moved, found, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(turned, ways @ turn, rtol=1e-3, atol=1e-3)


def test_interpolated_chains_keep_their_order(model: ShapeModel) -> None:
    a, b = walks(1, 9), Shapes.of([randn(9, 3, seed=5).cumsum(0)])
    between = model.interpolate(a, b, 2, steps=24, iterations=10)
    ends = [s.centred().points for s in (a, b)]
    for made, end in zip(between.parts(), ends, strict=True):
        assert float((made - end).norm() / end.norm()) < 0.2


def test_the_recipe_of_traces_is_one_of_chains() -> None:
    config = recipe("traces")
    assert config.model.network.chain and config.data.turn and config.data.points is None
    assert not np.any(config.model.attributes)
