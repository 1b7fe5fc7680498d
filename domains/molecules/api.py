"""The verbs that notebooks and scripts call: load, sample, evaluate, train, save.

>>> from sciffusion.domains import molecules                      # doctest: +SKIP
>>> model = molecules.load("qm9")                                 # doctest: +SKIP
>>> mols = model.sample(64, seed=0)                               # doctest: +SKIP
>>> mols.report()                                                 # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.config import load as load_config
from sciffusion.denoiser import Denoiser, Preconditioned
from sciffusion.described import described
from sciffusion.errors import did_you_mean
from sciffusion.grid import Power
from sciffusion.guidance import CFG
from sciffusion.noise import Noise, sample_seeds
from sciffusion.progress import track
from sciffusion.samplers import Multistep, Sampler
from sciffusion.shelf import Shelf
from sciffusion.state import State
from sciffusion.training import ModelFile, TrainState, write_model
from sciffusion.training import train as run_training

from .adapter import ModelConfig, atom_classes, molecule_state
from .container import Molecules
from .properties import Normaliser
from .sizes import SizePrior
from .task import MoleculeTask, MoleculeTraining

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["MoleculeModel", "SamplingConfig", "load", "models", "recipe", "train"]

_SHELF = Shelf(Path(__file__).parent)


@final
@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled unless told otherwise; stored with it.

    A multistep solver of ``order`` with noise ``eta`` (0: the deterministic flow, 1: the reverse SDE, more: fresh noise
    that corrects an imperfect network) takes ``steps`` steps on the grid ``t^(1/power)``.
    """

    steps: int = 50
    order: int = 1
    eta: float = 1.0
    power: float = 1.5

    def sampler(self, steps: int | None = None) -> Sampler:
        """The core's sampler, with another number of steps if wanted."""
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        return Sampler(Multistep(self.order, self.eta), steps, Power(self.power))


