"""Training a molecular model: settings, batches and loss for the training engine."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.noise import Noise
from sciffusion.objective import EDM, LogitNormal, Objective
from sciffusion.state import State
from sciffusion.training import Order, SizeBuckets, StepLoss, Task, TrainConfig

from .adapter import ModelConfig, molecule_state, pairs
from .chem import DistanceTable
from .data import MoleculeSet
from .geometry import random_rotations
from .properties import Normaliser
from .qm9 import qm9

__all__ = ["DataConfig", "MoleculeTask", "MoleculeTraining", "ObjectiveConfig"]

# what the user sets: self_condition follows from the objective
_MODEL_SETTINGS = [f.name for f in fields(ModelConfig) if f.name != "self_condition"]


@final
@dataclass(frozen=True)
class DataConfig:
    """Which molecules to learn from.

    ``path`` is a local copy of QM9 (None: fetched and cached). ``order: chain`` puts every hydrogen after its heavy
    atom. ``limit`` keeps the first molecules only. Molecules above ``max_atoms`` atoms are left out.
    """

    path: Path | None = None
    split: str = "train"
    order: Literal["chain", "file"] = "chain"
    limit: int | None = None
    max_atoms: int | None = None

    def load(self, split: str | None = None) -> MoleculeSet:
        """The molecules of a split (None: the one to learn from)."""
        mols = qm9(split or self.split, path=self.path)
        if self.max_atoms is not None:
            mols = mols.subset(np.flatnonzero(mols.sizes <= self.max_atoms))
        if self.limit is not None:
            mols = mols.subset(slice(0, self.limit))
        return mols.chain_ordered() if self.order == "chain" else mols


@final
@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised: EDM's weight on positions, cross-entropy (or EDM's weight) on the rest.

    Times are logit-normal with ``time_mean`` and ``time_std``. ``atom_weight``, ``charge_weight`` and ``bond_weight``
    multiply the losses of these fields, that of the positions being 1. ``self_condition`` is the share of the batches
    that see a first prediction of themselves; ``drop`` the share of molecules that lose their conditions.
    """

    time_mean: float = 0.0
    time_std: float = 1.0
    atom_weight: float = 0.25
    charge_weight: float = 0.25
    bond_weight: float = 0.25
    self_condition: float = 0.0
    drop: float = 0.1


