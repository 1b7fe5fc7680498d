"""Laws of sparse mixtures of experts: what they compute, whom they choose, and how their balance is learnt."""

import pytest
import torch
from torch import Tensor, nn

from sciffusion.networks import DiT, Experts, MMDiT, Routing
from sciffusion.networks.experts import Router, Routes

from .networks import close, draw, idle_after, shaken


def mixture() -> Experts:
    torch.manual_seed(0)
    return shaken(Experts(6, 8), scale=0.5)


def naive(net: Experts, token: Tensor) -> Tensor:
    """The formula for a single token."""
    p = (net.router.linear.weight @ token).softmax(0)
    best = sorted(range(4), key=lambda i: -float(p[i]))[:2]
    return net.shared(token) + sum(p[i] * net.each[i](token) for i in best)


def test_grouped_dispatch_gives_what_the_formula_gives_token_by_token() -> None:
    net, x = mixture(), draw(2, 7, 6)
    each = [[naive(net, token) for token in row] for row in x]
    close(net(x), torch.stack([torch.stack(row) for row in each]))


def test_gradients_of_grouped_dispatch_are_those_of_the_formula() -> None:
    net, found = mixture(), []
    for whole in (True, False):
        net.zero_grad()
        x = draw(1, 5, 6).requires_grad_()
        y = net(x) if whole else torch.stack([naive(net, token) for token in x[0]])
        (y.view(5, 6) * draw(5, 6, seed=2)).sum().backward()
        found.append([x.grad, *(p.grad for p in net.parameters())])
    for a, b in zip(*found, strict=True):
        close(torch.zeros(()) if a is None else a, torch.zeros(()) if b is None else b)


@torch.no_grad()
def test_the_way_that_can_be_traced_gives_the_same() -> None:
    net, x = mixture(), draw(2, 7, 6)
    y = net(x)
    torch.compiler.reset()
    close(torch.compile(net, fullgraph=True, backend="eager")(x), y)
    close(torch.func.vmap(net)(x), y)


@torch.no_grad()
def test_tokens_do_not_see_each_other_and_experts_without_tokens_rest() -> None:
    net, x = mixture(), draw(1, 7, 6)
    close(net(x[:, [3, 1]]), net(x)[:, [3, 1]])
    seen: list[int] = []
    for expert in net.each:
        expert.register_forward_hook(lambda m, inputs, y: seen.append(len(inputs[0])))
    net(x[:, :1])
    assert sorted(seen) == [0, 0, 1, 1]


def network(name: str, checkpointing: bool = False) -> nn.Module:
    torch.manual_seed(0)
    size = {"width": 24, "heads": 2, "experts": 4}
    if name == "DiT":
        return DiT(3, 2, depth=2, checkpointing=checkpointing, **size)  # type: ignore[arg-type]
    return MMDiT(3, 2, context=4, double=1, single=1, checkpointing=checkpointing, **size)  # type: ignore[arg-type]


def given(name: str) -> tuple[Tensor | None, ...]:
    x = draw(2, 3, 4, 6)
    return (x,) if name == "DiT" else (x, None, draw(2, 3, 4))


@pytest.mark.parametrize("name", ["DiT", "MM-DiT"])
def test_gradients_reach_every_expert(name: str) -> None:
    inputs = tuple(None if v is None else v.float() for v in given(name))
    idle = idle_after(network(name), inputs, 3)
    assert [k for k in idle if ".experts." not in k] == []
    assert not any(".router." in k or ".shared." in k for k in idle)


def test_a_watched_network_computes_the_same_and_is_left_as_it_was() -> None:
    net, inputs = shaken(network("DiT")), given("DiT")
    y = net(*inputs)
    with Routing(net) as routing:
        assert torch.equal(net(*inputs), y)
    net(*inputs)
    assert len(routing.routes) == 2
    assert all(not m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_balance_loss_reaches_the_routers_and_training_on_it_evens_the_loads(
    checkpointing: bool,
) -> None:
    net = network("DiT", checkpointing)
    inputs = ((draw(1, 3, 1, 1) + 0.3 * draw(2, 3, 8, 8)).float(),)  # tokens that are much alike
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Router):
                module.linear.weight *= 4
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    found = []
    for _ in range(30):
        with Routing(net) as routing:
            y = net(*inputs)
        balance = routing.balance()
        optimizer.zero_grad()
        (y.square().mean() + balance).backward()
        optimizer.step()
        found.append((balance.item(), routing.entropy().item()))
    (first, low), (last, high) = found[0], found[-1]
    assert abs(last - 1) < 0.2 < first - 1
    assert low < high <= 1


def routes(*rows: tuple[list[float], list[int]]) -> Routes:
    p, chosen = zip(*rows, strict=True)
    return Routes(torch.tensor([p], dtype=torch.float64), torch.tensor([chosen]), None)


def watched(*found: Routes) -> Routing:
    routing = Routing(Router(2, 2, 1))
    routing.routes += found
    return routing


def test_balance_and_entropy_are_those_of_their_formulas() -> None:
    even = routes(([0.5, 0.5], [0]), ([0.5, 0.5], [1]))
    close(watched(even).balance(), torch.tensor(1.0).double())
    close(watched(even).entropy(), torch.tensor(1.0).double())
    uneven = routes(([0.8, 0.2], [0]), ([0.6, 0.4], [0]))
    close(watched(uneven).balance(), torch.tensor(1.4, dtype=torch.float64))
    close(watched(uneven).entropy(), torch.tensor(0.0).double())
    close(watched(even, uneven).balance(), torch.tensor(1.2, dtype=torch.float64))
    padded = Routes(
        torch.cat((uneven.probabilities, even.probabilities), 1),
        torch.cat((uneven.chosen, even.chosen), 1),
        torch.tensor([[True, True, False, False]]),
    )
    close(watched(padded).balance(), torch.tensor(1.4, dtype=torch.float64))
    close(watched(padded).entropy(), torch.tensor(0.0).double())


def test_padding_is_not_counted() -> None:
    net, x = shaken(network("DiT")), draw(2, 3, 4, 6)
    more = torch.cat((x, draw(2, 3, 4, 8, seed=7)), -1)
    mask = (torch.arange(14) < 6).expand(2, 4, 14)
    values = []
    for inputs in ((x,), (more, None, None, None, mask)):
        with Routing(net) as routing:
            net(*inputs)
        values.append(torch.stack((routing.balance(), routing.entropy())))
    close(values[0], values[1])


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="the model has no experts"):
        Routing(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no router ran inside the block"):
        Routing(network("DiT")).balance()
    with pytest.raises(ValueError, match="active must be between 1 and the 2 experts, not 3"):
        Experts(4, 8, 2, 3)
