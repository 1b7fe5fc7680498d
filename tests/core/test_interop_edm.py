"""Networks of diffusers under EDM's preconditioning, and those that share the noise levels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.grid import Karras
from sciffusion.guidance import CFG
from sciffusion.interop.diffusers import (
    EDM,
    Training,
    from_experts,
    from_model,
    from_scheduler,
)
from sciffusion.samplers import DDIM, Multistep, Sampler
from sciffusion.testing import check_denoiser
from tests.core.test_interop_models import CASES, FILM, TEXT
from tests.core.tiny_diffusers import library, loop, randn, scheduler, seeded, unet

V = "v_prediction"
STEPS = 7
SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EDMEulerScheduler", {"prediction_type": V}),
    "euler, eps, exponential": ("EDMEulerScheduler", {"sigma_schedule": "exponential"}),
    "euler, other ends": (
        "EDMEulerScheduler",
        {"sigma_max": 20.0, "sigma_min": 0.1, "sigma_data": 1.0, "rho": 3.0},
    ),
    "euler, to the least level": ("EDMEulerScheduler", {"final_sigmas_type": "sigma_min"}),
    "dpm++ 2m": ("EDMDPMSolverMultistepScheduler", {"prediction_type": V}),
    "dpm++ 2m, heun": ("EDMDPMSolverMultistepScheduler", {"solver_type": "heun"}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_trajectory_is_that_of_their_loop(case: str) -> None:
    name, config = SAME[case]
    theirs, x = scheduler(name, **config), randn(2, 3, 8, 8)
    expected = loop(unet(), theirs, x, STEPS)
    start = x * float(theirs.init_noise_sigma)
    got = from_scheduler(theirs, STEPS)(from_model(unet(), theirs), start).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert float(expected.std()) > 0.1


class CosineDPMSolverMultistepScheduler:
    """What Stable Audio's says of itself; to make one takes a library for its noise."""

    config: Mapping[str, Any] = {
        "sigma_min": 0.3,
        "sigma_max": 500.0,
        "sigma_data": 1.0,
        "sigma_schedule": "exponential",
        "prediction_type": V,
        "rho": 7.0,
        "solver_order": 2,
        "final_sigmas_type": "zero",
    }


@pytest.mark.parametrize("audio", [False, True])
def test_a_network_sees_and_says_what_theirs_sees_and_says(audio: bool) -> None:
    kind, data = (V, 1.0) if audio else ("epsilon", 0.5)
    theirs = scheduler("EDMEulerScheduler", prediction_type=kind, sigma_data=data)
    read = CosineDPMSolverMultistepScheduler() if audio else theirs
    training = Training.of(read)
    assert training.edm == (EDM(1.0, 1, "angle") if audio else EDM(0.5, -1))
    sigma = torch.tensor([0.4, 7.0])
    x, at = randn(2, 3, 8, 8), sigma[:, None, None, None]
    c_noise = sigma.atan() / math.pi * 2 if audio else theirs.precondition_noise(sigma)
    seen = unet()(theirs.precondition_inputs(x, at), c_noise).sample
    t = sigma.double() / read.config["sigma_max"]
    torch.testing.assert_close(training.step(t).float(), c_noise)
    torch.testing.assert_close(training.time(training.step(t)), t)
    expected = theirs.precondition_outputs(x, seen, at)
    torch.testing.assert_close(from_model(unet(), read)(x, t).x0, expected)


def test_a_network_under_edm_keeps_the_contract_of_denoisers() -> None:
    check_denoiser(from_model(unet(), scheduler("EDMEulerScheduler")), randn(3, 3, 8, 8))


def test_stable_audios_steps_are_read_with_their_noise() -> None:
    sampler = from_scheduler(CosineDPMSolverMultistepScheduler(), STEPS)
    assert sampler.solver == Multistep(2, eta=1.0)
    schedule = Training.of(CosineDPMSolverMultistepScheduler()).schedule
    sigmas = schedule.sigma(sampler.grid(schedule, STEPS, 1.0, 0.0))
    even = torch.linspace(math.log(500), math.log(0.3), STEPS, dtype=torch.float64).exp()
    torch.testing.assert_close(sigmas[:-1], even)
    assert sigmas[-1] == 0


