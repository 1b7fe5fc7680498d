"""Log-mel spectrograms: their definition, torchaudio's opinion of it, lengths, padding, gradients and refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio import LogMel, MelConfig
from sciffusion.domains.audio._torchaudio import torchaudio
from sciffusion.domains.audio.mel import filters

CONFIG = MelConfig(rate=8000, n_fft=256, hop=64, mels=24)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
def test_a_waveform_has_one_frame_for_every_hop_begun(n: int) -> None:
    assert LogMel(CONFIG).encode(noise(2, n)).shape == (2, 24, math.ceil(n / 64))
    assert CONFIG.frames(n) == math.ceil(n / 64)


def test_a_frame_is_the_logarithm_of_the_summed_fourier_magnitudes_around_its_middle() -> None:
    wave, i = noise(1, 1000), 7
    start = i * 64 + 32 - 128  # the window of 256 around the middle of the hop
    piece = wave[0, start : start + 256].double().numpy() * np.hanning(257)[:-1]
    wanted = filters(CONFIG).double().numpy() @ np.abs(np.fft.rfft(piece))
    found = LogMel(CONFIG).encode(wave)[0, :, i]
    assert np.allclose(found.numpy(), np.log(wanted), atol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, MelConfig(16000, 512, 128, 40, 50.0, 7000.0)])
def test_it_agrees_with_the_spectrogram_of_torchaudio(config: MelConfig) -> None:
    wave, left = noise(1, 4096), (config.n_fft - config.hop) // 2
    transform = torchaudio().transforms.MelSpectrogram(
        config.rate,
        config.n_fft,
        hop_length=config.hop,
        f_min=config.fmin,
        f_max=config.highest,
        n_mels=config.mels,
        power=1.0,
        center=False,
        norm=None,
        mel_scale="htk",
    )
    wanted = transform(torch.nn.functional.pad(wave, (left, left))).clamp(min=config.floor).log()
    assert torch.allclose(LogMel(config).encode(wave), wanted, atol=2e-3)


def test_the_triangles_of_a_band_add_up_to_one_between_the_outer_peaks() -> None:
    total = filters(MelConfig(mels=16)).sum(0)
    assert torch.allclose(total[5:100], torch.ones(95), atol=1e-6)


def test_an_odd_rate_has_its_own_frequencies() -> None:
    config = MelConfig(rate=11025, n_fft=512, hop=128, mels=20)
    t = torch.arange(5512) / 11025
    loudest = LogMel(config).encode(torch.sin(2 * math.pi * 1000 * t)[None])[0].mean(1).argmax()
    peak = filters(config)[loudest].argmax() * 11025 / 512
    assert abs(float(peak) - 1000) < 100


def test_padding_with_zeros_changes_no_frame_of_a_clip() -> None:
    lengths = [70, 300, 641]
    waves = [noise(n, seed=n) for n in lengths]
    batch = LogMel(CONFIG).encode(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True))
    for row, wave in zip(batch, waves, strict=True):
        alone = LogMel(CONFIG).encode(wave[None])[0]
        assert torch.allclose(row[:, : alone.shape[1]], alone, atol=1e-5)


def test_silence_is_the_floor_and_has_a_finite_gradient() -> None:
    wave = torch.zeros(1, 500, requires_grad=True)
    mel = LogMel(CONFIG).encode(wave)
    assert torch.allclose(mel, torch.tensor(CONFIG.floor).log())
    mel.sum().backward()
    assert wave.grad is not None and bool(wave.grad.isfinite().all())


def test_gradients_are_those_of_differences() -> None:
    config = MelConfig(rate=800, n_fft=16, hop=8, mels=2)
    wave = noise(1, 20).double().requires_grad_()
    assert torch.autograd.gradcheck(LogMel(config).encode, (wave,))


def test_an_error_names_what_differs_between_two_spectrograms() -> None:
    CONFIG.require_same(replace(CONFIG, fmax=4000.0), "the vocoder")  # half the rate, spelt out
    with pytest.raises(ValueError, match="the vocoder .* hop 128 instead of 64, mels 32 instead"):
        CONFIG.require_same(replace(CONFIG, hop=128, mels=32), "the vocoder")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0}, "rate"),
        ({"mels": 0}, "mels"),
        ({"floor": 0.0}, "floor"),
        ({"hop": 300}, "n_fft"),
        ({"hop": 63}, "even"),
        ({"fmax": 5000.0}, "fmax"),
        ({"fmin": 4000.0}, "fmin"),
    ],
)
def test_numbers_that_make_no_spectrogram_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **wrong)


@pytest.mark.parametrize("shape", [(100,), (1, 1, 100), (2, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="waves"):
        LogMel(CONFIG).encode(torch.zeros(shape))
