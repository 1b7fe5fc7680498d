"""Schedulers of diffusers as samplers: the trajectory of their own loop, and what has no counterpart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sciffusion.interop.diffusers import (
    Call,
    Training,
    from_model,
    from_scheduler,
)
from sciffusion.samplers import UniPC
from sciffusion.schedule import RectifiedFlow
from tests.core.tiny_diffusers import clipless, library, loop, randn, scheduler, unet

V = "v_prediction"
STEPS = 7


SAME: dict[str, Callable[[], Any]] = {
    "ddim": lambda: clipless(),
    "ddim, to the first level": lambda: clipless(set_alpha_to_one=False, steps_offset=1),
    "ddim, latent diffusion": lambda: clipless(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    ),
    "ddim, cosine": lambda: clipless(beta_schedule="squaredcos_cap_v2"),
    "ddim, cogvideox": lambda: scheduler(
        "CogVideoXDDIMScheduler",
        clip_sample=False,
        prediction_type=V,
        snr_shift_scale=3.0,
        rescale_betas_zero_snr=True,
    ),
    "euler": lambda: scheduler(
        "EulerDiscreteScheduler", prediction_type=V, timestep_spacing="trailing"
    ),
    "euler, karras": lambda: scheduler(
        "EulerDiscreteScheduler",
        prediction_type=V,
        timestep_spacing="trailing",
        use_karras_sigmas=True,
    ),
    "dpm++ 2m": lambda: scheduler("DPMSolverMultistepScheduler", prediction_type=V),
    "dpm++ 2m, x0": lambda: scheduler(
        "DPMSolverMultistepScheduler", prediction_type="sample", timestep_spacing="trailing"
    ),
    "dpm++ 2m, heun": lambda: scheduler(
        "DPMSolverMultistepScheduler", prediction_type=V, solver_type="heun"
    ),
    "unipc": lambda: scheduler("UniPCMultistepScheduler", prediction_type=V),
    "unipc, x0": lambda: scheduler(
        "UniPCMultistepScheduler", prediction_type="sample", timestep_spacing="leading"
    ),
    "unipc 1": lambda: scheduler("UniPCMultistepScheduler", prediction_type=V, solver_order=1),
    "heun": lambda: scheduler(
        "HeunDiscreteScheduler", prediction_type=V, timestep_spacing="trailing"
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_trajectory_is_that_of_their_loop(case: str) -> None:
    theirs = SAME[case]()
    x = randn(2, 3, 8, 8)
    expected = loop(unet(), theirs, x, STEPS)
    start = x
    if float(theirs.init_noise_sigma) != 1.0:  # theirs begins in units in which alpha is 1
        start = x * float(theirs.init_noise_sigma) / float((1 + theirs.sigmas[0] ** 2) ** 0.5)
    got = from_scheduler(theirs, STEPS)(from_model(unet(), theirs), start).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_values_that_grow_are_followed_relative_to_their_size() -> None:
    theirs = scheduler(
        "DDIMScheduler", clip_sample=False
    )  # eps of an untrained network blows x0 up
    x = randn(2, 3, 8, 8)
    expected = loop(unet(), theirs, x, STEPS)
    got = from_scheduler(theirs, STEPS)(from_model(unet(), theirs), x).x
    size = float(expected.abs().max())
    torch.testing.assert_close(got, expected, atol=1e-5 * size, rtol=0)


RULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]
)
def test_a_rule_of_sigmas_is_that_of_their_loop(name: str, rule: str) -> None:
    flow = name.startswith("Flow")
    config = {"shift": 3.0} if flow else {"prediction_type": V, "timestep_spacing": "trailing"}
    theirs, x = scheduler(name, **{rule: True}, **config), randn(2, 3, 8, 8)
    options = {"sigmas": [1 - i / STEPS for i in range(STEPS)]} if flow else {}
    expected = loop(unet(), theirs, x, STEPS, **options)
    start = x
    if not flow:  # theirs begins in units in which alpha is 1
        start = x * float(theirs.init_noise_sigma) / float((1 + theirs.sigmas[0] ** 2) ** 0.5)
    got = from_scheduler(theirs, STEPS)(from_model(unet(), theirs), start).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


TABLE = {"trained_betas": torch.linspace(2**-7, 0.02, 1000).tolist()}
"""A table whose first level float32 holds exactly: theirs is computed in it, and 1 - alpha^2 cancels there."""
MULTISTEP: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"dpm++ 2m, {r}": ("DPMSolverMultistepScheduler", {r: True}) for r in RULES},
    "dpm++ 2m, lu": ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
    "unipc, beta": ("UniPCMultistepScheduler", {"use_beta_sigmas": True}),
    "unipc, a flow": ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 3.0}),
    "unipc, a flow, karras": (
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": True, "use_karras_sigmas": True},
    ),
}


@pytest.mark.parametrize("case", MULTISTEP)
def test_multistep_runs_are_theirs_where_the_network_is_told_the_level_it_is_at(case: str) -> None:
    """Theirs round the step that the network is told; here it is told that of the solver's own level."""
    name, config = MULTISTEP[case]
    kind = "flow_prediction" if "flow" in case else V
    theirs = scheduler(name, prediction_type=kind, **TABLE, **config)
    x = randn(2, 3, 8, 8)
    training = Training.of(theirs)

    def told(x: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        sigma = theirs.sigmas[theirs.step_index or 0].double()
        flow = isinstance(training.schedule, RectifiedFlow)
        time = sigma if flow else training.schedule.time(-2 * sigma.log())
        return (unet()(x, training.step(time).float()).sample,)

    expected = loop(told, theirs, x, STEPS)
    got = from_scheduler(theirs, STEPS)(from_model(unet(), theirs), x).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_shifted_once_is_their_loop_at_sigmas_given(shift: float) -> None:
    theirs = scheduler("FlowMatchEulerDiscreteScheduler", shift=shift)
    x, even = randn(2, 3, 8, 8), [1 - i / STEPS for i in range(STEPS)]
    expected = loop(unet(), theirs, x, STEPS, sigmas=even)
    got = from_scheduler(theirs, STEPS)(from_model(unet(), theirs), x).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_shift_by_the_length_of_the_sequence_is_their_pipelines() -> None:
    theirs = scheduler(
        "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True, shift_terminal=0.1
    )
    tokens, few, many = 1024, 256, 4096
    mu = 0.5 + (tokens - few) * (1.15 - 0.5) / (many - few)
    theirs.set_timesteps(sigmas=[1 - i / STEPS for i in range(STEPS)], mu=mu)
    sampler = from_scheduler(theirs, STEPS, tokens=tokens)
    times = sampler.grid(RectifiedFlow(), STEPS, 1.0, 0.0)
    torch.testing.assert_close(times.float(), theirs.sigmas, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="tokens is missing"):
        from_scheduler(theirs, STEPS)


def test_the_network_is_told_the_level_that_the_solver_is_at() -> None:
    theirs = scheduler("DPMSolverMultistepScheduler", use_karras_sigmas=True, prediction_type=V)
    training, asked = Training.of(theirs), []
    sampler = from_scheduler(theirs, 40)

    class Asked(torch.nn.Module):
        config = library().configuration_utils.FrozenDict({})

        def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool) -> tuple[Tensor]:
            asked.append(float(timestep[0]))
            return (sample,)

    sampler(from_model(Asked(), theirs, call=Call("sample")), randn(1, 2))
    times = [w.nodes[0] for w in sampler.windows(training.process)]
    expected = [float(training.step(t)) for t in times]
    assert len(asked) == 40 and asked == pytest.approx(expected, abs=1e-3)


