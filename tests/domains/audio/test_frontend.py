"""Models of complex spectra: trained, sampled, stored, and nothing lost on the way to waveforms and back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sciffusion.domains.audio import AudioModel, ComplexSTFT, ModelConfig, train
from sciffusion.domains.audio.codec import CodecConfig
from sciffusion.domains.audio.frontend import LatentConfig, SpectrumConfig

from .small import settings, tones

SPECTRUM = SpectrumConfig(800, ComplexSTFT(n_fft=32, hop=8))


def test_a_model_of_complex_spectra_hears_every_sample_and_makes_clips(tmp_path: Path) -> None:
    config = settings(steps=4)
    config = replace(config, model=replace(config.model, spectrum=SPECTRUM))
    model, _ = train(config, tmp_path, tones())
    assert isinstance(model, AudioModel)
    clips = tones(3)
    state = model.encode(clips)
    assert state["mel"].shape[2] == SPECTRUM.width == 34
    for clip, again in zip(clips, model.decode(state, clips.lengths.tolist()), strict=True):
        wanted = clip.normalised(0.5).samples
        torch.testing.assert_close(again.samples, wanted, rtol=1e-3, atol=1e-4)
    made = model.sample(3, {"pitch": "low"}, seconds=[0.1, 0.2, 0.15], steps=2)
    assert made.lengths.tolist() == [80, 160, 120]
    assert AudioModel.from_file(tmp_path / "model.safetensors").config.spectrum == SPECTRUM


def test_a_model_sees_one_thing() -> None:
    with pytest.raises(ValueError, match="latent and spectrum are both given"):
        ModelConfig(spectrum=SPECTRUM, latent=LatentConfig(CodecConfig(), "a"))
    assert ModelConfig().width == 64
    assert ModelConfig(latent=LatentConfig(CodecConfig(), "a")).width == 32
