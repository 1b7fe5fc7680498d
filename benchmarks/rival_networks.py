"""A generative adversarial network and an autoregressive model in their plain form: what diffusion is compared with.

Both are written from their papers and live here only. The adversarial one is trained by the non-saturating logistic
loss (Goodfellow et al. 2014) with a penalty on the discriminator's gradient at data (R1, Mescheder et al. 2018), a
projection discriminator (Miyato & Koyama 2018) where there are classes, and an average of the generator's weights. The
autoregressive one is a causal transformer (Vaswani et al. 2017) over quantised values, one after the other, begun by
the class; it samples with its keys and values kept, so a value costs one call on one token.

Training ends with the CPU seconds that it is given; learning rates fall along a cosine over them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Autoregressive",
    "ImageDiscriminator",
    "ImageGenerator",
    "PlainDiscriminator",
    "PlainGenerator",
    "Rival",
    "adversarial",
    "autoregressive",
    "count",
    "fit",
]


@dataclass(frozen=True)
class Rival:
    """What was trained: ``sample(labels, seed)`` draws one datum for each label, (N, *shape)."""

    sample: Callable[[Tensor, int], Tensor]
    parameters: int
    calls: int
    steps: int
    seconds: float

    def mapped(self, of: Callable[[Tensor], Tensor]) -> Rival:
        """The same, with a map after its samples."""
        return replace(self, sample=lambda label, seed: of(self.sample(label, seed)))


def count(model: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in model.parameters())


class ImageGenerator(nn.Module):
    """Noise and a class to a picture of 8 x 8, from -1 to 1: a linear map to 4 x 4 points, then convolutions."""

    def __init__(self, classes: int = 10, latent: int = 64, width: int = 128) -> None:
        super().__init__()
        self.latent, self.width = latent, width
        self.table = nn.Embedding(classes, latent)
        self.first = nn.Linear(2 * latent, 16 * width)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((width, width), (width, width), (width, 64))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(3))
        self.last = nn.Conv2d(64, 1, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        h = self.first(torch.cat([z, self.table(label)], 1)).view(-1, self.width, 4, 4)
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            if i == 1:
                h = F.interpolate(h, scale_factor=2.0)
            h = layer(F.silu(norm(h)))
        return self.last(F.silu(h)).tanh()


class ImageDiscriminator(nn.Module):
    """A picture of 8 x 8 and a class to a number: how real it looks."""

    def __init__(self, classes: int = 10, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, width, 3, padding=1, stride=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(16 * width, width),
            nn.LeakyReLU(0.2),
        )
        self.last, self.table = nn.Linear(width, 1), nn.Embedding(classes, width)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.layers(x)
        return self.last(h)[:, 0] + (self.table(label) * h).mean(1)


class PlainGenerator(nn.Module):
    """Noise to points of a plane; classes are not looked at."""

    def __init__(self, latent: int = 8, width: int = 128) -> None:
        super().__init__()
        self.latent = latent
        self.layers = _perceptron(latent, width, 2)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        out: Tensor = self.layers(z)
        return out


class PlainDiscriminator(nn.Module):
    """Points of a plane to a number; classes are not looked at."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = _perceptron(2, width, 1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.layers(x)[:, 0]  # type: ignore[no-any-return]


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    inner = [m for _ in range(2) for m in (nn.Linear(width, width), nn.SiLU())]
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), *inner, nn.Linear(width, outputs))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, kept: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        b, n, w = x.shape
        parts = self.qkv(self.norms[0](x)).view(b, n, 3, self.heads, w // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if kept is not None:
            k, v = torch.cat([kept[0], k], 2), torch.cat([kept[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=kept is None)
        x = x + self._drop(self.out(y.transpose(1, 2).reshape(b, n, w)))
        return x + self._drop(self.mlp(self.norms[1](x))), (k, v)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Autoregressive(nn.Module):
    """A causal transformer over ``length`` values of ``levels`` levels each, begun by a class."""

    def __init__(
        self,
        length: int,
        levels: int,
        classes: int,
        width: int = 96,
        depth: int = 5,
        heads: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.length = length
        self.begin, self.values = nn.Embedding(classes, width), nn.Embedding(levels, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, levels)

    def forward(self, values: Tensor, label: Tensor) -> Tensor:
        """Logits (B, L, levels) of every value (B, L), each from those before it."""
        before = self.values(values[:, :-1])
        return self._logits(torch.cat([self.begin(label)[:, None], before], 1) + self.places, None)[
            0
        ]

    @torch.no_grad()
    def draw(self, label: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Values (B, L), one call of the network each."""
        kept, found = None, []
        token = self.begin(label)
        for i in range(self.length):
            logits, kept = self._logits((token + self.places[i])[:, None], kept)
            chances = (logits[:, -1] / temperature).softmax(-1)
            value = torch.multinomial(chances, 1, generator=generator)[:, 0]
            found.append(value)
            token = self.values(value)
        return torch.stack(found, 1)

    def _logits(
        self, x: Tensor, kept: list[tuple[Tensor, Tensor]] | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        caches = []
        for i, block in enumerate(self.blocks):
            x, cache = block(x, None if kept is None else kept[i])
            caches.append(cache)
        return self.last(self.norm(x)), caches


def fit(step: Callable[[float], None], seconds: float) -> tuple[int, float]:
    """Take steps, each told which share of the CPU seconds has passed, until they have; their number and the time."""
    start, steps = time.process_time(), 0
    while (passed := time.process_time() - start) < seconds:
        step(passed / seconds)
        steps += 1
    return steps, time.process_time() - start


def _pace(optimizer: torch.optim.Optimizer, lr: float, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * min(1.0, 50 * share) * 0.5 * (1 + math.cos(math.pi * share))


def _averaged(average: nn.Module, model: nn.Module, steps: int, most: float) -> None:
    keep = min(most, (1 + steps) / (10 + steps))
    with torch.no_grad():
        for a, b in zip(average.parameters(), model.parameters(), strict=True):
            a.lerp_(b, 1 - keep)


def adversarial(
    generator: ImageGenerator | PlainGenerator,
    discriminator: nn.Module,
    data: Tensor,
    labels: Tensor,
    *,
    seconds: float,
    seed: int,
    batch: int = 64,
    lr: float = 1e-3,
    penalty: float = 1.0,
) -> Rival:
    """Train a generator against a discriminator on data (N, *shape) with labels (N,)."""
    g = torch.Generator().manual_seed(seed)
    average, steps = deepcopy(generator), 0
    first, second = (
        torch.optim.Adam(m.parameters(), lr, betas=(0.0, 0.99)) for m in (generator, discriminator)
    )

    def step(share: float) -> None:
        nonlocal steps
        rows = torch.randint(len(data), (batch,), generator=g)
        real, label = data[rows], labels[rows]
        for optimizer in (first, second):
            _pace(optimizer, lr, share)
        fake = generator(torch.randn(batch, generator.latent, generator=g), label)
        loss = F.softplus(discriminator(fake.detach(), label)).mean()
        lazy = steps % 4 == 0  # the penalty every fourth step, four times as strong
        real = real.requires_grad_(lazy)
        score = discriminator(real, label)
        loss = loss + F.softplus(-score).mean()
        if lazy:
            (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            loss = loss + 4 * penalty / 2 * slope.flatten(1).square().sum(1).mean()
        second.zero_grad()
        loss.backward()
        second.step()
        first.zero_grad()
        F.softplus(-discriminator(fake, label)).mean().backward()
        first.step()
        _averaged(average, generator, steps, 0.998)
        steps += 1

    _, spent = fit(step, seconds)

    @torch.no_grad()
    def sample(label: Tensor, seed: int) -> Tensor:
        noise = torch.Generator().manual_seed(seed)
        return average(torch.randn(len(label), average.latent, generator=noise), label)

    return Rival(sample, count(generator), 1, steps, spent)


def autoregressive(
    model: Autoregressive,
    data: Tensor,
    labels: Tensor,
    *,
    seconds: float,
    seed: int,
    batch: int = 64,
    lr: float = 2e-3,
    temperature: float = 1.0,
) -> Rival:
    """Train on values (N, L), whole numbers, with labels (N,)."""
    g = torch.Generator().manual_seed(seed)
    average, steps = deepcopy(model).eval(), 0
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.05)

    def step(share: float) -> None:
        nonlocal steps
        rows = torch.randint(len(data), (batch,), generator=g)
        _pace(optimizer, lr, share)
        logits = model(data[rows], labels[rows])
        loss = F.cross_entropy(logits.flatten(0, 1), data[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _averaged(average, model, steps, 0.998)
        steps += 1

    _, spent = fit(step, seconds)

    def sample(label: Tensor, seed: int) -> Tensor:
        return average.draw(label, torch.Generator().manual_seed(seed), temperature)

    return Rival(sample, count(model), model.length, steps, spent)
