"""Laws of samples of which some points are known: the conditional law of an exact denoiser, bit-equal known points."""

import pytest
import torch
from torch import Tensor

from sciffusion.grid import FlowTime
from sciffusion.inverse import Known
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.oracle import Categorical as Classes
from sciffusion.process import Jump
from sciffusion.samplers import Heun, Sampler
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Categorical
from tests.core.series import COVARIANCE, MEAN, Series

KNOWN = torch.tensor([True, False, True, False])


def test_the_flow_leads_to_the_conditional_law_of_an_exact_denoiser() -> None:
    known = torch.tensor([1.5, 99.0, 0.7, -99.0], dtype=torch.float64)  # what is unknown is ignored
    sampler = Sampler(Heun(), 60, FlowTime())
    # the flow is affine in its start: from the origin it gives the mean, from the units the factor
    start = torch.cat((torch.zeros(1, 4), torch.eye(4)))[..., None].double()
    denoiser = Known(Series(), known[None, :, None].expand(5, -1, -1), KNOWN)
    x = sampler(denoiser, start).x
    assert isinstance(x, Tensor)
    assert bool((x[:, KNOWN, 0] == known[KNOWN]).all())
    factor = (x[1:, ~KNOWN, 0] - x[0, ~KNOWN, 0]).T
    k, u = KNOWN, ~KNOWN
    gain = COVARIANCE[u][:, k] @ torch.linalg.inv(COVARIANCE[k][:, k])
    mean = MEAN[u] + gain @ (known[k] - MEAN[k])
    covariance = COVARIANCE[u][:, u] - gain @ COVARIANCE[k][:, u]
    torch.testing.assert_close(x[0, u, 0], mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(factor @ factor.T, covariance, atol=2e-3, rtol=0)


def test_known_points_are_shown_clean_at_time_zero_and_cost_no_loss() -> None:
    inner = Series()
    known = torch.randn(3, 4, 1, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 4, [False] * 4, [True, False, False, True]])
    objective = Objective(inner.process)
    loss = objective(Known(inner, known, mask), known, noise=Noise([1, 2, 3]))
    assert bool((inner.seen[0][mask] == 0).all())
    assert bool((inner.seen[0][~mask] > 0).all())
    assert float(loss.per_sample[0]) == 0
    assert bool((loss.per_sample[1:] > 0).all())


def test_masks_and_samples_that_do_not_fit_are_refused() -> None:
    known, inner = torch.zeros(2, 4, 1), Series()
    with pytest.raises(ValueError, match="mask must be boolean"):
        Known(inner, known, torch.ones(4))
    with pytest.raises(ValueError, match=r"mask must be \(2, 4\)"):
        Known(inner, known, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="known must be a plain tensor"):
        Known(inner, known[:, 0, 0], torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="x_t must be a tensor like known"):
        Known(inner, known, KNOWN)(torch.zeros(2, 5, 1), torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"t must be \(\) or \(B,\)"):
        Known(inner, known, KNOWN)(known, torch.zeros(2, 4))
    classes = Classes(torch.full((2,), 0.5), Jump(RectifiedFlow(), Categorical(2)))
    with pytest.raises(ValueError, match="known holds classes"):
        Known(classes, torch.zeros(2, 4, dtype=torch.long), KNOWN)
