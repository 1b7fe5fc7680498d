"""Training a model of clips: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.noise import Noise, sample_seeds
from sciffusion.objective import EDM, LogNormal, Objective
from sciffusion.objective.condition import drop_entries
from sciffusion.sampling import SamplingConfig
from sciffusion.state import State
from sciffusion.text import TextEncoder, wordllama
from sciffusion.training import Order, SizeBuckets, StepLoss, Task, TrainConfig

from .adapter import SAMPLING, ModelConfig, mel_state
from .captions import captions
from .catalogue import Catalogue
from .clip import Clip, Clips
from .codec import AudioCodec, CodecConfig
from .datasets import split
from .frontend import LatentConfig, SpectrumConfig, analysis
from .mel import MelConfig
from .reference import Others, ReferenceConfig, ReferenceEncoder
from .standard import Standard

__all__ = ["AudioTask", "AudioTraining", "DataConfig", "ObjectiveConfig", "batches", "waveform"]


PEAK = 0.5
"""The largest sample of every clip that a model sees or makes."""


def waveform(clip: Clip, config: MelConfig | CodecConfig | SpectrumConfig) -> Tensor:
    """A clip as models see it, (N,): mono, at the rate of what they see, its peak at 0.5."""
    return clip.mono().resample(config.rate).normalised(PEAK).samples[0]


def at_speed(clip: Clip, factor: float) -> Clip:
    """A clip played ``factor`` times as fast, as a tape would be: shorter, and all its frequencies higher."""
    return Clip(clip.samples, max(1, round(clip.rate * factor))).resample(clip.rate)


@final
@dataclass(frozen=True)
class DataConfig:
    """Which clips to learn from.

    ``source`` is a part of a data set that the project knows (``fsdd:train``), or a folder of sounds with labels in a
    table or, after the pattern ``names``, in the files' names (:meth:`Clips.from_folder`); ``valid`` is another one, to
    measure the loss on, and ``path`` a local copy of the data set. Clips above ``max_seconds`` are left out. ``shifts``
    spectrograms are made of every clip, each with its frames a fraction of a hop later; training draws one of them.
    ``captions`` says which texts a model of texts learns from: phrasings of the labels of spoken digits, or of notes.

    ``without`` leaves out clips by their labels (``speaker=theo``). ``reference`` names the label that a clip's
    reference shares with it: another clip of the same speaker, or instrument. All is learnt at each of the ``speeds``,
    as a tape would play it, which makes of every voice several; labels must be true at all of them.

    Raises ``ValueError`` for a speed that is not positive, and for something left out that names no label.
    """

    source: str = "fsdd:train"
    valid: str | None = None
    path: Path | None = None
    max_seconds: float | None = None
    limit: int | None = None
    shifts: int = 1
    captions: Literal["digits", "notes"] | None = None
    names: str | None = None
    without: tuple[str, ...] = ()
    reference: str | None = None
    speeds: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.speeds or min(self.speeds) <= 0:
            raise ValueError(f"speeds must hold positive numbers, got {self.speeds}")
        for rule in self.without:
            if "=" not in rule:
                raise ValueError(f"without must hold rules such as speaker=theo, got {rule!r}")

    def load(self, source: str | None = None) -> Clips:
        """The clips of a part of the data (None: those to learn from)."""
        source = source or self.source
        folder = Path(source).is_dir()
        clips = Clips.from_folder(source, self.names) if folder else split(source, self.path)
        keep = [
            i
            for i, clip in enumerate(clips)
            if self.max_seconds is None or clip.seconds <= self.max_seconds
        ]
        left = self._left(clips)
        return clips[np.array([i for i in keep if left[i]][: self.limit], dtype=np.int64)]

    def sets(
        self, clips: Clips | None, valid: Clips | None, *, check: bool
    ) -> tuple[Clips, Clips | None]:
        """What to learn from and to validate on: clips of your own, or else those that are named here.

        Named ones to validate on are read if ``check`` says that they are looked at.
        """
        if clips is not None:
            return clips, valid
        return self.load(), self.load(self.valid) if self.valid is not None and check else valid

    def voices(self, clips: Clips) -> NDArray[np.str_]:
        """The label that clips share with their references. Raises ``ValueError`` if the clips lack it."""
        if self.reference is None or self.reference not in clips.labels:
            known = ", ".join(clips.labels) or "none"
            raise ValueError(
                f"data.reference names {self.reference!r}; labels of the clips: {known}"
            )
        return np.asarray(clips.labels[self.reference]).astype(str)

    def _left(self, clips: Clips) -> NDArray[np.bool_]:
        """Which clips no rule leaves out."""
        left = np.ones(len(clips), dtype=bool)
        for rule in self.without:
            name, _, value = rule.partition("=")
            if name not in clips.labels:
                known = ", ".join(clips.labels) or "none"
                raise ValueError(f"without: {rule}: labels of the clips: {known}")
            left &= np.asarray(clips.labels[name]).astype(str) != value
        return left


@final
@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and at which noise levels.

    The logarithm of noise over signal is normal with ``time_mean`` and ``time_std``: on rectified flow times are then
    logit-normal. ``drop`` is the share of the clips that lose their whole condition, ``drop_each`` the share that lose
    each attribute by itself, so that a model can be asked by some of them only.
    """

    time_mean: float = 0.0
    time_std: float = 1.0
    drop: float = 0.1
    drop_each: float = 0.05