def test_what_cannot_be_read_is_named() -> None:
    kind = "EDMDPMSolverMultistepScheduler"
    with pytest.raises(ValueError, match="steps must be at least 2 from sigma_max"):
        from_scheduler(scheduler(kind), 1)
    with pytest.raises(ValueError, match="prediction_type must be one of epsilon"):
        Training.of(scheduler(kind, prediction_type="sample"))
    with pytest.raises(ValueError, match="no prediction_type"):
        Training.of(scheduler(kind)).config()


@torch.no_grad()
def test_cosmos_2_is_a_flow_in_units_in_which_noise_is_piled_on_the_data() -> None:
    model = seeded(library().CosmosTransformer3DModel, **CASES["CosmosTransformer3DModel"].config)
    least, most, rho = 0.002, 80.0, 7
    ramp = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    sigmas = (most ** (1 / rho) + ramp * (least ** (1 / rho) - most ** (1 / rho))) ** rho
    x = start = most * randn(2, *FILM)
    for here, there in zip(sigmas[:-1], sigmas[1:], strict=True):  # as their pipeline writes it
        t = (here / (here + 1)).float()
        told = {"timestep": t.expand(2), "encoder_hidden_states": TEXT}
        out = model(hidden_states=x * (1 - t), return_dict=False, **told)[0]
        x0 = (1 - t) * x - t * out
        x = x + (x - x0) / here * (there - here)
    flow = library().FlowMatchEulerDiscreteScheduler()
    denoiser = from_model(model, flow).given(TEXT)
    first, last = most / (1 + most), least / (1 + least)
    snr = [-2 * float(torch.tensor(s).double().log()) for s in (most, least)]
    sampler = Sampler(DDIM(), STEPS - 1, Karras(7.0, *snr), first, last)
    got = sampler(denoiser, start / (1 + most)).x
    torch.testing.assert_close(got, x / (1 + least), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_two_experts_each_with_its_scale_are_the_loop_of_wan() -> None:
    kind, config = library().WanTransformer3DModel, CASES["WanTransformer3DModel"].config
    high, low = seeded(kind, **config), seeded(kind, **config)
    for p in low.parameters():
        p.mul_(1.5)
    null, x, ratio = 0 * TEXT, randn(2, *FILM), 0.75
    theirs = scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0)
    calls: list[str] = []

    def pipeline(x: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        noisy = bool(t >= ratio * theirs.config.num_train_timesteps)
        calls.append("high" if noisy else "low")
        model, scale = (high, 4.0) if noisy else (low, 3.0)
        with_text, without = (
            model(x, timestep=t.expand(2), encoder_hidden_states=c, return_dict=False)[0]
            for c in (TEXT, null)
        )
        return (without + scale * (with_text - without),)

    even = [1 - i / 6 for i in range(6)]  # one of which is shifted onto the boundary
    expected = loop(pipeline, theirs, x, 6, sigmas=even)
    assert set(calls) == {"high", "low"} and float(theirs.timesteps[3]) == 750.0

    def guided(scale: float) -> Any:
        def change(d: Denoiser) -> Denoiser:
            return CFG(d, TEXT, null, scale)

        return change

    both = from_experts(high, low, theirs, ratio, guided=(guided(4.0), guided(3.0)))
    got = from_scheduler(theirs, 6)(both, x).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    one = from_scheduler(theirs, 6)(guided(4.0)(from_model(high, theirs)), x).x
    assert (
        isinstance(one, Tensor) and float((one - expected).abs().max()) > 1e-3
    )  # the second says something of its own
    with pytest.raises(ValueError, match="boundary must lie between 0 and 1, got 875"):
        from_experts(high, low, theirs, 875)