def test_the_schedule_is_their_table() -> None:
    for theirs in (clipless(beta_schedule="squaredcos_cap_v2"), scheduler("DDPMScheduler")):
        training = Training.of(theirs)
        steps = torch.arange(1000)
        alpha = training.schedule.alpha(training.time(steps))
        table = theirs.alphas_cumprod.double()
        torch.testing.assert_close(alpha**2, table, atol=2e-6, rtol=1e-4)
        torch.testing.assert_close(training.step(training.time(steps)), steps.double())


def test_a_table_without_signal_at_its_end_is_one() -> None:
    theirs = clipless(rescale_betas_zero_snr=True)
    training = Training.of(theirs)
    assert training.schedule.terminal_snr == 0
    got = training.schedule.alpha(training.time(torch.arange(1000))) ** 2
    torch.testing.assert_close(got, theirs.alphas_cumprod.double(), atol=2e-6, rtol=1e-4)


def test_a_configuration_alone_is_as_good_as_its_scheduler() -> None:
    config = {"_class_name": "UniPCMultistepScheduler", "prediction_type": V}
    theirs = scheduler("UniPCMultistepScheduler", prediction_type=V)
    sampler, other = from_scheduler(config, 5), from_scheduler(theirs, 5)
    process = Training.of(config).process
    assert sampler.windows(process) == other.windows(process)
    assert sampler.solver == other.solver


def test_ancestral_sampling_has_their_variance() -> None:
    small = scheduler("DDPMScheduler", variance_type="fixed_small")
    large = scheduler("DDPMScheduler", variance_type="fixed_large")
    for theirs in (small, large):
        theirs.set_timesteps(10)
        sampler, training = from_scheduler(theirs, 10), Training.of(theirs)
        moves = training.process.compile(sampler.solver, sampler.windows(training.process))
        for t, (_, (rule,)) in zip(theirs.timesteps[:-1], moves[:-1], strict=True):
            expected = float(theirs._get_variance(int(t)))
            assert rule.noise**2 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "KDPM2DiscreteScheduler"}, "is not one of CogVideoX"),
        ({"_class_name": "AutoencoderKL"}, "names no scheduler"),
        ({}, "names no scheduler"),
        (
            {"_class_name": "CMStochasticIterativeScheduler"},
            "has neither betas nor a flow|is not one of",
        ),
        ({"_class_name": "DPMSolverMultistepScheduler", "thresholding": True}, "thresholding=True"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -5.1},
            "lambda_min_clipped=-5.1",
        ),
        ({"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0=False"),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "timestep_type='continuous'",
        ),
        (
            {
                "_class_name": "UniPCMultistepScheduler",
                "use_flow_sigmas": True,
                "use_beta_sigmas": True,
            },
            "beta sigmas of UniPCMultistepScheduler are not levels of a flow",
        ),
        (
            {
                "_class_name": "EulerDiscreteScheduler",
                "use_karras_sigmas": True,
                "rescale_betas_zero_snr": True,
            },
            "no greatest sigma",
        ),
        (
            {
                "_class_name": "DPMSolverMultistepScheduler",
                "algorithm_type": "dpmsolver",
                "final_sigmas_type": "sigma_min",
            },
            "algorithm_type 'dpmsolver'",
        ),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "learned variance"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": True},
            "stochastic_sampling",
        ),
    ],
)
def test_what_has_no_counterpart_is_named(config: dict[str, Any], message: str) -> None:
    library()
    with pytest.raises(ValueError, match=message):
        from_scheduler(config, 5)


def test_a_solver_of_ours_runs_on_their_grid() -> None:
    theirs = scheduler("PNDMScheduler", skip_prk_steps=True)
    assert from_scheduler(theirs, 5, solver=UniPC(2)).solver == UniPC(2)
    with pytest.raises(ValueError, match="steps must be between 1 and 1000, got 1001"):
        from_scheduler(theirs, 1001)
