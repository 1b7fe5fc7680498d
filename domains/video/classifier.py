"""A reader of digits in films: independent of the models that it judges, and trained by a function in half a minute.

It looks at a frame around its centre of mass, so that it does not matter where the digit is.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.training import export, load_weights

from .datasets.digits import SIDE, Digits
from .datasets.moving import placed
from .motion import centres

__all__ = ["DigitReader", "accuracy", "centred", "reader", "save_reader", "train_reader"]

WEIGHTS = Path(__file__).parent / "weights" / "reader" / "digits.safetensors"
FEATURES = 32


@final
class DigitReader(nn.Module):
    """Two convolutions and two layers on pictures (N, 16, 16) with their centre of mass in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.wide, self.last = nn.Linear(32 * 16, FEATURES), nn.Linear(FEATURES, 10)

    def features(self, x: Tensor) -> Tensor:
        """What it says before it decides, (N, 32)."""
        h = F.max_pool2d(F.relu(self.first(x[:, None])), 2)
        h = F.max_pool2d(F.relu(self.second(h)), 2)
        return F.relu(self.wide(h.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """The logits of ten digits, (N, 10)."""
        return self.last(self.features(x))

    @torch.no_grad()
    def read(self, films: Tensor) -> tuple[Tensor, Tensor]:
        """The digits (N, T) that it reads in grey films (N, T, 1, H, W), and its features (N, T, 32)."""
        n, t = films.shape[:2]
        seen = centred(films).flatten(0, 1)
        features = torch.cat([self.features(part) for part in seen.split(1024)])
        return self.last(features).argmax(1).view(n, t), features.view(n, t, -1)


def centred(films: Tensor) -> Tensor:
    """Pictures (N, T, 16, 16) of grey films (N, T, 1, H, W), their centres of mass in the middle."""
    at = centres(films).nan_to_num(0.0)  # a frame without light is black wherever it is put
    # the frame is put on a canvas of 16 pixels so that its centre of mass comes to the middle
    corners = ((SIDE - 1) / 2 - at).flatten(0, 1)[:, None]
    frames = films[:, :, 0].float().flatten(0, 1)
    return placed(frames, corners, (SIDE, SIDE))[:, 0].unflatten(0, films.shape[:2])


def train_reader(digits: Digits, *, steps: int = 1500, seed: int = 0) -> DigitReader:
    """A reader of these digits, moved by parts of pixels, with another brightness and a little noise each time."""
    noise = Noise(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DigitReader()
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = (noise.scalars(64) * len(digits)).long()
        x = _shaken(digits.ink[rows], noise)
        loss = F.cross_entropy(net(x), digits.classes[rows], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def _shaken(ink: Tensor, noise: Noise) -> Tensor:
    """Pictures (N, 16, 16) moved by parts of pixels and centred, brighter or darker, with noise."""
    n = len(ink)
    corner = 4 * noise.uniform(torch.zeros(n, 1, 2), Dense(n)).double()
    films = placed(ink, corner, (SIDE + 5, SIDE + 5))[:, :, None]
    x = centred(films)[:, 0]
    gain = 0.7 + 0.4 * noise.scalars(n).to(x)
    return x * gain[:, None, None] + 0.05 * noise.normal(x, Dense(n))


@torch.no_grad()
def accuracy(net: DigitReader, digits: Digits) -> float:
    """The share of pictures that it reads right, each put between pixels."""
    n = len(digits)
    corner = torch.full((n, 1, 2), 2.5, dtype=torch.float64)
    films = placed(digits.ink, corner, (SIDE + 5, SIDE + 5))[:, :, None]
    return float((net.read(films)[0][:, 0] == digits.classes).double().mean())


def save_reader(net: DigitReader, path: str | Path, accuracy: float) -> None:
    """Write a reader in float16, with its accuracy on held-out digits."""
    export(net.state_dict(), path, {"kind": "reader", "accuracy": accuracy}, torch.float16)


@lru_cache(maxsize=1)
def reader() -> DigitReader:
    """The one that ships, trained on the training digits of scikit-learn."""
    tensors, _ = load_weights(WEIGHTS)
    net = DigitReader()
    net.load_state_dict(tensors)
    return net.eval()
