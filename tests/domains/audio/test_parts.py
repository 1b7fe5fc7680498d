"""One way of training every part: by a recipe, from clips or the command line, into one file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sciffusion.cli import main
from sciffusion.config import dump
from sciffusion.domains import audio
from sciffusion.domains.audio import Clips
from sciffusion.domains.audio.api import Training
from sciffusion.domains.audio.bandwidth import BandConfig, BandExtender
from sciffusion.domains.audio.bandwidth_task import BandTask, BandTraining
from sciffusion.domains.audio.codec import AudioCodec, CodecConfig
from sciffusion.domains.audio.codec_task import CodecTask, CodecTraining
from sciffusion.domains.audio.judge_task import JudgeTask, JudgeTraining
from sciffusion.domains.audio.judges import Judge, JudgeConfig
from sciffusion.domains.audio.shelf import SHELF
from sciffusion.domains.audio.vocoder import Vocoder, VocoderConfig
from sciffusion.domains.audio.vocoder_task import VocoderTask, VocoderTraining
from sciffusion.training import TrainConfig

from .small import MEL, tones

FAST = TrainConfig(steps=2, batch_size=4, lr=1e-3, warmup=1)
PARTS: dict[str, tuple[Training, Callable[..., object], Callable[[Path], object]]] = {
    "band": (
        BandTraining(
            model=BandConfig(800, 64, 16, (150.0, 250.0), width=8, depth=1, embedding=8), train=FAST
        ),
        BandTask,
        BandExtender.from_file,
    ),
    "codec": (
        CodecTraining(model=CodecConfig(800, 32, 8, 6, width=12, depth=1, kernel=3), train=FAST),
        CodecTask,
        AudioCodec.from_file,
    ),
    "judge": (
        JudgeTraining(model=JudgeConfig(MEL, 0.3, widths=(8,), attributes=("pitch",)), train=FAST),
        JudgeTask,
        Judge.load,
    ),
    "vocoder": (
        VocoderTraining(model=VocoderConfig(MEL, width=8, depth=1), frames=4, train=FAST),
        VocoderTask,
        Vocoder.from_file,
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_is_trained_by_its_recipe_from_the_command_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _, read = PARTS[kind]
    clips = tones(8)
    quiet = Clips([clip.normalised(0.5) for clip in clips], clips.labels)
    quiet.save(tmp_path / "sounds/tone.wav")  # with a table of their labels
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(config))
    out = tmp_path / "run"
    command = ["train", "audio", "--config", str(recipe), "--out", str(out)]
    command.append(f"data.source={tmp_path / 'sounds'}")
    assert main(command) == 0
    assert f"model in {out / 'model.safetensors'}" in capsys.readouterr().out
    read(out / "model.safetensors")
    assert main([*command, "--no-resume"]) == 2  # there is a run already


def test_every_recipe_that_ships_is_read_as_what_it_trains() -> None:
    kinds = {name: audio.recipe(name).kind for name in SHELF.all("recipe")}
    assert {k: v for k, v in kinds.items() if v != "diffusion"} == {
        "codec-fsdd": "codec",
        "fsdd-band": "band",
        "judge-fsdd": "judge",
        "judge-notes": "judge",
        "vocoder-fsdd": "vocoder",
    }
    assert set(audio.models()) <= {k for k, v in kinds.items() if v in ("diffusion", "band")}


@pytest.mark.parametrize("kind", PARTS)
def test_clips_that_teach_nothing_and_views_are_refused(kind: str) -> None:
    config, task, _ = PARTS[kind]
    with pytest.raises(ValueError, match="at least one clip"):
        task(config, tones()[:0])
    with pytest.raises(ValueError, match=rf"data\.shifts must be 1 for a {kind}"):
        task(replace(config, data=replace(config.data, shifts=2)), tones())


@pytest.mark.parametrize("kind", PARTS)
def test_what_shapes_a_run_is_told_but_not_where_the_data_lie(kind: str) -> None:
    config, task, _ = PARTS[kind]
    data = replace(config.data, path=Path("here"))
    told = [task(c, tones(4)).describe() for c in (config, replace(config, data=data))]  # type: ignore[attr-defined]
    assert told[0] == told[1]
    other = replace(config, data=replace(config.data, limit=3))
    assert task(other, tones(4)).describe() != told[0]  # type: ignore[attr-defined]
    assert {"model", "data", "clips"} <= set(told[0]) and not {"train", "kind"} & set(told[0])
