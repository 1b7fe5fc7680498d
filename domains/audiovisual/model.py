"""A trained model of scenes: what it was taught, one file, and the verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.codec import Affine
from sciffusion.denoiser import Denoiser, Preconditioned
from sciffusion.described import described
from sciffusion.guidance import Autoguidance
from sciffusion.inverse import Apart, KnownFields
from sciffusion.noise import Noise, sample_seeds
from sciffusion.pixels import to_floats
from sciffusion.progress import track
from sciffusion.samplers import Sampler
from sciffusion.sampling import SamplingConfig
from sciffusion.state import State
from sciffusion.training import ModelFile, write_model

from ..audio.clip import Clip, Clips
from ..audio.mel import LogMel
from ..audio.recovery import GriffinLim
from ..audio.task import PEAK, waveform
from ..video.film import Film, Films
from .adapter import FIELDS, ModelConfig, pair
from .classify import chances, inferred
from .scene import Scenes
from .task import SceneTask, scaled

__all__ = ["SceneModel"]

SAMPLING = SamplingConfig(steps=20, shift=2.0, scale=2.0)


@final
@dataclass(frozen=True, eq=False, repr=False)
class SceneModel:
    """A trained model of scenes.

    ``denoiser`` is an ordinary denoiser of the core, of states with the fields ``film`` and ``sound``: everything there
    (samplers, guidance, inverse problems) takes it. ``affines`` are the maps of both to its units.

    What is random for scene i depends on the seed and i alone, whatever the number of scenes and the batch.
    """

    config: ModelConfig
    denoiser: Preconditioned
    affines: Mapping[str, Affine]
    sampling: SamplingConfig = SAMPLING
    info: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return described(
            self, self.denoiser, " x ".join(map(str, self.config.shape)), asked=self.attributes
        )

    @property
    def attributes(self) -> tuple[str, ...]:
        """What scenes may be asked by, beside the other half of a scene."""
        return self.config.attributes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def sample(
        self,
        n: int = 1,
        given: Mapping[str, object] | None = None,
        *,
        guidance: float | None = None,
        apart: bool = False,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int = 32,
        progress: bool = True,
    ) -> Scenes:
        """Draw new scenes: films and the sounds that belong to them.

        Args:
            n: how many.
            given: attributes by name, ``{"digit": 7, "speaker": "theo"}``: one value for all scenes, or a list with
                one for each. What is not named is drawn, every class as likely as the others; None leaves it open: film
                and sound find it by themselves.
            guidance: how much more film and sound agree, with each other and with what is given, than in the law that
                the model learnt, whose scale is 1 (None: the model's own): away from what the model says of each with
                nothing given and the other hidden, which costs two more calls a step.
            apart: film and sound each by themselves, as two models that know nothing of each other would make them;
                guidance then is away from what each says with nothing given.
            seed: of everything random.
            steps: solver steps (None: the model's own number).
            sampler: any sampler of the core, instead of the model's own.
            batch_size: scenes that are denoised together.
            progress: show a bar on a terminal.

        Raises ``ValueError`` for n or steps below 1, an attribute or value that the model does not know, or another
        number of values than scenes.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        seeds = sample_seeds(seed, n)
        cond = self._asked(given or {}, seeds)
        scale = self.sampling.scale if guidance is None else guidance
        films, mels = [], []
        for rows in track(torch.arange(n).split(batch_size), show=progress):
            told, nothing = self._told({k: v[rows] for k, v in cond.items()}, len(rows))
            strong, weak = (Apart(told) if apart else told), Apart(nothing)
            guided = strong if scale == 1 else Autoguidance(strong, weak, scale)
            like = self._blank(len(rows))
            x = self._drawn(guided, like, [seeds[i] for i in rows.tolist()], steps, sampler)
            films.append(x["film"])
            mels.append(x["sound"])
        labels = self.config.asked.labels(cond)
        return Scenes(self._films(torch.cat(films)), self._sounds(torch.cat(mels)), labels)

    def film_of(
        self,
        sounds: Sequence[Clip],
        given: Mapping[str, object] | None = None,
        *,
        guidance: float | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
    ) -> Scenes:
        """Films to given sounds, one to each, which come back as they are.

        Sounds are heard mono, at the model's rate, with a peak of 0.5, and as long as a film: what is missing is
        silence. Attributes that are not named are drawn from what the model makes of the sound (:meth:`classify`), and
        stand in the labels; None leaves one open. ``guidance`` is how much more films follow the sounds, and what is
        given, than in the conditional law (1), and how sharp the law is that attributes are drawn from. For the other
        arguments see :meth:`sample`. Raises ``ValueError`` for no sounds, for longer ones than the films, and as
        :meth:`sample` does.
        """
        known = self._known("sound", self._heard(sounds))
        cond, x = self._completed(known, "sound", given or {}, guidance, seed, steps, sampler)
        labels = self.config.asked.labels(cond)
        return Scenes(self._films(x["film"]), Clips(list(sounds)), labels)

    def sound_of(
        self,
        films: Sequence[Film],
        given: Mapping[str, object] | None = None,
        *,
        guidance: float | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
    ) -> Scenes:
        """Sounds to given films, one to each, which come back as they are.

        Attributes that are not named are drawn from what the model makes of the film (:meth:`classify`), and stand in
        the labels; None leaves one open. ``guidance`` is how much more sounds follow the films, and what is given
        (``{"speaker": "theo"}``), than in the conditional law (1), and how sharp the law is that attributes are drawn
        from. For the other arguments see :meth:`sample`. Raises ``ValueError`` for no films or films of another shape
        than the model's, and as :meth:`sample` does.
        """
        known = self._known("film", self._seen(films))
        cond, x = self._completed(known, "film", given or {}, guidance, seed, steps, sampler)
        labels = self.config.asked.labels(cond)
        return Scenes(Films(list(films)), self._sounds(x["sound"]), labels)

    def classify(
        self, halves: Sequence[Film] | Sequence[Clip], *, seed: int = 0
    ) -> dict[str, NDArray[np.float64]]:
        """What each film or sound tells of the attributes: the probabilities of the classes of each, (N, classes).

        The model is asked which class explains a half best, the other half being hidden and the other attributes open;
        classes are in the order of ``config.asked.classes``. ``seed`` is that of the noise that they are compared with.
        Raises ``ValueError`` as :meth:`sound_of` and :meth:`film_of` do.
        """
        films = [v for v in halves if isinstance(v, Film)]
        sounds = [v for v in halves if isinstance(v, Clip)]
        if len(halves) not in (len(films), len(sounds)):
            raise ValueError(f"halves must be films or sounds, got {len(films)} and {len(sounds)}")
        field = "film" if films else "sound"
        x = self._known(field, self._seen(films) if films else self._heard(sounds))
        seeds, asked = sample_seeds(seed, x.batch), self.config.asked
        cond = asked.condition({}, x.batch)
        parts = {k: chances(self.denoiser, asked, x, field, cond, k, seeds) for k in asked.names}
        return {name: p.exp().cpu().numpy() for name, p in parts.items()}

    def _known(self, field: str, x: Tensor) -> State:
        """Scenes of which one half is known, (N, ...), in its own units."""
        return self._blank(len(x)).replace({field: self._encoded(field, x)})

    def _heard(self, sounds: Sequence[Clip] | Clip) -> Tensor:
        """Log-mel spectra, (N, S, mels)."""
        mel, waves = self.config.mel, []
        if isinstance(sounds, Clip):
            raise ValueError("sounds must be several, got one clip: give [clip]")
        if not len(sounds):
            raise ValueError("sounds must hold one clip or more")
        for clip in sounds:
            wave = waveform(clip, mel)
            if len(wave) > self.config.samples:
                most = self.config.samples / mel.rate
                raise ValueError(f"sounds must last {most:.3f} s at most, got {clip.seconds:.3f} s")
            waves.append(torch.nn.functional.pad(wave, (0, self.config.samples - len(wave))))
        return LogMel(mel).encode(torch.stack(waves)).mT

    def _seen(self, films: Sequence[Film] | Film) -> Tensor:
        """Pixels, (N, T, C, H, W), 0 to 1."""
        if isinstance(films, Film):
            raise ValueError("films must be several, got one film: give [film]")
        if not len(films):
            raise ValueError("films must hold one film or more")
        t, h, w = self.config.shape
        want = (t, self.config.channels, h, w)
        for i, film in enumerate(films):
            if tuple(film.frames.shape) != want:
                raise ValueError(f"films must be {want}, got {tuple(film.frames.shape)} at {i}")
        return to_floats(Films(list(films)).stack())

    def _asked(self, given: Mapping[str, object], seeds: Sequence[int]) -> dict[str, Tensor]:
        """What is asked of scenes with these seeds, and drawn of what is not named."""
        cond = self.config.asked.condition(given, len(seeds))
        noise = Noise([sample_seeds(s, 2)[1] for s in seeds])  # not the stream of the scene's noise
        for name, classes in self.config.asked.sizes.items():
            u = noise.scalars(len(seeds))
            if name not in given:
                cond[name] = (u * classes).long()
        return cond

    def _told(self, cond: Mapping[str, Tensor], n: int) -> tuple[Denoiser, Denoiser]:
        """The denoiser of n scenes with a condition bound, and with one that says nothing."""
        asked = self.config.asked
        both = (cond, asked.condition({}, n))
        told, nothing = (
            self.denoiser.given({k: v.to(self.device) for k, v in c.items()}) for c in both
        )
        return told, nothing

    def _completed(
        self,
        known: State,
        field: str,
        given: Mapping[str, object],
        guidance: float | None,
        seed: int,
        steps: int | None,
        sampler: Sampler | None,
    ) -> tuple[dict[str, Tensor], State]:
        """States of which one field is known, and what they were asked to be."""
        scale = self.sampling.scale if guidance is None else guidance
        seeds, yes = sample_seeds(seed, known.batch), {field: torch.tensor(True)}
        own = [sample_seeds(s, 2)[1] for s in seeds]  # not the stream of the scene's noise
        cond = inferred(self.denoiser, self.config.asked, known, field, given, scale, own)
        told, nothing = self._told(cond, known.batch)
        strong: Denoiser = KnownFields(told, known, yes)
        if scale != 1:
            strong = Autoguidance(strong, KnownFields(nothing, known, {}, yes), scale)
        return cond, self._drawn(strong, known, seeds, steps, sampler)

    @torch.no_grad()
    def _drawn(
        self,
        denoiser: Denoiser,
        like: State,
        seeds: Sequence[int],
        steps: int | None,
        sampler: Sampler | None,
    ) -> State:
        noise = Noise(list(seeds))
        solver = sampler or self.sampling.sampler(steps)
        x = solver(denoiser, self.denoiser.process.prior(like, noise), noise).x
        assert isinstance(x, State)
        return x

    def _blank(self, n: int) -> State:
        c = self.config
        film = torch.zeros(n, c.shape[0], c.channels, *c.shape[1:], device=self.device)
        return pair(film, torch.zeros(n, c.spectra, c.mel.mels, device=self.device))

    def _encoded(self, field: str, x: Tensor) -> Tensor:
        return scaled(self.affines[field], x.to(self.device))

    def _films(self, x: Tensor) -> Films:
        x = self.affines["film"].inverse(x[:, None])[:, 0].clamp(0, 1).cpu()
        return Films.of((x * 255).round().to(torch.uint8), self.config.rate)

    def _sounds(self, x: Tensor) -> Clips:
        mel = self.affines["sound"].inverse(x[:, None])[:, 0].mT.cpu()
        waves = torch.cat([GriffinLim(self.config.mel)(part) for part in mel.split(32)])
        length = round(self.config.shape[0] / self.config.rate * self.config.mel.rate)
        clips = [Clip(w[None, :length], self.config.mel.rate) for w in waves]
        return Clips([clip.normalised(PEAK) for clip in clips])

    def to(self, device: str | torch.device) -> SceneModel:
        """The same model on another device; samples are the same up to rounding."""
        affines = {k: v.to(device) for k, v in self.affines.items()}
        return replace(self, denoiser=self.denoiser.to(device), affines=affines)

    def save(self, path: str | Path) -> Path:
        """Write everything to one safetensors file, weights rounded to float16."""
        meta = {"model": self.config, "sampling": self.sampling, "info": dict(self.info or {})}
        exact = {k: self.affines[k].state_dict() for k in FIELDS}
        return write_model(path, "audiovisual", meta, {"net": self.denoiser.state_dict()}, exact)

    @classmethod
    def from_file(cls, path: str | Path) -> SceneModel:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, "audiovisual", "a model of scenes")
        config = file.config(ModelConfig, "model")
        denoiser = config.denoiser()
        denoiser.load_state_dict(file.part("net"))
        affines = {k: Affine(file.part(k)["mean"], file.part(k)["std"]) for k in FIELDS}
        sampling = file.config(SamplingConfig, "sampling")
        return cls(config, denoiser.eval(), affines, sampling, file.meta["info"])

    @classmethod
    def from_training(
        cls, task: SceneTask, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None
    ) -> SceneModel:
        """The model that a training task and its (averaged) weights make."""
        denoiser = task.model()
        denoiser.load_state_dict(dict(weights))
        affines = {"film": task.pixels, "sound": task.spectra}
        return cls(task.config.model, denoiser.eval(), affines, info=info)
