"""The verbs that notebooks and scripts begin with: load, recipe, train.

>>> from sciffusion.domains import audio                                      # doctest: +SKIP
>>> model = audio.load("fsdd")                                                # doctest: +SKIP
>>> model.sample(1, {"digit": 7, "speaker": "theo"}, seed=0)[0].play()        # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sciffusion.config import load as load_config
from sciffusion.config import read_yaml
from sciffusion.training import TrainState, load_weights
from sciffusion.training import train as run_training

from .bandwidth import BAND, BandExtender
from .bandwidth_task import BandTask, BandTraining
from .clip import Clips
from .codec import AudioCodec
from .codec_task import CodecTask, CodecTraining
from .judge_task import JudgeTask, JudgeTraining
from .judges import Judge
from .model import AudioModel
from .recovery import Recovery
from .shelf import SHELF
from .task import AudioTask, AudioTraining
from .vocoder import Vocoder
from .vocoder_task import VocoderTask, VocoderTraining

__all__ = ["check_output", "load", "models", "recipe", "train"]

Training = AudioTraining | BandTraining | CodecTraining | JudgeTraining | VocoderTraining
Trained = AudioModel | BandExtender | AudioCodec | Judge | Vocoder
_PartTask = BandTask | CodecTask | JudgeTask | VocoderTask

_KINDS: dict[object, tuple[type[Training], Callable[..., AudioTask | _PartTask]]] = {
    "diffusion": (AudioTraining, AudioTask),
    "band": (BandTraining, BandTask),
    "codec": (CodecTraining, CodecTask),
    "judge": (JudgeTraining, JudgeTask),
    "vocoder": (VocoderTraining, VocoderTask),
}

FORMATS = (".wav", ".flac", ".ogg")
"""What clips are written to."""


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files."""
    return SHELF.all("model")


def load(name: str | Path, recovery: Recovery | None = None) -> AudioModel | BandExtender:
    """A trained model: the name of one that ships, or a file that ``save`` wrote.

    Most are models of clips, which ``sample`` new ones; a :class:`.BandExtender` adds to a given clip the frequencies
    that it lacks. ``recovery`` makes waveforms of the spectrograms of a model of clips (None: Griffin-Lim).

    Raises:
        FileNotFoundError: neither; the message lists the names.
        ValueError: a file of something else, and a recovery made for other spectrograms.
    """
    path = SHELF.find("model", name)
    if load_weights(path)[1].get("kind") != BAND:
        return AudioModel.from_file(path, recovery)
    if recovery is not None:
        raise ValueError(f"recovery: {path.stem} makes no mel spectrograms; leave it out")
    return BandExtender.from_file(path)


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> Training:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Its key ``kind`` says what is trained: ``diffusion`` (the default), a model of clips; a ``band``, what clips lack
    above a cut-off; a ``codec``, a ``judge`` or a ``vocoder``.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    path = SHELF.find("recipe", name)
    kind = read_yaml(path).get("kind", "diffusion")
    # an unknown kind is told as the mistake that it is by the reader of the default one
    return load_config(_KINDS.get(kind, _KINDS["diffusion"])[0], path, overrides)


def check_output(path: Path) -> None:
    """Raise ``ValueError`` unless clips can be written to a file of this name."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--out {path}: end it with one of {', '.join(FORMATS)}")


def train(
    config: Training,
    directory: str | Path,
    clips: Clips | None = None,
    valid: Clips | None = None,
    *,
    resume: bool = True,
) -> tuple[Trained, TrainState]:
    """Train in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    What is trained, the type of ``config`` says: a model of clips, or another part (:func:`recipe`). The data are those
    that it names, or ``clips`` and ``valid``, clips of your own. The same call runs in one process or in many
    (``torchrun``). Returns what was trained, with averaged weights, and the state of the run; ``state.stopped`` says
    why it ended early, if it did.
    """
    directory = Path(directory)
    # what a judge gets right of held-out clips is always stored with it
    check = bool(config.train.validate_every) or isinstance(config, JudgeTraining)
    clips, valid = config.data.sets(clips, valid, check=check)
    task = _KINDS[config.kind][1](config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    weights = state.weights()
    info = {"steps": state.step, "clips": len(clips), "recipe": task.describe()}
    trained: Trained
    if isinstance(task, AudioTask):
        trained = AudioModel.from_training(task, weights, info)
    else:
        trained = task.finished(weights, info)
    if state.first:
        trained.save(directory / "model.safetensors")
    return trained, state
