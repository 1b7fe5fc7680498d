"""A trained model of clips: what it was measured and taught, one file, and what every verb stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Preconditioned
from sciffusion.described import described
from sciffusion.layout import Masked
from sciffusion.noise import Noise, sample_seeds
from sciffusion.progress import track
from sciffusion.samplers import Sampler
from sciffusion.sampling import SamplingConfig
from sciffusion.state import State
from sciffusion.training import ModelFile, write_model

from . import asking, denoising, editing, likelihood, repair, rewards, separation
from .adapter import SAMPLING, ModelConfig, mel_state
from .catalogue import Catalogue
from .clip import Clip, Clips
from .codec import AudioCodec
from .frontend import Synthesis, analysis, synthesis
from .functionals import Guidance, Towards
from .recovery import Recovery
from .reference import ReferenceConfig, ReferenceEncoder
from .standard import Standard
from .task import PEAK, AudioTask, waveform

__all__ = ["AudioModel"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class AudioModel:
    """A trained model of clips.

    ``denoiser`` is an ordinary denoiser of the core, of states with the field ``mel``: everything there (samplers,
    guidance, inverse problems, likelihoods) takes it. ``standard`` says in which units, ``catalogue`` which clips it
    was trained on, ``recovery`` makes waveforms of spectrograms (None: Griffin-Lim). A model of latents has
    its ``codec`` instead. The ``listener`` of a model of references hears the clips whose voice it is to have.

    Raises ``ValueError`` for a recovery of other spectrograms than the model's, for another codec than that of its
    latents, and for a listener that makes other vectors than the network takes.
    """

    config: ModelConfig
    denoiser: Preconditioned
    standard: Standard
    catalogue: Catalogue
    sampling: SamplingConfig = SAMPLING
    recovery: Recovery | None = None
    info: Mapping[str, Any] | None = None
    codec: AudioCodec | None = None
    listener: ReferenceEncoder | None = None

    inpaint = repair.inpaint
    extend = repair.extend
    super_resolve = repair.super_resolve
    denoise = denoising.denoise
    separate = separation.separate
    edit = editing.edit
    interpolate = editing.interpolate
    log_likelihood = likelihood.log_likelihood
    sample_by_reward = rewards.sample_by_reward

    def __post_init__(self) -> None:
        latent = self.config.latent
        wanted = None if latent is None else latent.fingerprint
        got = None if self.codec is None else self.codec.fingerprint
        if wanted != got:
            raise ValueError(
                f"the model was trained on {f'latents of the codec {wanted}' if wanted else 'spectrograms'}, but codec "
                f"is {got or 'none'}; decoded by another codec its samples would be noise"
            )
        if self.recovery is not None:
            self.config.spectrogram.require_same(self.recovery.config, "recovery")
        if self.listener is not None and self.listener.size != self.config.reference:
            raise ValueError(
                f"listener makes vectors of {self.listener.size} numbers, but the network takes {self.config.reference}"
            )

    def __repr__(self) -> str:
        return described(self, self.denoiser, f"{self.config.mel.rate} Hz", asked=self.attributes)

    @property
    def attributes(self) -> tuple[str, ...]:
        """What clips may be asked by: labels, and texts or references if it was trained with them."""
        told = {"text": self.config.text, "reference": self.config.reference}
        return (*self.config.attributes, *(name for name, width in told.items() if width))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def sample(
        self,
        n: int = 1,
        given: Mapping[str, object] | None = None,
        *,
        seconds: float | Sequence[float] | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> Clips:
        """Draw new clips, each with a peak of 0.5, unless :class:`.Towards` says how loud they are.

        Clip i depends on ``seed``, i and what is asked of it alone (up to rounding): not on ``n`` nor ``batch_size``.

        Args:
            n: how many.
            given: attributes by name, ``{"digit": 7, "speaker": ["theo", "lucas"]}``: one value for all clips, or one
                for each. What is not named is drawn as in the training data; None leaves an attribute open. A model of
                texts takes ``{"text": "a low voice says seven"}``, one of references a clip whose voice it is to have,
                or its file, ``{"digit": 3, "reference": clip}``; tensors, too, see :mod:`.asking`.
            seconds: the duration of all clips, or of each; None: drawn as in the training data of the same attributes.
            guidance: a scale (1: none), a ``Guide``, or any guidance of the core; None: the model's own.
            seed: of everything random.
            steps: solver steps for each clip (None: the model's own number); a guided step calls the network twice.
            sampler: any sampler of the core, instead of the model's own.
            batch_size: clips that are denoised together.
            progress: show a bar on a terminal.

        Raises:
            ValueError: n below 1, an attribute or value that the model does not know, another number of values than
                clips, durations that are longer than all training clips or not positive.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        seeds = sample_seeds(seed, n)
        lengths, cond = self.asked(given or {}, seconds, Noise(seeds).scalars(n))
        sampler = sampler or self.sampling.sampler(steps)
        frames = np.array([self._count(k) for k in lengths])
        # clips of like length share a batch, so that little is padded
        order = np.argsort(frames, kind="stable")
        pieces = [order[i : i + batch_size] for i in range(0, n, batch_size)]
        parts: list[Clip] = []
        for rows in track(pieces, show=progress):
            blank = [torch.zeros(t, self.config.width, device=self.device) for t in frames[rows]]
            noise = Noise([seeds[i] for i in rows])
            noise.scalars(
                len(rows)
            )  # the number that chose the length: no other may share its bits
            at = torch.from_numpy(rows).to(self.device)
            denoiser = self.guided({k: v[at] for k, v in cond.items()}, guidance)
            start = self.denoiser.process.prior(mel_state(blank), noise)
            x = sampler(denoiser, start, noise).x
            assert isinstance(x, State)
            clips: Sequence[Clip] = self.decode(x, [lengths[i] for i in rows])
            # as all that it was trained on
            if not isinstance(guidance, Towards):
                clips = [c.normalised(PEAK) for c in clips]
            parts += clips
        back = np.argsort(order, kind="stable")
        return Clips([parts[i] for i in back], self.labels(cond))

    def condition(self, given: Mapping[str, object], n: int) -> Condition:
        """What is asked of n clips as the network's condition; what is not named stays open.

        For the arguments and errors see :meth:`sample`.
        """
        config = self.config
        for name in given.keys() & {"text", "text_mask", "reference"}:
            if not (config.reference if name == "reference" else config.text):
                raise ValueError(f"given holds {name}, but this model was trained without")
        also = [k for k in self.attributes if k not in config.attributes]
        told = {k: v for k, v in given.items() if k != "text_mask"}
        cond = config.asked.condition(told, n, also)
        if config.text:
            cond |= asking.read(given.get("text"), given.get("text_mask"), n, config.text)
        if config.reference:
            reference = given.get("reference")
            cond["reference"] = asking.heard(reference, n, config.reference, self.listener)
        return {k: v.to(self.device) for k, v in cond.items()}

    def guided(self, cond: Condition, guidance: Guidance | None = None) -> Denoiser:
        """The denoiser with a condition bound, guided (None: as the model is sampled)."""
        return self.around(self.denoiser, cond, guidance)

    def around(
        self, denoiser: Denoiser, cond: Condition, guidance: Guidance | None = None
    ) -> Denoiser:
        """The same of another denoiser that wraps the model's, such as a posterior."""
        if isinstance(guidance, Towards):
            return guidance.around(self, denoiser, cond)
        empty = self.config.null()
        null = {k: torch.full_like(v, empty[k]) for k, v in cond.items()}
        return self.sampling.guided(denoiser, cond, null, guidance)

    def encode(self, clips: Sequence[Clip]) -> State:
        """Clips as the model sees them: a state of the field ``mel`` (B, T, width), padded to the longest.

        They are made mono, brought to the model's rate, and to a peak of 0.5.
        """
        return mel_state([self.frames(waveform(clip, self.config.frontend)) for clip in clips])

    def frames(self, wave: Tensor) -> Tensor:
        """A waveform (N,) at the model's rate as it sees it, (T, width), in its units."""
        seen = analysis(self.config, self.codec)(wave[None].to(self.device))[0].mT
        return self.standard.encode(seen)

    @property
    def synthesis(self) -> Synthesis:
        """The way from frames, in units of the data, to waveforms."""
        return synthesis(self.config, self.codec, self.recovery)

    @torch.no_grad()
    def decode(self, state: State, lengths: Sequence[int] | None = None) -> Clips:
        """Waveforms of a state, of these numbers of samples (None: as many as its frames hold)."""
        x, layout = state["mel"], state.layout("mel")
        mask = layout.mask if isinstance(layout, Masked) else x.new_ones(x.shape[:2]).bool()
        recover = self.synthesis.waves
        waves = recover(self.standard.decode(x).mT.contiguous(), mask).cpu()
        sizes = (mask.sum(1) * self.config.frontend.hop).tolist()
        rate, ends = self.config.frontend.rate, sizes if lengths is None else lengths
        return Clips([Clip(w[None, :end], rate) for w, end in zip(waves, ends, strict=True)])

    def asked(
        self, given: Mapping[str, object], seconds: float | Sequence[float] | None, u: Tensor
    ) -> tuple[list[int], Condition]:
        """Lengths in samples, and the condition, with what was not asked for drawn from the catalogue."""
        n = len(u)
        cond = dict(self.condition(given, n))
        named = {k: cond[k] for k in self.config.attributes if k in given}
        drawn, classes = self.catalogue.draw(u, named)
        cond |= {k: v.to(self.device) for k, v in classes.items()}
        if seconds is None:
            return drawn.tolist(), cond
        rate, longest = self.config.frontend.rate, int(self.catalogue.samples.max())
        wanted = [seconds] * n if isinstance(seconds, (int, float)) else list(seconds)
        if len(wanted) != n:
            raise ValueError(f"seconds has {len(wanted)} values for {n} clips")
        for s in wanted:
            if not 0 < round(s * rate) <= longest:
                raise ValueError(
                    f"seconds must lie above 0 and up to {longest / rate:.2f}, the longest clip of the training data, "
                    f"got {s}; extend makes longer ones"
                )
        return [round(s * rate) for s in wanted], cond

    def _count(self, samples: int) -> int:
        return self.config.frontend.frames(samples)

    def labels(self, cond: Condition) -> dict[str, np.ndarray[Any, Any]]:
        """The values of the attributes, empty where left open."""
        return self.config.asked.labels(cond)

    def to(self, device: str | torch.device) -> AudioModel:
        """The same model on another device; samples are the same up to rounding."""
        codec = None if self.codec is None else self.codec.to(device)
        return replace(self, denoiser=self.denoiser.to(device), codec=codec)  # the listener stays

    def save(self, path: str | Path) -> Path:
        """Write everything but the recovery to one safetensors file, weights rounded to float16."""
        meta = {"model": self.config, "sampling": self.sampling, "info": dict(self.info or {})}
        parts = {"net": self.denoiser.state_dict()}
        standard = {k: getattr(self.standard, k) for k in ("mean", "std")}
        exact = {"standard": standard, "catalogue": self.catalogue.tensors()}
        if self.codec is not None:
            parts["codec"], exact["codec"] = self.codec.tensors()
        if self.listener is not None:
            meta["reference"] = self.listener.config
            exact["reference"] = self.listener.tensors()
        return write_model(path, "audio", meta, parts, exact)

    @classmethod
    def from_file(cls, path: str | Path, recovery: Recovery | None = None) -> AudioModel:
        """Read what :meth:`save` wrote.

        Raises ``ValueError`` for a file of another kind, and for a recovery of other spectrograms.
        """
        file = ModelFile.read(path, "audio", "a model of clips")
        config = file.config(ModelConfig, "model")
        denoiser = config.denoiser()
        denoiser.load_state_dict(file.part("net"))
        codec = None if config.latent is None else AudioCodec(config.latent.codec).eval()
        if codec is not None:
            codec.load_state_dict(file.part("codec"))
        listener = None
        if "reference" in file.meta:
            heard = file.config(ReferenceConfig, "reference")
            listener = ReferenceEncoder.restored(heard, file.part("reference"))
        return cls(
            config,
            denoiser.eval(),
            Standard(**file.part("standard")),
            Catalogue.restored(file.part("catalogue")),
            file.config(SamplingConfig, "sampling"),
            recovery,
            file.meta["info"],
            codec,
            listener,
        )

    @classmethod
    def from_training(
        cls, task: AudioTask, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None
    ) -> AudioModel:
        """The model that a training task and its (averaged) weights make."""
        denoiser = task.model()
        denoiser.load_state_dict(dict(weights))
        return cls(
            task.config.model,
            denoiser.eval(),
            task.standard,
            task.catalogue,
            task.config.sampling,
            info=info,
            codec=task.codec,
            listener=task.listener,
        )
