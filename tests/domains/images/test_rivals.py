"""Laws of what diffusion is compared with: the rivals of the benchmark must not lose by a mistake of ours."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_values_follow_from_those_before_them_with_or_without_what_is_kept() -> None:
    from rival_networks import Autoregressive

    torch.manual_seed(0)
    model = Autoregressive(6, 5, 3, width=12, depth=2, heads=2).eval()
    label = torch.tensor([0, 2])
    values = torch.randint(5, (2, 6))
    whole = model(values, label)
    changed = values.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 5
    again = model(changed, label)
    assert torch.equal(again[:, :4], whole[:, :4]) and not torch.equal(again[:, 4], whole[:, 4])
    # keys and values that are kept give the same chances: at no temperature the likeliest values come
    drawn = model.draw(label, torch.Generator(), temperature=1e-4)
    torch.testing.assert_close(model(drawn, label).argmax(-1), drawn)


def test_drawn_values_have_the_chances_of_the_network() -> None:
    from rival_networks import Autoregressive

    torch.manual_seed(0)
    model = Autoregressive(2, 3, 1, width=8, depth=1, heads=2).eval()
    n = 20_000
    label = torch.zeros(n, dtype=torch.long)
    drawn = model.draw(label, torch.Generator().manual_seed(0))
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        logs = model(pairs, label[:9]).log_softmax(-1)
    chances = logs.gather(2, pairs[:, :, None]).sum((1, 2)).exp()
    counts = torch.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9) / n
    assert float((counts - chances).abs().max()) < 4 * math.sqrt(0.25 / n)


def test_both_rivals_learn_a_plain_law() -> None:
    from rival_networks import (
        Autoregressive,
        PlainDiscriminator,
        PlainGenerator,
        adversarial,
        autoregressive,
    )

    torch.manual_seed(0)
    points = torch.randn(2000, 2) * 0.3 + torch.tensor([0.5, -0.5])
    none = torch.zeros(2000, dtype=torch.long)
    gan = adversarial(
        PlainGenerator(width=32), PlainDiscriminator(32), points, none, seconds=1.5, seed=0
    )
    made = gan.sample(none, 1)
    assert float((made.mean(0) - points.mean(0)).abs().max()) < 0.25
    assert torch.equal(made, gan.sample(none, 1)) and gan.calls == 1
    values = torch.tensor([[0, 1], [1, 0]])[torch.arange(2000) % 2]
    network = Autoregressive(2, 2, 1, width=8, depth=1, heads=2, dropout=0.0)
    tokens = autoregressive(network, values, none, seconds=1.5, seed=0, lr=1e-2)
    drawn = tokens.sample(none, 1)
    assert float((drawn[:, 0] != drawn[:, 1]).float().mean()) > 0.9
    assert 0.3 < float(drawn[:, 0].float().mean()) < 0.7