@final
@dataclass(frozen=True)
class AudioTraining:
    """All settings of a training run: what a configuration file holds.

    ``codec`` is the file of a codec whose latents the model is to learn, instead of spectrograms. ``reference`` says
    what a model of references hears of them. ``sampling`` is stored with the model and shapes nothing in training.
    """

    kind: Literal["diffusion"] = "diffusion"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    sampling: SamplingConfig = SAMPLING
    train: TrainConfig = TrainConfig()
    codec: Path | None = None
    reference: ReferenceConfig = ReferenceConfig()


Batch = tuple[State, dict[str, Tensor]]


@final
class AudioTask(Task[Batch]):
    """Learning to generate the clips of a data set. Their spectrograms or latents are made once and kept.

    Latents are those of ``codec`` (None: of the file that the configuration names, if any). A model of texts reads them
    through ``encoder`` (None: the vectors of :func:`~sciffusion.text.wordllama`). A model of references hears them
    through ``listener``, which is found in the clips.

    Raises ``ValueError`` for attributes that are no labels, for a model of texts without captions or of tokens of
    another width than the encoder's, and for a model of references without a label that tells which clips are alike.
    """

    def __init__(
        self,
        config: AudioTraining,
        clips: Clips,
        valid: Clips | None = None,
        encoder: TextEncoder | None = None,
        codec: AudioCodec | None = None,
    ) -> None:
        if bool(config.model.text) != (config.data.captions is not None):
            raise ValueError(
                f"model.text is {config.model.text}, data.captions is {config.data.captions}: "
                "a model of texts needs both, any other neither"
            )
        self.encoder = (encoder or wordllama()) if config.model.text else None
        if self.encoder is not None and self.encoder.width != config.model.text:
            raise ValueError(
                f"model.text is {config.model.text}, but tokens of {self.encoder.name} have width "
                f"{self.encoder.width}"
            )
        if bool(config.model.reference) != (config.data.reference is not None):
            raise ValueError(
                f"model.reference is {config.model.reference}, data.reference is {config.data.reference}: "
                "a model of references needs both, any other neither"
            )
        classes = config.model.asked.found(clips.labels).classes
        if codec is None and config.codec is not None:
            codec = AudioCodec.from_file(config.codec)
        self.codec = codec
        latent = None if codec is None else LatentConfig(codec.config, codec.fingerprint)
        self.config = replace(config, model=replace(config.model, classes=classes, latent=latent))
        model, objective = self.config.model, self.config.objective
        analyse, hop, shifts = analysis(model, codec), model.frontend.hop, config.data.shifts
        played = [[at_speed(clip, f) for clip in clips] for f in config.data.speeds]
        waves = [waveform(clip, model.frontend) for clip in clips]
        views = [
            [_frames(analyse, waveform(clip, model.frontend), i * hop // shifts) for clip in part]
            for part in played
            for i in range(shifts)
        ]
        self.standard = Standard.fit([f for view in views[::shifts] for f in view])
        # those of a speed beside each other
        self.frames = [[self.standard.encode(f) for f in view] for view in views]
        self.listener, self.others = self._listen(played, clips)
        self.sizes = np.array([len(f) for f in self.frames[0]])
        self.rows = self.config.model.asked.rows(clips.labels)
        self.labels = clips.labels
        self.catalogue = Catalogue(torch.tensor([len(w) for w in waves]), self.rows)
        self.valid: tuple[list[Tensor], Clips, Others | None] | None = None
        if valid is not None:
            heard = [waveform(clip, model.frontend) for clip in valid]
            frames = [self.standard.encode(_frames(analyse, w, 0)) for w in heard]
            others = None
            if self.listener is not None:
                others = Others([self.listener(valid.clips)], config.data.voices(valid))
            self.valid = frames, valid, others
        self.objective = Objective(
            model.process(),
            weight=EDM(),
            times=LogNormal(objective.time_mean, objective.time_std),
            null=model.null() or None,
            drop=objective.drop if model.null() else 0.0,
        )

    def _listen(
        self, played: Sequence[Sequence[Clip]], clips: Clips
    ) -> tuple[ReferenceEncoder | None, Others | None]:
        """What hears references, and those of the clips that are played at several speeds."""
        if self.config.data.reference is None:
            return None, None
        voices, config = self.config.data.voices(clips), self.config.reference
        heard = [config.heard(part) for part in played]
        apart = np.concatenate([np.char.add(voices, f" {i}") for i in range(len(played))])
        listener = ReferenceEncoder.fit(
            config, torch.cat(heard), apart, self.config.model.reference
        )
        return listener, Others([listener.encode(x) for x in heard], voices)

    def model(self) -> Preconditioned:
        """The untrained denoiser."""
        return self.config.model.denoiser()

    def order(self, config: TrainConfig) -> Order:
        """Batches of clips of like length."""
        return batches(self.sizes, config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The clips of these rows, with attributes dropped here and there."""
        # a stream apart from that of the loss: views and drops must not tell the noise level
        numbers, n = Noise(sample_seeds(key, 1)[0]), len(indices)
        data = self.config.data
        shifts = (numbers.scalars(n) * data.shifts).long()
        # one speed for all, so that clips of a batch stay of like length
        speed = int(float(numbers.scalars(1)) * len(data.speeds))
        views = (shifts + speed * data.shifts).tolist()
        frames = [self.frames[v][i] for v, i in zip(views, indices.tolist(), strict=True)]
        each, rows = self.config.objective.drop_each, torch.from_numpy(indices.copy())
        dropped = {name: numbers.scalars(n) < each for name in self.rows}
        cond = {name: row[rows] for name, row in self.rows.items()}
        if self.others is not None:
            dropped["reference"] = numbers.scalars(n) < each
            cond["reference"] = self.others.draw(indices, speed, numbers)
        cond = drop_entries(cond, self.objective.null, dropped)
        cond = {k: v.to(device) for k, v in cond.items()}
        cond |= self._texts(self.labels, indices, key, device)
        return mel_state([f.to(device) for f in frames]), cond

    def _texts(
        self,
        labels: Mapping[str, NDArray[Any]],
        indices: NDArray[np.int64],
        key: int,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """The tokens of a caption for every clip, none for a model without texts."""
        kind = self.config.data.captions
        if self.encoder is None or kind is None:
            return {}
        rng, source = np.random.default_rng(key), captions(kind)
        texts = [source.draw({k: v[i] for k, v in labels.items()}, rng) for i in indices.tolist()]
        return {k: v.to(device) for k, v in self.encoder.condition(texts).items()}

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean squared error of the normalised target inside the clips."""
        loss = self.objective(model, batch[0], batch[1], noise=Noise(key))  # type: ignore[arg-type]
        return StepLoss(loss.mean)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of up to 512 held-out clips, with their conditions, always with the same noise."""
        if self.valid is None:
            return {}
        device, (frames, clips, others) = next(model.parameters()).device, self.valid
        rows = self.config.model.asked.rows(clips.labels)
        order = batches(np.array([len(f) for f in frames]), 64, 0)
        objective = replace(self.objective, drop=0.0)
        total, n = 0.0, 0
        for step in range(min(8, order.steps_per_epoch)):
            indices = order.batch(0, step)
            state = mel_state([frames[i].to(device) for i in indices.tolist()])
            cond = {k: v[torch.from_numpy(indices.copy())].to(device) for k, v in rows.items()}
            cond |= self._texts(clips.labels, indices, key + step, device)
            if others is not None:
                cond["reference"] = others.draw(indices, 0, Noise(key + step)).to(device)
            with torch.no_grad():
                loss = objective(model, state, cond, noise=Noise(key + step))  # type: ignore[arg-type]
            total, n = total + float(loss.per_sample.sum()), n + len(indices)
        return {"loss": total / n}

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "objective": c.objective}
        if self.listener is not None:
            parts["reference"] = c.reference
        return {k: to_dict(v) for k, v in parts.items()} | {"clips": len(self.sizes)}


def _frames(analyse: Callable[[Tensor], Tensor], wave: Tensor, delay: int) -> Tensor:
    """The frames of a waveform that begins ``delay`` samples later, (T, width)."""
    wave = nn.functional.pad(wave, (delay, 0))
    return analyse(wave[None])[0].mT.contiguous()


def batches(sizes: NDArray[np.int64], batch_size: int, seed: int) -> SizeBuckets:
    """Batches of clips of like length: it may differ by an eighth of the median within one."""
    spread = int(np.median(sizes)) // 8
    enough = min(2 * batch_size, len(sizes))
    return SizeBuckets(sizes, batch_size, seed=seed, max_padding=spread, min_bucket=enough)
