"""One step of the loop: whose gradient it follows, what it records, when it gives up."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sciffusion.training import Checkpoints, Diverged, StepLoss, TrainState

from .toy import Net, Toy, run


class Quiet(Toy):
    """The toy without noise and dropout: its loss depends on the samples alone."""

    def __init__(self) -> None:
        super().__init__(noise=0.0, dropout=0.0)


def difference(a: TrainState, b: TrainState) -> float:
    """Largest difference between all tensors of two runs, but for the counter of calls."""
    first, second = a.tensors(), b.tensors()
    return max(
        float((value - second[file][name]).abs().max())
        for file in first
        for name, value in first[file].items()
        if name != "calls"
    )


def rows(directory: Path, name: str = "log.csv") -> list[dict[str, float]]:
    with (directory / name).open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_accumulating_parts_equals_one_large_batch(accumulate: int, tmp_path: Path) -> None:
    # batches of 7 and 8 samples: parts are unequal, so a plain mean of means would differ
    once = run(tmp_path / "once", task=Quiet())
    parts = run(tmp_path / "parts", f"accumulate={accumulate}", task=Quiet())
    assert difference(once, parts) < 1e-6
    for a, b in zip(rows(tmp_path / "once"), rows(tmp_path / "parts"), strict=True):
        for name in ("loss", "mae", "grad_norm", "lr", "epoch"):
            assert a[name] == pytest.approx(b[name], rel=1e-5)


def test_parts_without_a_sample_change_nothing(tmp_path: Path) -> None:
    changes = ("batch_size=1", "steps=20")
    once = run(tmp_path / "once", *changes, task=Quiet())
    parts = run(tmp_path / "parts", "accumulate=3", *changes, task=Quiet())
    assert difference(once, parts) < 1e-6


def test_the_recorded_loss_is_the_mean_over_the_steps_since_the_last_row(tmp_path: Path) -> None:
    run(tmp_path / "each", "log_every=1")
    run(tmp_path / "some", "log_every=4")
    each, some = rows(tmp_path / "each"), rows(tmp_path / "some")
    assert [r["step"] for r in some] == list(range(4, 41, 4))
    for i, row in enumerate(some):
        for name in ("loss", "mae", "grad_norm"):
            mean = sum(r[name] for r in each[4 * i : 4 * i + 4]) / 4
            assert row[name] == pytest.approx(mean, rel=1e-12)


def gradients(state: TrainState) -> Tensor:
    return torch.cat([p.grad.flatten() for p in state.optimizer.parameters if p.grad is not None])


def test_clipping_shortens_the_gradient_to_its_limit_and_keeps_its_direction(
    tmp_path: Path,
) -> None:
    free = gradients(run(tmp_path / "free", "steps=1", "grad_clip=null"))
    clipped = gradients(run(tmp_path / "clipped", "steps=1", "grad_clip=0.01", "log_every=1"))
    loose = gradients(run(tmp_path / "loose", "steps=1", "grad_clip=1000"))
    assert free.norm() > 0.1
    assert clipped.norm() == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(clipped / clipped.norm(), free / free.norm(), atol=1e-6)
    assert torch.equal(loose, free)
    assert rows(tmp_path / "clipped")[0]["grad_norm"] == pytest.approx(float(free.norm()))


class Spy(Quiet):
    """Notes the precision of the network's output."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], key: int) -> StepLoss:
        self.seen.add(model(batch[0]).dtype)
        return super().loss(model, batch, key)


def test_bf16_computes_in_bf16_and_keeps_its_state_in_fp32(tmp_path: Path) -> None:
    low, high = Spy(), Spy()
    state = run(tmp_path / "low", "precision=bf16", task=low)
    full = run(tmp_path / "high", task=high)
    assert (low.seen, high.seen) == ({torch.bfloat16}, {torch.float32})
    files = state.tensors()
    assert {t.dtype for file in files.values() for t in file.values()} == {torch.float32}
    assert 0 < difference(state, full) < 0.2