@final
@dataclass(frozen=True, repr=False)
class MoleculeModel:
    """A trained molecular model.

    ``denoiser`` is an ordinary denoiser of the core: everything there (samplers, guidance) takes it. ``sizes`` is the
    distribution of atom counts that :meth:`sample` draws from. ``info`` says where the model comes from.
    """

    config: ModelConfig
    denoiser: Preconditioned
    sizes: SizePrior
    sampling: SamplingConfig = SamplingConfig()
    normaliser: Normaliser | None = None
    info: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return described(self, self.denoiser, asked=self.attributes)

    @property
    def attributes(self) -> tuple[str, ...]:
        """What molecules may be asked by: the properties that the model was trained on."""
        return self.config.conditions

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        sizes: Sequence[int] | None = None,
        given: Mapping[str, float] | None = None,
        guidance: float = 1.0,
        sampler: Sampler | None = None,
        batch_size: int = 128,
        progress: bool = True,
    ) -> Molecules:
        """Draw new molecules.

        Molecule i depends on ``seed`` and i alone (up to rounding): not on ``n`` nor on ``batch_size``.

        Args:
            n: how many.
            seed: of everything random.
            steps: denoiser calls for each molecule (None: the model's own number).
            sizes: the number of atoms of each molecule, (n,); None: drawn from the model's size prior.
            given: wanted values of the properties that the model was trained on, in their units.
            guidance: scale of classifier-free guidance: 1 conditional, 0 unconditional.
            sampler: any sampler of the core, instead of the model's own.
            batch_size: molecules that are denoised together.
            progress: show a bar on a terminal.

        Raises:
            ValueError: n below 1, sizes of another length or below 1, a property that the model does not know.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        seeds = sample_seeds(seed, n)
        counts = self._sizes(seeds) if sizes is None else np.asarray(sizes, dtype=np.int64)
        if counts.shape != (n,) or counts.min() < 1:
            raise ValueError(
                f"sizes must be {n} positive numbers of atoms, got {list(counts)[:10]}"
            )
        denoiser = self._denoiser(given, guidance)
        sampler = sampler or self.sampling.sampler(steps)
        # molecules of like size share a batch, so that little is padded
        order = np.argsort(counts, kind="stable")
        batches = [order[i : i + batch_size] for i in range(0, n, batch_size)]
        parts = []
        for rows in track(batches, show=progress):
            parts.append(self._run(denoiser, sampler, counts[rows], [seeds[i] for i in rows]))
        return Molecules.concatenate(parts)[np.argsort(order, kind="stable")]

    def _sizes(self, seeds: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        u = Noise(seeds).scalars(len(seeds)).numpy()
        cdf = np.cumsum(self.sizes.probabilities)
        return np.asarray(self.sizes.sizes)[np.searchsorted(cdf, u * cdf[-1], side="right")]

    def _denoiser(self, given: Mapping[str, float] | None, guidance: float) -> Denoiser:
        known = self.config.conditions
        for name in given or {}:
            if name not in known:
                trained = ", ".join(known) or "no property"
                raise ValueError(
                    f"given names {name!r}, but this model was trained on {trained}. "
                    f"{did_you_mean(name, known)}".rstrip()
                )
        if not given:
            if guidance != 1:
                raise ValueError(f"guidance {guidance} needs given, the values to be guided to")
            return self.denoiser
        if self.normaliser is None:
            raise ValueError("this model has no normaliser, so it cannot read the values in given")
        absent = float("nan")
        values = torch.tensor([given.get(name, absent) for name in known], dtype=torch.float64)
        scaled = dict(zip(known, self.normaliser.normalise(values).float().tolist(), strict=True))
        return _ForAll(self.denoiser, scaled, guidance)

    def _run(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        counts: np.ndarray[Any, Any],
        seeds: Sequence[int],
    ) -> Molecules:
        device = next(self.denoiser.parameters()).device
        mask = (torch.arange(int(counts.max())) < torch.from_numpy(counts)[:, None]).to(device)
        zeros = torch.zeros_like(mask, dtype=torch.long)
        pairs = int((counts * (counts - 1) // 2).sum())
        like = molecule_state(
            self.config,
            torch.zeros((*mask.shape, 3), device=device),
            zeros,
            mask=None if bool(mask.all()) else mask,
            charge=zeros,
            bond=torch.zeros(pairs, dtype=torch.long, device=device),
        )
        noise = Noise(seeds)
        noise.scalars(len(seeds))  # the number that chose the size: no other may share its bits
        x = sampler(denoiser, self.denoiser.process.prior(like, noise), noise).x
        assert isinstance(x, State)
        positions = x["pos"][mask].double().cpu().numpy() * float(self.config.scale or 1.0)
        z = self.config.vocabulary.decode(atom_classes(x["atom"][mask]).cpu()).numpy()
        charges = (x["charge"][mask] - 1).cpu().numpy() if self.config.charges else None
        return Molecules(positions, z, np.concatenate([[0], np.cumsum(counts)]), charges)

    def to(self, device: str | torch.device) -> MoleculeModel:
        """The same model on another device; samples are the same up to rounding."""
        return replace(self, denoiser=self.denoiser.to(device))

    def evaluate(
        self,
        n: int = 1000,
        *,
        reference: Molecules | None = None,
        seed: int = 0,
        n_xtb: int = 0,
        n_posebusters: int = 0,
    ) -> Report:
        """Sample ``n`` molecules and judge them; ``reference`` molecules allow novelty and geometry distances."""
        mols = self.sample(n, seed=seed)
        return mols.report(reference, n_xtb=n_xtb, n_posebusters=n_posebusters, seed=seed)

    def save(self, path: str | Path) -> Path:
        """Write everything to one safetensors file, weights rounded to float16; :func:`load` reads it."""
        meta = {
            "model": self.config,
            "sizes": self.sizes.to_dict(),
            "sampling": self.sampling,
            "normaliser": self.normaliser.to_dict() if self.normaliser else None,
            "info": dict(self.info or {}),
        }
        return write_model(path, "molecules", meta, {"": self.denoiser.state_dict()})

    @classmethod
    def from_file(cls, path: str | Path) -> MoleculeModel:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, "molecules", "a molecular model")
        config, normaliser = file.config(ModelConfig, "model"), file.meta["normaliser"]
        denoiser = config.denoiser()
        denoiser.load_state_dict(file.tensors)
        return cls(
            config,
            denoiser.eval(),
            SizePrior.from_dict(file.meta["sizes"]),
            file.config(SamplingConfig, "sampling"),
            Normaliser.from_dict(normaliser) if normaliser else None,
            file.meta["info"],
        )

    @classmethod
    def from_training(
        cls,
        task: MoleculeTask,
        weights: Mapping[str, Tensor],
        info: Mapping[str, Any] | None = None,
    ) -> MoleculeModel:
        """The model that a training task and its (averaged) weights make."""
        denoiser = task.model()
        denoiser.load_state_dict(dict(weights))
        return cls(
            task.config.model,
            denoiser.eval(),
            SizePrior.fit(task.mols.sizes),
            normaliser=task.normaliser,
            info=info,
        )


@final
class _ForAll(Denoiser):
    """One condition for every molecule of whatever batch comes, with guidance."""

    def __init__(self, denoiser: Preconditioned, cond: Mapping[str, float], scale: float) -> None:
        super().__init__()
        self.denoiser, self.cond, self.scale, self.process = (
            denoiser,
            dict(cond),
            scale,
            denoiser.process,
        )

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, previous: Any = None) -> Any:
        """Bind the condition at the batch's size."""
        batch = {
            k: torch.full((x_t.batch,), v, device=x_t["pos"].device) for k, v in self.cond.items()
        }
        return CFG(self.denoiser, batch, None, self.scale)(x_t, t, cond, previous)


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files."""
    return _SHELF.all("model")


def load(name: str | Path) -> MoleculeModel:
    """A trained model: the name of one that ships (``"qm9"``), or a file that ``save`` wrote.

    Raises:
        FileNotFoundError: neither; the message lists the names.
    """
    return MoleculeModel.from_file(_SHELF.find("model", name))


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> MoleculeTraining:
    """A training configuration: the name of one that ships (``"qm9"``), or a YAML file; ``key=value`` overrides.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    path = _SHELF.find("recipe", name)
    return load_config(MoleculeTraining, path, overrides)


def train(
    config: MoleculeTraining, directory: str | Path, *, resume: bool = True
) -> tuple[MoleculeModel, TrainState]:
    """Train a model in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    The same call runs in one process or in many (``torchrun``). Returns the model with averaged weights and the state
    of the run; ``state.stopped`` says why it ended early, if it did.
    """
    directory = Path(directory)
    valid = None
    if config.train.validate_every:
        valid = replace(config.data, limit=2048).load("valid")
    task = MoleculeTask(config, config.data.load(), valid)
    state = run_training(task, config.train, directory, resume=resume)
    weights = state.weights()
    info = {"steps": state.step, "molecules": len(task.mols), "recipe": task.describe()}
    model = MoleculeModel.from_training(task, weights, info)
    if state.first:
        model.save(directory / "model.safetensors")
    return model, state
