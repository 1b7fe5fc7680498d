"""Learning rates, and which optimizer takes which parameter."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import nn

from sciffusion.training import AdamW, Muon, TrainConfig
from sciffusion.training.optim import Optimizer, learning_rate

Schedule = Literal["constant", "cosine", "linear"]
HAS_MUON = hasattr(torch.optim, "Muon")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.hidden = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.head = nn.Linear(4, 2)


def rates(schedule: Schedule, final_lr: float = 0.1) -> list[float]:
    config = TrainConfig(steps=30, warmup=10, lr=1.0, final_lr=final_lr, schedule=schedule)
    return [learning_rate(step, config) for step in range(31)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_the_rate_rises_linearly_to_lr_over_the_warm_up(schedule: Schedule) -> None:
    assert rates(schedule)[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])


def test_the_rate_ends_at_final_lr_and_is_halfway_in_the_middle() -> None:
    assert rates("constant")[10:] == [1.0] * 21
    for schedule in ("cosine", "linear"):
        after = rates(schedule)
        assert after[10] == pytest.approx(1.0)
        assert after[20] == pytest.approx(0.55)
        assert after[30] == pytest.approx(0.1)
    assert rates("linear")[15] == pytest.approx(0.775)
    assert rates("cosine")[15] == pytest.approx(0.1 + 0.9 * (2 + 2**0.5) / 4)


def test_the_rate_stays_at_final_lr_after_the_last_step() -> None:
    config = TrainConfig(steps=30, warmup=10, lr=1.0, final_lr=0.1)
    assert learning_rate(1000, config) == pytest.approx(0.1)


def test_weight_decay_shrinks_matrices_and_nothing_else() -> None:
    model = Model()
    nn.init.ones_(model.hidden.bias)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    Optimizer(model, AdamW(weight_decay=0.5)).step(lr=0.1)
    for name, p in model.named_parameters():
        factor = 0.95 if p.ndim >= 2 else 1.0
        assert torch.allclose(p, before[name] * factor), name


@pytest.mark.skipif(not HAS_MUON, reason="this torch has no Muon")
def test_muon_takes_hidden_matrices_and_adamw_takes_the_rest() -> None:
    model = Model()
    optimizer = Optimizer(model, Muon(adamw_for=("head.*",)))
    names = {p: n for n, p in model.named_parameters()}
    muon, adamw = (
        {names[p] for group in part.param_groups for p in group["params"]}
        for part in optimizer.parts
    )
    assert muon == {"hidden.weight"}
    assert muon | adamw == set(names.values())


def test_muon_without_support_in_torch_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match="use kind adamw"):
        Optimizer(Model(), Muon())


def test_muon_on_shards_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="muon needs whole matrices"):
        TrainConfig(optimizer=Muon(), parallel="fsdp")


@pytest.mark.parametrize(
    "config",
    [
        AdamW(),
        pytest.param(Muon(), marks=pytest.mark.skipif(not HAS_MUON, reason="no Muon")),
    ],
)
def test_a_restored_optimizer_continues_exactly(config: AdamW | Muon) -> None:
    torch.manual_seed(0)
    model = Model()
    gradients = [[torch.randn_like(p) for p in model.parameters()] for _ in range(6)]

    def steps(model: nn.Module, optimizer: Optimizer, which: slice) -> None:
        for grads in gradients[which]:
            for p, g in zip(model.parameters(), grads, strict=True):
                p.grad = g.clone()
            optimizer.step(lr=0.1)

    optimizer = Optimizer(model, config)
    steps(model, optimizer, slice(0, 3))
    twin = copy.deepcopy(model)
    restored = Optimizer(twin, config)
    restored.load_state_dict(optimizer.state_dict())
    steps(model, optimizer, slice(3, 6))
    steps(twin, restored, slice(3, 6))
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_optimizer_state_of_another_model_is_refused_by_name() -> None:
    model = Model()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer = Optimizer(model, AdamW())
    optimizer.step(lr=0.1)
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"unknown parameters.*other"):
        Optimizer(model, AdamW()).load_state_dict(state | {"other/step": torch.zeros(())})
    fewer = {k: v for k, v in state.items() if not k.startswith("head.bias")}
    with pytest.raises(ValueError, match=r"no optimizer state for head\.bias"):
        Optimizer(model, AdamW()).load_state_dict(fewer)


def test_a_model_without_trainable_parameters_is_refused() -> None:
    model = Model().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameters to train"):
        Optimizer(model, AdamW())