@final
@dataclass(frozen=True)
class MoleculeTraining:
    """All settings of a training run: what a configuration file holds."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()


@final
class MoleculeTask(Task[tuple[State, dict[str, Tensor] | None]]):
    """Learning to generate the molecules of a data set.

    Every molecule of a batch is turned by a random rotation, drawn, like all noise, from the key of the step.
    """

    def __init__(
        self, config: MoleculeTraining, mols: MoleculeSet, valid: MoleculeSet | None = None
    ) -> None:
        if config.model.charges and mols.charges is None:
            raise ValueError(
                "model.charges is true, but these molecules come without formal charges"
            )
        # batches hold the model's types, whatever order of elements the set has
        vocabulary = config.model.vocabulary
        self.mols = mols = replace(mols, vocabulary=vocabulary)
        self.valid = replace(valid, vocabulary=vocabulary) if valid is not None else None
        # rounded, for the last digits of a sum depend on the number of threads
        scale = config.model.scale or round(float(mols.pos.double().square().mean().sqrt()), 6)
        sees_itself = config.objective.self_condition > 0
        measured = replace(config.model, scale=scale, self_condition=sees_itself)
        self.config = replace(config, model=measured)
        model, objective = self.config.model, self.config.objective
        self.normaliser = Normaliser.fit(mols, list(model.conditions)) if model.conditions else None
        self._targets = self.normaliser.targets(mols) if self.normaliser else None
        process = model.process()
        weights = {
            "atom": objective.atom_weight,
            "charge": objective.charge_weight,
            "bond": objective.bond_weight,
        }
        self.objective = Objective(
            process,
            weight=EDM(),
            times=LogitNormal(objective.time_mean, objective.time_std),
            field_weights={k: w for k, w in weights.items() if k in process.processes},
            null=dict.fromkeys(model.conditions, torch.nan) if model.conditions else None,
            drop=objective.drop if model.conditions else 0.0,
            self_condition=objective.self_condition,
        )

    def model(self) -> Preconditioned:
        """The untrained denoiser."""
        return self.config.model.denoiser()

    def order(self, config: TrainConfig) -> Order:
        """Batches of molecules of one size."""
        return SizeBuckets(
            self.mols.sizes, config.batch_size, seed=config.seed, min_bucket=min(32, len(self.mols))
        )

    def batch(
        self, indices: NDArray[np.int64], key: int, device: torch.device
    ) -> tuple[State, dict[str, Tensor] | None]:
        """The molecules of these rows, turned, with their conditions."""
        cond = None
        if self.normaliser is not None and self._targets is not None:
            rows = self._targets[torch.from_numpy(indices.copy())].float().to(device)
            cond = dict(zip(self.config.model.conditions, rows.unbind(1), strict=True))
        return self._state(self.mols, indices, key, device), cond

    def _state(
        self, mols: MoleculeSet, indices: NDArray[np.int64], key: int, device: torch.device
    ) -> State:
        padded = mols.padded(indices)
        turn = random_rotations(len(indices), torch.Generator().manual_seed(key))
        pos = (padded.pos @ turn.to(padded.pos).mT).to(device)
        full = bool((mols.sizes[indices] == padded.mask.shape[1]).all())
        mask = None if full else padded.mask.to(device)
        chosen = (
            mols.subset(indices) if self.config.model.charges or self.config.model.bonds else None
        )
        return molecule_state(
            self.config.model,
            pos,
            padded.atom.to(device),
            mask=mask,
            charge=_charges(chosen, padded.mask).to(device) if chosen is not None else None,
            bond=_bonds(chosen).to(device)
            if chosen is not None and self.config.model.bonds
            else None,
        )

    def loss(
        self, model: nn.Module, batch: tuple[State, dict[str, Tensor] | None], key: int
    ) -> StepLoss:
        """The objective, and the loss of every field."""
        loss = self.objective(model, batch[0], batch[1], noise=Noise(key))  # type: ignore[arg-type]
        return StepLoss(loss.mean, {str(k): v.detach().mean() for k, v in loss.per_field.items()})

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of up to 2,048 held-out molecules, always with the same noise."""
        if self.valid is None:
            return {}
        order = SizeBuckets(self.valid.sizes, 128, seed=0, min_bucket=min(32, len(self.valid)))
        device, totals, n = next(model.parameters()).device, {"loss": 0.0}, 0
        for step in range(min(16, order.steps_per_epoch)):
            indices = order.batch(0, step)
            state = self._state(self.valid, indices, key + step, device)
            loss = self.objective(model, state, noise=Noise(key + step))  # type: ignore[arg-type]
            n += len(indices)
            totals["loss"] += float(loss.per_sample.sum())
            for name, value in loss.per_field.items():
                totals[str(name)] = totals.get(str(name), 0.0) + float(value.sum())
        return {k: v / n for k, v in totals.items()}

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        data = replace(self.config.data, path=None)  # where the file lies shapes nothing
        model = {k: getattr(self.config.model, k) for k in _MODEL_SETTINGS}
        parts = {"model": model, "data": data, "objective": self.config.objective}
        return {k: to_dict(v) for k, v in parts.items()} | {"molecules": len(self.mols)}


def _charges(mols: MoleculeSet, mask: Tensor) -> Tensor:
    """The formal charges of a batch, padded; zero where the data have none."""
    out = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
    if mols.charges is not None:
        out[mask] = mols.charges.long()
    return out


def _bonds(mols: MoleculeSet) -> Tensor:
    """The bond order 0 to 3 of every pair i < j of every molecule, drawn by the distance table, (P,)."""
    z, ptr = mols.z.cpu().numpy().astype(np.int64), mols.ptr.cpu().numpy()
    found = DistanceTable()(mols.pos.cpu().numpy(), z, ptr)
    i, j = pairs(torch.from_numpy(mols.sizes))[0].numpy()
    keys = i * len(z) + j  # rising, since the pairs are listed in order
    out = np.zeros(len(keys), dtype=np.int64)
    out[np.searchsorted(keys, found.pairs[:, 0] * len(z) + found.pairs[:, 1])] = found.orders
    return torch.from_numpy(out)
