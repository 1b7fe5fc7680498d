"""Denoisers and solvers of ours in the place of models and schedulers of diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser, Prediction
from sciffusion.grid import FlowTime, Uniform
from sciffusion.interop.diffusers import (
    Network,
    Scheduler,
    Training,
    from_model,
    from_scheduler,
)
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.process import Gaussian
from sciffusion.samplers import DDIM, Ancestral, Heun, Multistep, Sampler, UniPC
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, Tabulated
from sciffusion.solver import Solver
from sciffusion.state import Value
from tests.core.tiny_diffusers import (
    clipless,
    library,
    loop,
    randn,
    scheduler,
    tiny_flux,
    tiny_vae,
    unet,
)


class Scaled(Denoiser):
    """The exact denoiser of Gaussian data of one mean and spread, in any shape."""

    def __init__(self, schedule: Schedule, mean: float = 0.3, spread: float = 0.7) -> None:
        super().__init__()
        self.process, self.mean, self.spread = Gaussian(schedule), mean, spread

    def forward(
        self, x_t: Value, t: Tensor, cond: Any = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        mean = self.mean if cond is None else cond.to(x_t)[:, None, None, None]
        alpha, sigma = (c.to(x_t) for c in self.process.clock(t))
        alpha, sigma = (c[:, None, None, None] if c.ndim else c for c in (alpha, sigma))
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)
        return Prediction(mean + gain * (x_t - alpha * mean), x_t, t, self.process)


SOLVERS: list[Solver] = [DDIM(), Multistep(2), Multistep(3), UniPC(2), Heun()]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("kind", ["table", "flow"])
def test_their_loop_with_our_scheduler_is_our_sampler(solver: Solver, kind: str) -> None:
    theirs = clipless() if kind == "table" else scheduler("FlowMatchEulerDiscreteScheduler")
    training, x = Training.of(theirs), randn(2, 3, 8, 8)
    got = loop(unet(), Scheduler(training, solver), x, 6)
    expected = Sampler(solver, 6, FlowTime())(from_model(unet(), theirs), x).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_their_pipeline_runs_with_our_scheduler() -> None:
    training = Training.of(clipless())
    pipeline = library().DDPMPipeline(unet(), Scheduler(training, Ancestral()))
    pipeline.set_progress_bar_config(disable=True)

    def run(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return pipeline(2, rng, num_inference_steps=4, output_type="pt", return_dict=False)[0]

    one = run(0)
    assert one.shape == (2, 3, 8, 8) and bool(one.isfinite().all())
    assert torch.equal(one, run(0)) and not torch.equal(one, run(1))


def test_the_pipeline_of_flux_runs_with_our_euler_as_with_its_own() -> None:
    pytest.importorskip("transformers")
    d, theirs = library(), scheduler("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True)
    network, vae = tiny_flux(), tiny_vae()
    start = d.FluxPipeline._pack_latents(randn(2, 4, 8, 8), 2, 4, 8, 8)

    def run(chosen: Any) -> Tensor:
        pipeline = d.FluxPipeline(chosen, vae, None, None, None, None, network)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=randn(2, 5, 12, seed=1),
            pooled_prompt_embeds=randn(2, 10, seed=2),
            height=16,
            width=16,
            num_inference_steps=4,
            latents=start,
            output_type="latent",
            return_dict=False,
        )[0]

    ours = run(Scheduler(Training.of(theirs), DDIM()))
    torch.testing.assert_close(ours, run(theirs), atol=1e-5, rtol=1e-5)


def test_a_run_leaves_nothing_to_the_next() -> None:
    training = Training.of(clipless())
    ours, x = Scheduler(training, Multistep(2)), randn(1, 3, 8, 8)
    alone = loop(unet(), ours, x, 5)
    ours.set_timesteps(5)
    other = randn(3, 2)  # another shape, given up half way
    for t in ours.timesteps[:3]:
        other = ours.step(other, t, other).prev_sample
    again = x
    for t in ours.timesteps:
        again = ours.step(unet()(again, t).sample, t, again).prev_sample
    assert torch.equal(again, alone)


def test_a_run_may_begin_in_the_middle() -> None:
    training, x = Training.of(clipless()), randn(2, 3, 8, 8)
    ours = Scheduler(training, Multistep(2), Uniform())
    ours.set_timesteps(8)
    got = ours.add_noise(x, randn(2, 3, 8, 8, seed=1), ours.timesteps[3])
    start = got
    for t in ours.timesteps[3:]:
        got = ours.step(unet()(got, t).sample, t, got).prev_sample
    sampler = Sampler(Multistep(2), 5, Uniform(), start=1 - 3 / 8)
    expected = sampler(from_model(unet(), clipless()), start).x
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_steps_out_of_turn_and_churn_are_refused() -> None:
    ours, x = Scheduler(Training.of(clipless()), DDIM()), randn(1, 2)
    with pytest.raises(ValueError, match="call set_timesteps"):
        ours.step(x, 3.0, x)
    ours.set_timesteps(5)
    with pytest.raises(ValueError, match="begins no step"):
        ours.step(x, 3.0, x)
    with pytest.raises(ValueError, match="give num_inference_steps or sigmas"):
        ours.set_timesteps()
    with pytest.raises(ValueError, match="set churn=0"):
        Scheduler(ours.training, Heun(churn=8.0)).set_timesteps(8)


def test_given_sigmas_and_a_shift_are_the_levels_of_the_run() -> None:
    flow = Training(RectifiedFlow(), "flow")
    ours = Scheduler(flow, DDIM())
    ours.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=1.0)
    theirs = scheduler("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True)
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=1.0)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, atol=1e-3, rtol=0)


def test_noise_comes_from_one_generator_or_one_a_sample() -> None:
    ours, x = Scheduler(Training.of(clipless()), DDIM(1.0)), randn(2, 3, seed=4)
    ours.set_timesteps(4)
    t = ours.timesteps[0]

    def draw(*seeds: int) -> Tensor:
        rngs = [torch.Generator().manual_seed(s) for s in seeds]
        return ours.step(x[: len(seeds)], t, x[: len(seeds)], rngs).prev_sample

    torch.testing.assert_close(draw(5, 6)[:1], draw(5))
    with pytest.raises(ValueError, match="list of 3 for a batch of 2"):
        ours.step(x, t, x, [torch.Generator()] * 3)


@pytest.mark.parametrize("schedule", [VP(), Cosine(), RectifiedFlow()], ids=str)
def test_their_schedulers_sample_our_model_as_we_do(schedule: Schedule) -> None:
    training = Training.like(schedule, "v")
    model = Network(Scaled(schedule), 3, 8, training)
    flow = isinstance(schedule, RectifiedFlow)
    told = training.config()
    theirs = (
        scheduler("FlowMatchEulerDiscreteScheduler", **told)
        if flow
        else scheduler("DDIMScheduler", clip_sample=False, timestep_spacing="trailing", **told)
    )
    x = randn(4, 3, 8, 8)
    options = {"sigmas": [1 - i / 8 for i in range(8)]} if flow else {}
    got = loop(model, theirs, x, 8, **options)
    exact = Scaled(training.schedule)
    expected = from_scheduler(theirs, 8)(exact, x).x
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


def test_a_model_of_ours_is_shown_on_another_schedule_at_the_same_noise_level() -> None:
    # exact whatever the schedule it is shown on: the mean of the data given the sample
    shown = Training.of(clipless())
    model, x = Network(Scaled(VE()), 3, 8, shown), randn(4, 3, 8, 8)
    for step in (0, 10, 400, 700):
        got = model(x, step).sample
        t = shown.time(step)
        target = Scaled(shown.schedule)(x, t).to("v")
        torch.testing.assert_close(got, target, atol=2e-4, rtol=1e-4)


def test_classes_and_texts_are_the_condition() -> None:
    model, x = Network(Scaled(VP()), 3, 8), randn(2, 3, 8, 8)
    means = torch.tensor([0.0, 5.0])
    by_class = model(x, 500, class_labels=means, return_dict=False)[0]
    by_text = model(x, 500, means).sample
    assert torch.equal(by_class, by_text) and not torch.equal(by_class, model(x, 500).sample)
    each = torch.cat([model(x[i : i + 1], 500, means[i : i + 1]).sample for i in (0, 1)])
    torch.testing.assert_close(by_text, each)
    with pytest.raises(ValueError, match="one condition"):
        model(x, 500, means, means)


def test_every_sample_may_have_a_timestep_of_its_own() -> None:
    model, x = Network(Scaled(VP()), 3, 8), randn(2, 3, 8, 8)
    both = model(x, torch.tensor([100, 900])).sample
    each = torch.cat([model(x[:1], 100).sample, model(x[1:], 900).sample])
    torch.testing.assert_close(both, each)
    with pytest.raises(ValueError, match="timestep must lie between 0 and 999"):
        model(x, 1000)


def test_their_pipeline_runs_our_model() -> None:
    model = Network(Scaled(Cosine(), 0.5, 0.1), 3, (8, 4))
    theirs = scheduler("DDPMScheduler", clip_sample=False, **model.shown.config())
    pipeline = library().DDPMPipeline(model, theirs)
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    images = pipeline(16, rng, num_inference_steps=50, output_type="pt", return_dict=False)[0]
    assert images.shape == (16, 3, 8, 4)
    assert float(images.mean()) == pytest.approx(0.75, abs=0.02)  # pixels are (x + 1) / 2


def test_only_what_they_know_is_told() -> None:
    with pytest.raises(ValueError, match="must be variance preserving or RectifiedFlow"):
        Training.like(VE(), "v")
    with pytest.raises(ValueError, match="no prediction_type"):
        Training(Tabulated(torch.tensor([0.9, 0.5, 0.1])), "score").config()
    assert Training.like(RectifiedFlow(), "x0").target == "flow"


def test_oracle_and_scaled_agree() -> None:
    # the stand-in above is the oracle of the core, in a shape that is no vector
    scaled = Scaled(VP())
    exact = GaussianOracle(torch.full((3,), 0.3), 0.49 * torch.eye(3), scaled.process)
    x, t = randn(5, 3), torch.tensor(0.4)
    flat = scaled(x[:, :, None, None], t).x0
    assert isinstance(flat, Tensor)
    torch.testing.assert_close(flat[:, :, 0, 0], exact(x, t).x0)
