"""Laws of the vocoder: lengths, nothing from neighbours or padding, and that it learns."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio import GriffinLim, LogMel, train
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.pieces import magnitude_error
from sciffusion.domains.audio.recovery import magnitudes
from sciffusion.domains.audio.vocoder import Vocoder, VocoderConfig, VocoderNet
from sciffusion.domains.audio.vocoder_task import VocoderTask, VocoderTraining
from sciffusion.training import TrainConfig, export

from .small import MEL, tones

FSDD = Path(__file__).parents[4] / "shared/data/audio/fsdd/fsdd.npz"
CONFIG = VocoderConfig(MEL, width=24, depth=2)
SETTINGS = VocoderTraining(
    model=CONFIG,
    frames=8,
    train=TrainConfig(steps=6, batch_size=4, lr=2e-3, warmup=2, log_every=2, validate_every=6),
)


def shaken(seed: int = 0) -> Vocoder:
    """A vocoder with random weights, no output of which is constant."""
    net = VocoderNet(CONFIG)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return Vocoder(MEL, net.eval(), iterations=4)


def losses(net: VocoderNet, x: Tensor) -> Tensor:
    return VocoderTask(SETTINGS, tones()).losses(net, x, None)


def spectra(samples: int = 150) -> Tensor:
    wave = torch.stack([c.samples[0, :80].repeat(2)[:samples] for c in tones(4)])
    return LogMel(MEL).encode(wave)


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_waveforms_have_a_hop_for_every_frame(frames: int) -> None:
    made = shaken()(spectra(frames * MEL.hop if frames < 10 else 160)[:, :, :frames])
    assert made.shape == (4, min(frames, 10) * MEL.hop)
    assert bool(made.isfinite().all())


def test_a_waveform_does_not_depend_on_the_others_of_its_batch() -> None:
    vocoder, mel = shaken(), spectra()
    alone = torch.cat([vocoder(m[None]) for m in mel])
    torch.testing.assert_close(vocoder(mel), alone, rtol=1e-4, atol=1e-5)


def test_what_lies_beyond_the_end_of_a_clip_acts_on_nothing_and_is_silent() -> None:
    vocoder, mel = shaken(), spectra()
    sizes = [10, 7, 3, 1]
    mask = torch.arange(mel.shape[2]) < torch.tensor(sizes)[:, None]
    made = vocoder(torch.where(mask[:, None], mel, 3.0), mask)
    for row, m, n in zip(made, mel, sizes, strict=True):
        alone = vocoder(m[None, :, :n])[0]
        torch.testing.assert_close(row[: n * MEL.hop], alone, rtol=1e-4, atol=1e-5)
        assert not bool(row[n * MEL.hop :].any())


@pytest.mark.skipif(not FSDD.is_file(), reason="needs the spoken digits")
def test_the_one_that_ships_knows_magnitudes_of_held_out_digits_better_than_least_squares() -> None:
    vocoder = Vocoder.load("fsdd")
    for clip in split("fsdd:test", FSDD)[::100]:
        wave = clip.normalised().samples
        mel, truth = LogMel(vocoder.config).encode(wave), vocoder.config.framing.analyse(wave).abs()
        mine, plain = (
            float(magnitude_error(m, truth, 1e-2))
            for m in (vocoder.magnitude(mel), magnitudes(vocoder.config, mel))
        )
        assert mine < 0.95 * plain
    with pytest.raises(FileNotFoundError, match="no decoder 'fsd'"):
        Vocoder.load("fsd")


def test_the_same_spectrogram_makes_the_same_waveform() -> None:
    vocoder, mel = shaken(), spectra()
    torch.testing.assert_close(vocoder(mel), vocoder(mel), rtol=0, atol=0)


def test_every_weight_has_a_finite_gradient() -> None:
    net, wave = shaken().net, torch.zeros(2, 160)
    wave[0] = torch.sin(torch.arange(160.0))  # and one of pure silence
    losses(net, wave).sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()) and bool(p.grad.any()), name


def test_the_loss_of_a_piece_does_not_depend_on_the_others() -> None:
    net, task = shaken().net, VocoderTask(SETTINGS, tones())
    batch = task.batch(np.arange(4), 1, torch.device("cpu"))
    alone = torch.cat([losses(net, x[None]) for x in batch])
    torch.testing.assert_close(losses(net, batch), alone, rtol=1e-4, atol=1e-4)


def test_right_magnitudes_have_no_error() -> None:
    wave = torch.randn(2, 160, generator=torch.Generator().manual_seed(0))
    truth = MEL.framing.analyse(wave).abs()
    assert float(magnitude_error(truth, truth, 1e-2).max()) == 0
    # twice as loud: all logarithms are off by log 2, and all magnitudes by themselves
    twice = magnitude_error(2 * truth, truth, 1e-6)
    torch.testing.assert_close(twice, torch.full((2,), math.log(2) + 1), rtol=1e-3, atol=0)


def test_an_untrained_network_sounds_as_griffin_lim_does() -> None:
    mel = LogMel(MEL).encode(torch.sin(0.7 * torch.arange(160.0))[None])
    made = Vocoder(MEL, VocoderNet(CONFIG), iterations=8)(mel)
    plain = GriffinLim(MEL, 8)(mel)
    assert float((made - plain).square().mean()) < 1e-3 * float(plain.square().mean())


def test_steps_on_one_clip_halve_its_loss() -> None:
    wave = torch.sin(2 * torch.pi * 90 / 800 * torch.arange(160.0))[None] * 0.5
    torch.manual_seed(0)
    net, task = VocoderNet(CONFIG), VocoderTask(SETTINGS, tones())
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
    losses = []
    for _ in range(80):
        loss = task.losses(net, wave, None).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_a_trained_vocoder_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made, state = train(SETTINGS, tmp_path, tones(), tones(4, seed=1))
    assert state.step == 6
    assert isinstance(made, Vocoder)
    read = Vocoder.from_file(tmp_path / "model.safetensors")
    assert read.config == MEL and read.net.config == CONFIG
    for name, tensor in made.net.state_dict().items():
        torch.testing.assert_close(read.net.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


def test_pieces_are_those_of_their_key_and_silent_after_short_clips() -> None:
    task = VocoderTask(replace(SETTINGS, frames=20), tones())
    first, again, other = (task.batch(np.arange(8), k, torch.device("cpu")) for k in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape == (8, 20 * MEL.hop)
    short = [i for i in range(8) if len(task.waves[i]) <= 320]
    assert short
    for i in short:
        assert torch.equal(first[i], other[i])
        assert not bool(first[i, len(task.waves[i]) :].any())


def test_other_spectrograms_and_files_are_refused(tmp_path: Path) -> None:
    vocoder = shaken()
    with pytest.raises(ValueError, match="hop 16 instead of 32"):
        Vocoder(replace(MEL, hop=32), vocoder.net)
    with pytest.raises(ValueError, match=r"mel must be \(B, 8, T\)"):
        vocoder(torch.zeros(1, 9, 4))
    with pytest.raises(ValueError, match="mask must be"):
        vocoder(torch.zeros(1, 8, 4), torch.ones(1, 5, dtype=torch.bool))
    export({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "audio"})
    with pytest.raises(ValueError, match="not a vocoder"):
        Vocoder.from_file(tmp_path / "other.safetensors")


def test_settings_that_make_no_vocoder_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel odd"):
        VocoderConfig(MEL, kernel=4)
    with pytest.raises(ValueError, match="frames must be at least 2"):
        VocoderTraining(frames=1)
    with pytest.raises(ValueError, match="floor must be positive"):
        VocoderTraining(floor=0.0)
