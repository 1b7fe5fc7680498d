"""Laws of the codec: lengths, nothing from neighbours or padding, standardised latents; and of models of latents."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciffusion.domains.audio import AudioModel, AudioTask, Clips, DataConfig, train
from sciffusion.domains.audio.codec import AudioCodec, CodecConfig
from sciffusion.domains.audio.codec_task import CodecLoss, CodecTask, CodecTraining, train_codec
from sciffusion.noise import Noise
from sciffusion.training import TrainConfig, export

from .small import settings, tones

CONFIG = CodecConfig(rate=800, channels=6, strides=(4, 2), widths=(6, 8, 12), dilations=(1, 2))
SETTINGS = CodecTraining(
    CONFIG,
    DataConfig(),
    CodecLoss(resolutions=(16, 32), bins=8),
    frames=10,
    train=TrainConfig(steps=25, batch_size=8, lr=5e-3, warmup=2, log_every=5, validate_every=25),
)
CPU = torch.device("cpu")


def waves(clips: Clips) -> list[Tensor]:
    return [clip.samples[0] for clip in clips]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[AudioCodec, Path]:
    """A codec that was trained for a moment, and its file."""
    folder = tmp_path_factory.mktemp("codec")
    codec, _ = train_codec(SETTINGS, folder, tones(), tones(4, 1))
    return codec, folder / "codec.safetensors"


@pytest.fixture(scope="module")
def codec(run: tuple[AudioCodec, Path]) -> AudioCodec:
    return run[0]


@pytest.mark.parametrize("n", [1, 8, 9, 150])
def test_there_is_a_vector_for_every_hop_and_a_hop_for_every_vector(
    codec: AudioCodec, n: int
) -> None:
    z = codec.latents(torch.randn(2, n))
    assert z.shape == (2, 6, -(-n // 8)) == (2, 6, CONFIG.frames(n))
    made = codec.waves(z)
    assert made.shape == (2, 8 * z.shape[2])
    assert bool(made.isfinite().all())


def test_a_clip_in_a_padded_batch_is_what_it_is_alone(codec: AudioCodec) -> None:
    found = [codec.latents(w[None])[0] for w in waves(tones(4))]
    sizes = torch.tensor([z.shape[1] for z in found])
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    batch = torch.full((4, 6, mask.shape[1]), 7.0)  # what lies beyond must not matter
    for row, z in zip(batch, found, strict=True):
        row[:, : z.shape[1]] = z
    together = codec.waves(batch, mask)
    for row, z in zip(together, found, strict=True):
        alone = codec.waves(z[None])[0]
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-4, atol=1e-5)
        assert not bool(row[len(alone) :].any())


def test_latents_of_the_training_clips_have_zero_mean_and_unit_variance(codec: AudioCodec) -> None:
    noise, total = Noise(3), []
    for wave in waves(tones()):
        x = nn.functional.pad(wave, (0, -len(wave) % 8))[None, None] / wave.abs().max() / 2
        total.append(codec.encode(x, noise).detach()[0])
    z = torch.cat(total, 1)
    assert float(z.mean(1).abs().max()) < 0.1
    assert float((z.std(1) - 1).abs().max()) < 0.1


def test_training_lowers_the_loss_and_its_gradient_is_finite_on_silence(codec: AudioCodec) -> None:
    task = CodecTask(SETTINGS, tones())
    batch = task.batch(np.arange(16), 1, CPU)
    fresh = task.model()
    with torch.no_grad():
        before, after = (task.losses(m, batch, None).mean() for m in (fresh, codec))
    assert after < 0.8 * before
    task.losses(fresh, torch.zeros(2, 80), 0).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in fresh.parameters())


def test_pieces_and_their_noise_depend_on_the_key_alone(codec: AudioCodec) -> None:
    task = CodecTask(SETTINGS, tones())
    one, two, other = (task.batch(np.arange(8), key, CPU) for key in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    with torch.no_grad():
        losses = [task.losses(codec, one, key) for key in (5, 5, 6)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_a_codec_is_the_same_after_saving(run: tuple[AudioCodec, Path], tmp_path: Path) -> None:
    codec, path = run
    again = AudioCodec.from_file(path)
    assert again.fingerprint == codec.fingerprint
    wave = torch.stack(waves(tones(4))[:1])
    torch.testing.assert_close(again.latents(wave), codec.latents(wave), rtol=0.02, atol=0.02)
    with torch.no_grad():
        again.begin.weight.add_(0.01)
    assert again.fingerprint != codec.fingerprint
    export({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "audio"})
    with pytest.raises(ValueError, match="holds 'audio', not a codec"):
        AudioCodec.from_file(tmp_path / "other.safetensors")


def test_a_model_of_latents_trains_samples_and_keeps_its_codec(
    run: tuple[AudioCodec, Path], tmp_path: Path
) -> None:
    codec, path = run
    config = replace(settings(steps=4), codec=path)
    model, _ = train(config, tmp_path, tones())
    clips = model.sample(3, {"pitch": "low"}, seconds=[0.1, 0.2, 0.15], steps=2)
    assert clips.lengths.tolist() == [80, 160, 120]
    state = model.encode(tones(3))
    assert state["mel"].shape[2] == 6
    again = AudioModel.from_file(tmp_path / "model.safetensors")
    assert again.codec is not None
    assert again.codec.fingerprint == codec.fingerprint
    same = again.sample(1, seconds=0.1, seed=2, steps=2)[0].samples
    torch.testing.assert_close(
        same, model.sample(1, seconds=0.1, seed=2, steps=2)[0].samples, rtol=0.05, atol=0.02
    )


def test_another_codec_is_refused_and_so_are_verbs_of_spectrograms(codec: AudioCodec) -> None:
    task = AudioTask(settings(), tones(), codec=codec)
    model = AudioModel.from_training(task, task.model().state_dict())
    with pytest.raises(ValueError, match="trained on latents of the codec .* noise"):
        replace(model, codec=AudioCodec(CONFIG))
    with pytest.raises(ValueError, match="but codec is none"):
        replace(model, codec=None)
    plain = AudioTask(settings(), tones())
    with pytest.raises(ValueError, match="trained on spectrograms, but codec is"):
        replace(AudioModel.from_training(plain, plain.model().state_dict()), codec=codec)
    clip = tones(1)[0]
    for verb in (lambda: model.inpaint(clip, (0.05, 0.08)), lambda: model.denoise(clip, snr=9.0)):
        with pytest.raises(ValueError, match="needs a model of log-mel spectrograms, .* latents"):
            verb()


def test_settings_that_make_no_codec_are_refused() -> None:
    with pytest.raises(ValueError, match="strides must be even"):
        CodecConfig(strides=(3, 4), widths=(1, 1, 1))
    with pytest.raises(ValueError, match="widths must be one more than the 3 strides"):
        CodecConfig(widths=(16, 32))
    with pytest.raises(ValueError, match="kernel odd"):
        CodecConfig(kernel=4)
    with pytest.raises(ValueError, match="pieces of at least 512 samples"):
        CodecTraining(frames=4)
    with pytest.raises(ValueError, match=r"data\.shifts must be 1"):
        CodecTraining(data=DataConfig(shifts=2))
    with pytest.raises(ValueError, match="N a multiple of 8 samples"):
        AudioCodec(CONFIG).posterior(torch.zeros(1, 1, 12))
    with pytest.raises(ValueError, match="at least one sample"):
        AudioCodec(CONFIG).latents(torch.zeros(1, 0))
    with pytest.raises(ValueError, match="at least one clip"):
        CodecTask(SETTINGS, Clips([]))
