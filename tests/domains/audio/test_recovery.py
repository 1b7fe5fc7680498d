"""Griffin-Lim: how near it comes, that nothing but a clip's own frames acts on it, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio import GriffinLim, LogMel, MelConfig
from sciffusion.domains.audio._torchaudio import torchaudio
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.recovery import magnitudes

FSDD = Path(__file__).parents[4] / "shared/data/audio/fsdd/fsdd.npz"
CONFIG = MelConfig()


def voice(seconds: float = 0.6, seed: int = 0) -> Tensor:
    """A gliding tone with harmonics under a swelling envelope, (1, N)."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(8000 * seconds)) / 8000
    base = 2 * np.pi * np.cumsum(120 + 60 * t / seconds) / 8000
    tone = sum(rng.uniform(0.2, 1) / k * np.sin(k * base) for k in range(1, 20))
    wave = tone * np.sin(np.pi * t / seconds) ** 0.5 + 0.003 * rng.standard_normal(len(t))
    return torch.from_numpy((0.5 * wave / np.abs(wave).max()).astype(np.float32))[None]


def distance(a: Tensor, b: Tensor, config: MelConfig = CONFIG) -> float:
    """Of two waveforms, the relative difference of Fourier magnitudes (spectral convergence)."""
    x, y = (config.framing.analyse(w).abs() for w in (a, b))
    return float((x - y).norm() / x.norm())


def made(wave: Tensor, recovery: GriffinLim) -> Tensor:
    return recovery(LogMel(recovery.config).encode(wave))[:, : wave.shape[1]]


def test_a_round_trip_keeps_the_spectrum() -> None:
    wave = voice()
    assert distance(wave, made(wave, GriffinLim(CONFIG))) < 0.15


@pytest.mark.skipif(not FSDD.is_file(), reason="needs the spoken digits")
def test_a_round_trip_keeps_the_spectra_of_spoken_digits() -> None:
    clips = [c.normalised().samples for c in split("fsdd:test", FSDD)[::50]]
    assert np.mean([distance(w, made(w, GriffinLim(CONFIG))) for w in clips]) < 0.15


def test_more_iterations_come_nearer_and_momentum_comes_nearer_faster() -> None:
    wave = voice()
    few, many = (distance(wave, made(wave, GriffinLim(CONFIG, n))) for n in (2, 32))
    plain = distance(wave, made(wave, GriffinLim(CONFIG, 32, momentum=0.0)))
    assert many < few and many < plain


def test_it_comes_as_near_as_griffin_lim_of_torchaudio() -> None:
    wave, ta = voice(), torchaudio()
    magnitude = torch.stft(wave, 256, 64, window=torch.hann_window(256), return_complex=True).abs()
    # both know all magnitudes here: a mel scale as fine as the transform hardly loses any
    theirs = ta.functional.griffinlim(
        magnitude,
        torch.hann_window(256),
        256,
        64,
        256,
        power=1.0,
        n_iter=32,
        momentum=0.99,
        length=wave.shape[1],
        rand_init=False,
    )
    assert distance(wave, made(wave, GriffinLim(CONFIG))) < distance(wave, theirs) + 0.05


def test_a_clip_is_the_same_alone_and_padded_among_others() -> None:
    encode, recover = LogMel(CONFIG).encode, GriffinLim(CONFIG, 8)
    mels = [encode(voice(s, i))[0].mT for i, s in enumerate((0.2, 0.5, 0.33))]
    mask = torch.arange(max(map(len, mels))) < torch.tensor([len(m) for m in mels])[:, None]
    padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True, padding_value=3.0).mT
    for row, mel in zip(recover(padded, mask), mels, strict=True):
        end = len(mel) * CONFIG.hop
        assert torch.allclose(row[:end], recover(mel.mT[None])[0], atol=1e-4)
        assert not row[end:].any()


def test_it_is_deterministic_and_reads_no_global_generator() -> None:
    mel = LogMel(CONFIG).encode(voice(0.2))
    before = torch.get_rng_state()
    first = GriffinLim(CONFIG)(mel)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, GriffinLim(CONFIG)(mel))


def test_silence_stays_silent() -> None:
    silence = made(torch.zeros(1, 1000), GriffinLim(CONFIG))
    assert float(silence.abs().max()) < 1e-4


def test_one_frame_is_enough() -> None:
    assert GriffinLim(CONFIG)(torch.zeros(1, 64, 1)).shape == (1, 64)


def test_other_shapes_and_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mel must be \(B, 64, T\)"):
        GriffinLim(CONFIG)(torch.zeros(1, 80, 5))
    with pytest.raises(ValueError, match="mask must be"):
        GriffinLim(CONFIG)(torch.zeros(1, 64, 5), torch.ones(1, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="iterations"):
        GriffinLim(CONFIG, 0)
    with pytest.raises(ValueError, match="momentum"):
        GriffinLim(CONFIG, momentum=1.0)


@pytest.mark.parametrize(
    "config", [CONFIG, MelConfig(rate=16000, n_fft=512, hop=128, mels=80)], ids=["8k", "16k"]
)
def test_errors_of_a_spectrogram_are_not_magnified(config: MelConfig) -> None:
    # triangles that are narrower than the distance of two frequencies see the same
    wave = voice() if config.rate == 8000 else voice().repeat_interleave(2, 1)
    mel = LogMel(config).encode(wave)
    g = torch.Generator().manual_seed(0)
    wrong = mel + 0.05 * torch.randn(mel.shape, generator=g)
    a, b = (magnitudes(config, m) for m in (mel, wrong))
    assert float((a - b).norm() / a.norm()) < 0.1
