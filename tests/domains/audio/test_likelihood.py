"""Densities of clips against a law that is known."""

import math

import pytest
import torch

from sciffusion.domains.audio import Clip

from .chain import chain, covariance
from .small import tones


def test_densities_are_those_of_the_law_and_know_no_padding() -> None:
    model = chain()
    clips = [Clip(c.samples[:, : 40 + 20 * i], 800) for i, c in enumerate(tones(3))]
    found = model.log_likelihood(clips, probes=None, tolerance=1e-4)
    for i, clip in enumerate(clips):
        x = model.encode([clip])["mel"][0].double()
        frames = len(x)
        c = covariance(frames) + math.exp(-10.0) * torch.eye(frames)
        law = torch.distributions.MultivariateNormal(torch.zeros(frames).double(), c)
        nats = float(law.log_prob(x.mT).sum() - frames * model.standard.std.double().log().sum())
        assert float(found.nats[i]) == pytest.approx(nats, rel=1e-3)
        assert int(found.dimensions[i]) == 8 * frames
        bits = -nats / math.log(2) / (8 * frames)
        assert float(found.bits_per_dim[i]) == pytest.approx(bits, rel=1e-3)


def test_an_estimate_depends_on_seed_and_place_alone() -> None:
    model, clips = chain(), list(tones(3))
    many = model.log_likelihood(clips, seed=1).nats
    torch.testing.assert_close(
        many[:1], model.log_likelihood(clips[:1], seed=1).nats, rtol=1e-3, atol=0.1
    )
    assert float((many - model.log_likelihood(clips, seed=2).nats).abs().max()) > 1e-3


def test_what_has_no_density_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="clips holds none"):
        chain().log_likelihood([])
    with pytest.raises(ValueError, match=r"clips must be several, got one clip: give \[clip\]"):
        chain().log_likelihood(tones(1)[0])
    with pytest.raises(ValueError, match="clip must be a Clip, got Tensor"):
        chain().log_likelihood([torch.ones(80)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="clip 1 is silent"):
        chain().log_likelihood([tones(1)[0], Clip(torch.zeros(1, 100), 800)])
