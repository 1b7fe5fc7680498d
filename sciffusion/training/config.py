"""Settings of a training run that know nothing of the domain."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar, final

from sciffusion.ema import Constant, Power, WarmUp

T = TypeVar("T")


def _free(default: T) -> T:
    """Mark a setting that may change between two parts of one run without harming it."""
    setting: T = field(default=default, metadata={"may_change": True})
    return setting


@final
@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, on matrices only.

    (Loshchilov & Hutter 2019, arXiv 1711.05101.)
    """

    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


@final
@dataclass(frozen=True)
class Muon:
    """Orthogonalised momentum for hidden matrices, AdamW for all else (Jordan 2024).

    The update is rescaled to AdamW's root mean square, so one ``lr`` serves both (Liu et al. 2025,
    arXiv 2502.16982). ``adamw_for`` lists name patterns (``"*.head.weight"``) of matrices that are
    not hidden: read-in and read-out layers. Embedding tables are left out by themselves.
    """

    kind: Literal["muon"] = "muon"
    momentum: float = 0.95
    weight_decay: float = 0.0
    adamw_for: tuple[str, ...] = ()
    adamw: AdamW = AdamW()


@final
@dataclass(frozen=True)
class PostHoc:
    """Averages of these widths beside ``ema``, stored every so many steps and at the end.

    They lie in ``DIR/snapshots``; :func:`sciffusion.posthoc.posthoc` makes an average of any other width of
    them. Each costs the memory of one copy of the weights. (Karras et al. 2024, arXiv 2312.02696.)
    """

    sigma_rels: tuple[float, ...] = (0.05, 0.1)
    every: int = 1_000

    def __post_init__(self) -> None:
        if not self.sigma_rels or len(set(self.sigma_rels)) < len(self.sigma_rels):
            raise ValueError(f"sigma_rels must be one or more widths, got {self.sigma_rels}")
        for sigma_rel in self.sigma_rels:
            Power(sigma_rel=sigma_rel)
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")


@final
@dataclass(frozen=True)
class TrainConfig:
    """How to train: length, optimizer, precision, processes, records.

    ``batch_size`` and ``seed`` reach the data through :meth:`Task.order`. ``lr`` rises linearly
    over ``warmup`` steps, then follows ``schedule`` to ``final_lr`` at ``steps``. Each global batch
    is cut into processes x ``accumulate`` parts; a run depends on that product only, so one process
    with ``accumulate: 4`` continues a run of four processes. ``checkpoint_every`` counts steps and
    ``checkpoint_seconds`` seconds (0: off); one is always written at the end.
    """

    steps: int = _free(100_000)
    batch_size: int = 64
    lr: float = 1e-3
    final_lr: float = 0.0
    warmup: int = 1_000
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    optimizer: AdamW | Muon = AdamW()
    grad_clip: float | None = 1.0
    accumulate: int = _free(1)
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: Constant | WarmUp | Power | None = WarmUp()
    posthoc: PostHoc | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = _free("auto")
    parallel: Literal["auto", "none", "ddp", "fsdp"] = _free("auto")
    threads: int | None = _free(None)
    compile: bool = _free(False)
    log_every: int = _free(100)
    print_seconds: float = _free(10.0)
    tensorboard: bool = _free(False)
    validate_every: int = _free(0)
    checkpoint_every: int = _free(0)
    checkpoint_seconds: float = _free(600.0)
    keep: int = _free(2)
    max_seconds: float | None = _free(None)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "validate_every", "checkpoint_every", "checkpoint_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.lr <= 0 or not 0 <= self.final_lr <= self.lr:
            raise ValueError(
                f"need 0 <= final_lr <= lr and lr > 0, got {self.final_lr} and {self.lr}"
            )
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"grad_clip must be positive or null, got {self.grad_clip}")
        if isinstance(self.optimizer, Muon) and self.parallel == "fsdp":
            raise ValueError("optimizer muon needs whole matrices: use parallel ddp, or adamw")


MAY_CHANGE = frozenset(f.name for f in fields(TrainConfig) if f.metadata.get("may_change"))