class Breaks(Quiet):
    """Returns a loss that is not finite, at one step."""

    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self.calls, self.at, self.value = 0, at, value

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], key: int) -> StepLoss:
        self.calls += 1
        loss = super().loss(model, batch, key)
        return StepLoss(loss.mean * self.value if self.calls == self.at else loss.mean, loss.logs)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_a_loss_that_is_not_finite_is_an_error_that_names_its_step(
    value: float, log_every: int, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match="not finite at step 6"):
        run(tmp_path, f"log_every={log_every}", task=Breaks(6, value))
    latest = Checkpoints(tmp_path / "checkpoints", 2).latest()
    assert latest is not None
    assert latest.name == "step-00000004"
    assert run(tmp_path, f"log_every={log_every}", task=Quiet()).step == 40
    assert [r["step"] for r in rows(tmp_path)] == list(range(log_every, 41, log_every))


class Examined(Quiet):
    """Keeps what validation sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, dict[str, Tensor]]] = []

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        self.seen.append((model.training, {n: p.clone() for n, p in model.named_parameters()}))
        return super().validate(model, key)


def test_validation_sees_the_average_in_evaluation_mode_and_changes_nothing(tmp_path: Path) -> None:
    task = Examined()
    changes = ("ema={kind: constant, value: 0.9}", "steps=12")
    state = run(tmp_path / "a", "validate_every=4", *changes, task=task)
    plain = run(tmp_path / "b", *changes, task=Quiet())
    assert difference(state, plain) == 0.0
    assert state.model.training
    assert [training for training, _ in task.seen] == [False] * 3
    assert state.ema is not None
    for name, value in task.seen[-1][1].items():
        assert torch.equal(value, state.ema.state_dict()[name])
    assert [r["step"] for r in rows(tmp_path / "a", "validation.csv")] == [4, 8, 12]


def test_without_an_average_validation_sees_the_model(tmp_path: Path) -> None:
    task = Examined()
    state = run(tmp_path, "ema=null", "steps=4", "validate_every=4", task=task)
    for name, p in state.model.named_parameters():
        assert torch.equal(task.seen[0][1][name], p)
    assert not list(tmp_path.rglob("ema.safetensors"))


@pytest.mark.parametrize(("change", "file"), [("ema={value: 0.9}", "ema"), ("ema=null", "model")])
def test_the_weights_of_a_run_are_the_averaged_ones_if_there_are_any(
    change: str, file: str, tmp_path: Path
) -> None:
    state = run(tmp_path, change)
    tensors, weights = state.tensors(), state.weights()
    assert weights.keys() == tensors["model"].keys()
    assert all(torch.equal(v, tensors[file][k]) for k, v in weights.items())
    assert any(not torch.equal(v, tensors["model"][k]) for k, v in weights.items()) == (
        file == "ema"
    )


def test_one_process_of_a_run_is_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = run(tmp_path, "steps=1")
    assert state.first
    monkeypatch.setenv("RANK", "1")
    assert not state.first


def test_a_parameter_that_the_loss_does_not_use_stays_as_it_is(tmp_path: Path) -> None:
    state = run(tmp_path)
    assert isinstance(state.model, Net)
    assert state.model.unused.tolist() == [1.0, 1.0]


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    run(tmp_path, "steps=300", "log_every=50", "checkpoint_every=0", task=Quiet())
    losses = [r["loss"] for r in rows(tmp_path)]
    assert losses[-1] < 0.2 * losses[0]


class Restless(Quiet):
    """Reports other names at each step."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], key: int) -> StepLoss:
        loss = super().loss(model, batch, key)
        return StepLoss(loss.mean, {f"a{key}": loss.mean})


class Wide(Quiet):
    """Reports a loss per sample where a mean belongs."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], key: int) -> StepLoss:
        return StepLoss(super().loss(model, batch, key).mean, {"each": torch.zeros(3)})


def test_records_that_cannot_be_averaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must keep its keys"):
        run(tmp_path / "a", task=Restless())
    with pytest.raises(ValueError, match="must be scalars"):
        run(tmp_path / "b", task=Wide())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("parallel=fsdp", "one process"),
        ("steps=0", "steps must be at least 1"),
        ("validate_every=-1", "validate_every must not be negative"),
        ("final_lr=1.0", "final_lr <= lr"),
        ("grad_clip=0.0", "grad_clip must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torch sees no GPU"):
        run(tmp_path, "device=cuda")
