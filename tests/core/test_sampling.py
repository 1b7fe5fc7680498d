"""Settings of sampling: steps and guidance are those of the core, and cost what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance import CFG, Autoguidance
from sciffusion.noise import Noise
from sciffusion.process import Gaussian
from sciffusion.sampling import Guide, SamplingConfig
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Euclidean
from sciffusion.state import Value


class Ordinary(Denoiser):
    """The exact denoiser of standard normal data around the number that the condition names; counts its calls."""

    def __init__(self, spread: float = 1.0) -> None:
        super().__init__()
        self.process, self.spread, self.calls = Gaussian(RectifiedFlow(), Euclidean()), spread, 0

    def forward(
        self,
        x_t: Value,
        t: Tensor,
        cond: Condition | None = None,
        previous: Value | None = None,
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        self.calls += 1
        mean = torch.zeros(len(x_t), 1) if cond is None else 2.0 * cond["k"][:, None]
        alpha, sigma = (v.view(-1, 1).to(x_t) for v in (1 - t, t))
        var = self.spread**2
        x0 = mean + alpha * var / (alpha**2 * var + sigma**2) * (x_t - alpha * mean)
        return Prediction(x0, x_t, t, self.process)


COND, NULL = {"k": torch.tensor([1, 2])}, {"k": torch.zeros(2, dtype=torch.long)}


def drawn(denoiser: Denoiser, config: SamplingConfig) -> Tensor:
    start = denoiser.process.prior(torch.zeros(2, 3), Noise([0, 1]))
    made = config.sampler()(denoiser, start).x
    assert isinstance(made, Tensor)
    return made


def test_a_scale_is_classifier_free_guidance_and_a_worse_model_autoguidance() -> None:
    net, weak, config = Ordinary(), Ordinary(2.0), SamplingConfig(steps=5, scale=3.0)
    cases = [
        (config.guided(net, COND, NULL), CFG(net, COND, NULL, 3.0)),
        (config.guided(net, COND, NULL, 2), CFG(net, COND, NULL, 2.0)),
        (
            config.guided(net, COND, NULL, Guide(2.0, weak=weak)),
            Autoguidance(net.given(COND), weak.given(COND), 2.0),
        ),
        (config.guided(net, COND, NULL, lambda d, c, n: d.given(n)), net.given(NULL)),
    ]
    for ours, theirs in cases:
        torch.testing.assert_close(drawn(ours, config), drawn(theirs, config))


@pytest.mark.parametrize(
    ("changes", "cond", "calls"),
    [
        ({"scale": 1.0}, COND, 8),
        ({"scale": 3.0}, COND, 16),
        ({"scale": 3.0}, NULL, 8),  # nothing is asked for
        ({"scale": 3.0, "low": 50.0}, COND, 8),
        ({"scale": 3.0, "high": 0.0, "shift": 1.0}, COND, 12),  # half the times lie above log-SNR 0
    ],
)
def test_only_guided_steps_cost_two_calls(
    changes: dict[str, float], cond: Condition, calls: int
) -> None:
    net, config = Ordinary(), replace(SamplingConfig(steps=8), **changes)  # type: ignore[arg-type]
    drawn(config.guided(net, cond, NULL), config)
    assert abs(net.calls - calls) <= (1 if config.high is not None else 0)


def test_settings_become_a_guide_and_samplers() -> None:
    assert SamplingConfig(scale=2.0, high=1.0).guide() == Guide(2.0, -math.inf, 1.0)
    assert SamplingConfig(scale=2.0).guide(4).scale == 4.0
    assert SamplingConfig(steps=6).sampler(1).steps == 1
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        SamplingConfig().sampler(0)


def test_what_is_no_guidance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"guidance must be a scale .*got 'x'"):
        SamplingConfig().guided(Ordinary(), COND, NULL, "x")  # type: ignore[arg-type]
