"""The complex transform: inverses, energies, masks, batches and refusals."""

import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio.stft import ComplexSTFT, Framing


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 63, 1000, 4096])
@pytest.mark.parametrize(("n_fft", "hop"), [(256, 64), (256, 128), (510, 128)])
@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_the_inverse_is_exact(n: int, n_fft: int, hop: int, exponent: float) -> None:
    stft, waves = ComplexSTFT(n_fft, hop, exponent, 0.15), noise(2, n)
    x = stft.encode(waves)
    assert x.shape == (2, 2, n_fft // 2 + 1, -(-n // hop))
    assert torch.allclose(stft.decode(x, n), waves, atol=1e-5)


def test_the_exponent_compresses_magnitudes_and_keeps_phases() -> None:
    waves = noise(1, 2000)
    plain, small = (ComplexSTFT(exponent=a).encode(waves) for a in (1.0, 0.5))
    z, y = (torch.complex(x[:, 0], x[:, 1]) for x in (plain, small))
    assert torch.allclose(y.abs(), z.abs().sqrt(), atol=1e-4)
    assert torch.allclose((z * y.conj()).angle(), torch.zeros(()), atol=1e-3)


def test_a_spectrum_is_that_of_torch() -> None:
    waves, framing = noise(2, 640), Framing(256, 64)
    wanted = torch.stft(waves, 256, 64, window=torch.hann_window(256), return_complex=True)
    # torch puts the middle of its frames at multiples of the hop, we half a hop later
    shifted = framing.analyse(torch.nn.functional.pad(waves, (32, 0)))
    assert torch.allclose(shifted[:, :, 2:9], wanted[:, :, 2:9], atol=1e-4)


def test_no_waveform_has_spectra_nearer_to_those_given() -> None:
    framing = Framing(64, 16)
    given = torch.complex(noise(1, 33, 9), noise(1, 33, 9, seed=1))
    given[:, [0, -1]] = given[:, [0, -1]].real + 0j
    wave = framing.synthesise(given)
    weight = torch.full((33, 1), 2.0)
    weight[[0, -1]] = 1.0  # half of the symmetric spectrum is left out

    def distance(w: Tensor) -> float:
        return float((weight * (framing.analyse(w) - given).abs().square()).sum())

    for seed in range(5):
        assert distance(wave) < distance(wave + 0.01 * noise(*wave.shape, seed=seed))


def test_masked_frames_leave_a_clip_as_it_is_alone() -> None:
    framing = Framing(64, 16)
    spectrum = torch.complex(noise(2, 33, 12), noise(2, 33, 12, seed=1))
    mask = torch.arange(12) < torch.tensor([[7], [12]])
    both = framing.synthesise(spectrum, mask)
    assert torch.allclose(both[0, : 7 * 16], framing.synthesise(spectrum[:1, :, :7])[0], atol=1e-5)
    assert torch.allclose(both[1], framing.synthesise(spectrum[1:])[0], atol=1e-5)


def test_silence_has_finite_gradients() -> None:
    waves = torch.zeros(1, 300, requires_grad=True)
    ComplexSTFT().encode(waves).square().sum().backward()
    assert waves.grad is not None and bool(waves.grad.isfinite().all())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hop": 130}, "half|/ 2"),
        ({"hop": 63}, "even"),
        ({"exponent": 0.0}, "exponent"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_numbers_without_an_inverse_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ComplexSTFT(**wrong)


def test_other_shapes_and_lengths_are_refused() -> None:
    stft = ComplexSTFT()
    with pytest.raises(ValueError, match="x must be"):
        stft.decode(torch.zeros(1, 2, 128, 5))
    with pytest.raises(ValueError, match="samples must be 1 to 320"):
        stft.decode(torch.zeros(1, 2, 129, 5), 321)
