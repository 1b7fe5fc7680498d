"""Training a model of the frequencies that clips lack: settings, batches and the loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.denoiser import Preconditioned
from sciffusion.noise import Noise, sample_seeds
from sciffusion.objective import EDM, LogNormal, Loss, Objective
from sciffusion.state import State
from sciffusion.training import Order, StepLoss, TrainConfig

from .bandwidth import BandConfig, BandExtender, band_state
from .clip import Clips
from .given import Heard
from .parts import PartTask
from .standard import Standard
from .task import PEAK, DataConfig, batches

__all__ = ["BandTask", "BandTraining"]

Batch = tuple[State, dict[str, Tensor]]


@final
@dataclass(frozen=True)
class BandTraining:
    """All settings of a training run: what a configuration file holds.

    The logarithm of noise over signal is normal with ``time_mean`` and ``time_std``.
    """

    kind: Literal["band"] = "band"
    model: BandConfig = BandConfig()
    data: DataConfig = DataConfig()
    time_mean: float = 0.0
    time_std: float = 1.0
    train: TrainConfig = TrainConfig()


@final
class BandTask(PartTask[Batch, Preconditioned, BandExtender]):
    """Learning what lies above a cut-off in the clips of a data set.

    Every time that a clip is seen it begins at a random sample of a hop, and its cut-off is a random one, even between
    the lowest and the highest. Raises ``ValueError`` for a clip that is silent, and as all such tasks do.
    """

    config: BandTraining

    def __init__(self, config: BandTraining, clips: Clips, valid: Clips | None = None) -> None:
        super().__init__(config, clips)
        self.waves = [Heard.of(clip, config.model).wave for clip in clips]
        self.valid = [Heard.of(clip, config.model).wave for clip in valid or ()]
        levels = [config.model.levels(wave[None])[0] for wave in self.waves]
        self.sizes = np.array([len(x) for x in levels])
        self.standard = Standard.fit(levels)
        self.objective = Objective(
            self.model().process,
            weight=EDM(),
            times=LogNormal(config.time_mean, config.time_std),
        )

    def model(self) -> Preconditioned:
        """The untrained denoiser."""
        return self.config.model.denoiser()

    def order(self, config: TrainConfig) -> Order:
        """Batches of clips of like length."""
        return batches(self.sizes, config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The clips of these rows, each delayed by a part of a hop and with a cut-off of its own."""
        # a stream apart from that of the loss
        numbers, n = Noise(sample_seeds(key, 1)[0]), len(indices)
        delays = (numbers.scalars(n) * self.config.model.hop).long().tolist()
        places = numbers.scalars(n).float()
        return self._batch([self.waves[i] for i in indices.tolist()], delays, places, device)

    def _batch(
        self, found: list[Tensor], delays: list[int], places: Tensor, device: torch.device
    ) -> Batch:
        """Waveforms after so many samples of silence, with cut-offs from the lowest (0) to the highest (1)."""
        c = self.config.model
        sizes = [len(w) + d for w, d in zip(found, delays, strict=True)]
        waves = torch.zeros(len(found), max(sizes))
        for row, wave, delay, size in zip(waves, found, delays, sizes, strict=True):
            row[delay:size] = wave
        cutoffs = (c.cutoffs[0] + places * (c.cutoffs[1] - c.cutoffs[0])).to(device)
        waves = waves.to(device)
        low = c.lower(waves, cutoffs)
        gain = PEAK / low.abs().amax(1, keepdim=True).clamp(min=1e-3)
        whole = self.standard.encode(c.levels(gain * waves))
        frames = torch.tensor([c.framing.frames(size) for size in sizes], device=device)
        state = band_state(whole[:, :, -c.upper :].contiguous(), frames)
        state = state.replace({"band": state.layout("band").clean(state["band"])})
        known = c.known(cutoffs)
        return state, {"low": self.standard.encode(c.levels(gain * low)), "known": known}

    def losses(self, model: nn.Module, batch: Batch, key: int) -> Loss:
        """The squared errors of the normalised target above the cut-offs, as a share of all that the network tells."""
        state, cond = batch
        missing = (~cond["known"][:, None, -self.config.model.upper :]).to(state["band"])
        objective = replace(self.objective, element_weights={"band": missing})
        return objective(model, state, cond, noise=Noise(key))  # type: ignore[arg-type]

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean over the clips."""
        return StepLoss(self.losses(model, batch, key).mean)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of up to 256 held-out clips, always with the same noise and cut-offs."""
        if not self.valid:
            return {}
        device, losses = next(model.parameters()).device, []
        waves = self.valid[:256]
        places = torch.linspace(0, 1, len(waves))
        for i in range(0, len(waves), 64):
            part = waves[i : i + 64]
            batch = self._batch(part, [0] * len(part), places[i : i + 64], device)
            with torch.no_grad():
                losses.append(self.losses(model, batch, key + i).per_sample)
        return {"loss": float(torch.cat(losses).mean())}

    def part(self, net: Preconditioned, info: Mapping[str, Any]) -> BandExtender:
        """The trained model."""
        return BandExtender(self.config.model, net, self.standard, info=info)
