"""What tests of sound share: tones of known frequency, and a model small enough to train in a test."""

from dataclasses import replace

import numpy as np
import torch

from sciffusion.domains.audio import (
    AudioModel,
    AudioTask,
    AudioTraining,
    Clip,
    Clips,
    DataConfig,
    FramesConfig,
    MelConfig,
    ModelConfig,
    PatchesConfig,
    UNetConfig,
)
from sciffusion.training import TrainConfig

MEL = MelConfig(rate=800, n_fft=64, hop=16, mels=8)
NETWORKS: dict[str, FramesConfig | PatchesConfig | UNetConfig] = {
    "frames": FramesConfig(frames=2, width=16, depth=2, heads=2, embedding=8),
    "patches": PatchesConfig(patch=(4, 2), width=16, depth=2, heads=2, embedding=8),
    "unet": UNetConfig(frames=16, widths=(8, 32), blocks=1, attention=(False, True), embedding=8),
}


def tones(n: int = 24, seed: int = 0) -> Clips:
    """Clips of 0.1 to 0.3 seconds: a low or a high tone, loud or soft to begin with."""
    rng = np.random.default_rng(seed)
    clips, pitch, attack = [], [], []
    for i in range(n):
        t = np.arange(int(rng.integers(80, 240))) / 800
        high, soft = i % 2 == 1, i % 4 > 1
        wave = np.sin(2 * np.pi * (250 if high else 90) * t + rng.uniform(0, 6))
        wave = wave * (1 - np.exp(-t / 0.05) if soft else 1) + 0.01 * rng.standard_normal(len(t))
        clips.append(Clip.of(wave.astype(np.float32), 800))
        pitch.append("high" if high else "low")
        attack.append(int(soft))
    return Clips(clips, {"pitch": np.array(pitch), "attack": np.array(attack)})


def settings(network: str = "frames", *, steps: int = 20, every: int = 0) -> AudioTraining:
    """A training run of seconds."""
    model = ModelConfig(mel=MEL, network=NETWORKS[network], attributes=("pitch", "attack"))
    return AudioTraining(
        model=model,
        data=DataConfig(shifts=2),
        train=TrainConfig(
            steps=steps, batch_size=8, lr=5e-3, warmup=2, validate_every=every, log_every=10
        ),
    )


def shaken(
    network: str = "frames",
    *,
    seed: int = 0,
    text: int = 0,
    reference: int = 0,
    attend: bool = True,
) -> AudioModel:
    """A model with random weights, no output of which is zero."""
    task = AudioTask(settings(network), tones())
    config = replace(task.config.model, text=text, reference=reference, attend=attend)
    denoiser = config.denoiser()
    g = torch.Generator().manual_seed(seed)
    weights = {
        k: v + 0.1 * torch.randn(v.shape, generator=g) if v.is_floating_point() else v
        for k, v in denoiser.state_dict().items()
    }
    denoiser.load_state_dict(weights)
    return AudioModel(config, denoiser.eval(), task.standard, task.catalogue)
