"""Training a model of the frequencies that clips lack: settings, batches and the loss for the training engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.noise import Noise, sample_seeds
from sciffusion.objective import EDM, LogNormal, Objective
from sciffusion.state import State
from sciffusion.training import Order, StepLoss, Task, TrainConfig, TrainState
from sciffusion.training import train as run_training

from .bandwidth import BandConfig, BandExtender, band_state
from .clip import Clip, Clips
from .given import Given
from .standard import Standard
from .task import DataConfig, batches

__all__ = ["BandTask", "BandTraining", "train_band"]

Batch = tuple[State, dict[str, Tensor]]


@final
@dataclass(frozen=True)
class BandTraining:
    """All settings of a training run: what a configuration file holds.

    The logarithm of noise over signal is normal with ``time_mean`` and ``time_std``. Raises ``ValueError`` for several
    shifts: every time a clip is seen, it begins at a random sample of a hop anyway.
    """

    model: BandConfig = BandConfig()
    data: DataConfig = DataConfig()
    time_mean: float = 0.0
    time_std: float = 1.0
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.data.shifts != 1:
            raise ValueError(
                f"data.shifts must be 1 here, where clips begin anywhere, got {self.data.shifts}"
            )


@final
class BandTask(Task[Batch]):
    """Learning what lies above a cut-off in the clips of a data set.

    What the network sees was resampled to the lower rate and back, as given clips are. Raises ``ValueError`` without a
    clip, and for a clip that is silent up to the cut-off.
    """

    def __init__(self, config: BandTraining, clips: Clips, valid: Clips | None = None) -> None:
        if not len(clips):
            raise ValueError("clips must hold at least one clip to learn from")
        self.config = config
        self.pairs = [self._pair(clip) for clip in clips]
        self.valid = [self._pair(clip) for clip in valid or ()]
        levels = [config.model.levels(pair)[1] for pair in self.pairs]
        self.sizes = np.array([len(x) for x in levels])
        self.standard = Standard.fit(levels)
        self.objective = Objective(
            self.model().process,
            weight=EDM(),
            times=LogNormal(config.time_mean, config.time_std),
        )

    def _pair(self, clip: Clip) -> Tensor:
        """What is heard of a clip at the lower rate, and all of it, at the same level, (2, N)."""
        c = self.config.model
        whole = clip.mono().resample(c.rate)
        heard = Given.of(whole.resample(c.narrow), c)
        size = min(len(heard.wave), whole.samples.shape[1])
        return torch.stack([heard.wave[:size], heard.gain * whole.samples[0, :size]])

    def model(self) -> Preconditioned:
        """The untrained denoiser."""
        return self.config.model.denoiser()

    def order(self, config: TrainConfig) -> Order:
        """Batches of clips of like length."""
        return batches(self.sizes, config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The clips of these rows, each delayed by a part of a hop."""
        # a stream apart from that of the loss
        hop = self.config.model.hop
        delays = (Noise(sample_seeds(key, 1)[0]).scalars(len(indices)) * hop).long().tolist()
        return self._batch([self.pairs[i] for i in indices.tolist()], delays, device)

    def _batch(self, pairs: list[Tensor], delays: list[int], device: torch.device) -> Batch:
        c = self.config.model
        sizes = [p.shape[1] + d for p, d in zip(pairs, delays, strict=True)]
        waves = torch.zeros(len(pairs), 2, max(sizes))
        for row, pair, delay, size in zip(waves, pairs, delays, sizes, strict=True):
            row[:, delay:size] = pair
        levels = self.standard.encode(c.levels(waves.flatten(0, 1).to(device)))
        seen, whole = levels.unflatten(0, (-1, 2)).unbind(1)
        frames = torch.tensor([c.framing.frames(size) for size in sizes], device=device)
        state = band_state(whole[:, :, c.lower :].contiguous(), frames)
        state = state.replace({"band": state.layout("band").clean(state["band"])})
        return state, {"low": seen[:, :, : c.lower]}

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean squared error of the normalised target inside the clips."""
        loss = self.objective(model, batch[0], batch[1], noise=Noise(key))  # type: ignore[arg-type]
        return StepLoss(loss.mean)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of up to 256 held-out clips, always with the same noise."""
        if not self.valid:
            return {}
        device, losses = next(model.parameters()).device, []
        for i in range(0, min(256, len(self.valid)), 64):
            pairs = self.valid[i : i + 64]
            state, cond = self._batch(pairs, [0] * len(pairs), device)
            with torch.no_grad():
                found = self.objective(model, state, cond, noise=Noise(key + i))  # type: ignore[arg-type]
            losses.append(found.per_sample)
        return {"loss": float(torch.cat(losses).mean())}

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None)}
        found: dict[str, object] = {k: to_dict(v) for k, v in parts.items()}
        times = {"time_mean": c.time_mean, "time_std": c.time_std}
        return found | times | {"clips": len(self.pairs)}


def train_band(
    config: BandTraining,
    directory: str | Path,
    clips: Clips | None = None,
    valid: Clips | None = None,
    *,
    resume: bool = True,
) -> tuple[BandExtender, TrainState]:
    """Train a model in ``directory`` (continuing the run found there) and write ``band.safetensors`` in it.

    The data are those that the configuration names, or ``clips`` and ``valid``, clips of your own. Returns the model
    with averaged weights and the state of the run.
    """
    directory = Path(directory)
    clips, valid = config.data.sets(clips, valid, check=bool(config.train.validate_every))
    task = BandTask(config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    denoiser = task.model()
    denoiser.load_state_dict(state.weights())
    info = {"steps": state.step, "recipe": task.describe()}
    found = BandExtender(config.model, denoiser.eval(), task.standard, info=info)
    if state.first:
        found.save(directory / "band.safetensors")
    return found, state
