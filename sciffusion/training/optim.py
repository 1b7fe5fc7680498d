"""Optimizers and the learning rate.

The learning rate is a pure function of the step, so there is no scheduler state to save.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import final

import torch
from torch import Tensor, nn

from .config import AdamW, Muon, TrainConfig
from .distributed import like, whole


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the rate of update ``step``, counted from 0; the last is ``steps - 1``."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    left = 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.final_lr + (config.lr - config.final_lr) * left


@final
class Optimizer:
    """One or two torch optimizers over the parameters of a model, with state kept by name."""

    def __init__(self, model: nn.Module, config: AdamW | Muon) -> None:
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError(
                "the model has no parameters to train (requires_grad is False everywhere)"
            )
        self._names = {p: n for n, p in trained.items()}
        self.parameters = list(trained.values())
        if isinstance(config, AdamW):
            self.parts: list[torch.optim.Optimizer] = [_adamw(self.parameters, config)]
            return
        hidden = _hidden(model, trained, config)
        chosen = {id(p) for p in hidden}
        rest = [p for p in self.parameters if id(p) not in chosen]
        self.parts = [_muon(hidden, config)] if hidden else []
        self.parts += [_adamw(rest, config.adamw)] if rest else []

    def step(self, lr: float) -> None:
        """Update the parameters from their gradients at this learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as CPU tensors ``"parameter.name/key"``, gathered from all shards."""
        return {
            f"{self._names[p]}/{key}": whole(value)
            for part in self.parts
            for p in _members(part)
            for key, value in sorted(part.state[p].items())
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state_dict` on any device and any number of processes."""
        left = dict(tensors)
        for part in self.parts:
            members = _members(part)
            state: dict[int, dict[str, Tensor]] = {}
            for i, p in enumerate(members):
                prefix = self._names[p] + "/"
                keys = [k for k in left if k.startswith(prefix)]
                if not keys:
                    raise ValueError(f"the checkpoint has no optimizer state for {self._names[p]}")
                values = {k.removeprefix(prefix): left.pop(k) for k in keys}
                state[i] = {k: like(v, p) if v.shape == p.shape else v for k, v in values.items()}
            part.load_state_dict(
                {"state": state, "param_groups": part.state_dict()["param_groups"]}
            )
        if left:
            raise ValueError(
                f"the checkpoint has optimizer state for unknown parameters: {sorted(left)[:5]}"
            )


def _members(part: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in part.param_groups for p in group["params"]]


def _adamw(parameters: list[nn.Parameter], config: AdamW) -> torch.optim.Optimizer:
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        betas=config.betas,
        eps=config.eps,
        fused=all(p.is_floating_point() for p in parameters),  # a third of the time on a CPU
    )


def _muon(parameters: list[nn.Parameter], config: Muon) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"optimizer muon needs torch >= 2.9, this is torch {torch.__version__}: use kind adamw"
        )
    return torch.optim.Muon(
        parameters,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )


def _hidden(
    model: nn.Module, trained: Mapping[str, nn.Parameter], config: Muon
) -> list[nn.Parameter]:
    """Choose the hidden matrices: two dimensions, no embedding table, no name in ``adamw_for``."""
    tables = {
        id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))
    }
    return [
        p
        for name, p in trained.items()
        if p.ndim == 2
        and id(p) not in tables
        and not any(fnmatch(name, a) for a in config.adamw_for)
    ]
