"""Our denoisers and solvers in the place of their models and schedulers, for their pipelines and loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from sciffusion.denoiser import Denoiser
from sciffusion.errors import require
from sciffusion.grid import FlowTime, Grid, Times
from sciffusion.interop.diffusers.training import Training
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.samplers import Sampler
from sciffusion.samplers.sampler import Plan
from sciffusion.schedule import RectifiedFlow
from sciffusion.solver import Solver
from sciffusion.state import Value

__all__ = ["Network", "Scheduler"]


def _frozen(**values: Any) -> Any:
    """A configuration of their kind: a mapping whose entries are attributes too."""
    return require("diffusers.configuration_utils", extra="diffusers").FrozenDict(values)


@final
class Network(nn.Module):
    """A denoiser of ours as a model of theirs: ``network(sample, timestep).sample`` predicts what ``training`` says.

    Any scheduler of theirs runs it whose configuration says the same, ``DDIMScheduler(**training.config())`` for one.
    The noise level is what is handed over: the sample is rescaled to the level's place on the schedule that the
    denoiser knows, so both schedules may differ, and levels beyond the ends of the denoiser's count as its ends.

    Args:
        denoiser: of one tensor (B, channels, ...).
        channels: of the field.
        size: of the field behind its channels; one number for a square.
        training: the schedule, prediction and clock to show; by default the nearest to the denoiser's own, predicting v
            (rectified flow: the flow).

    Raises:
        ValueError: for the default ``training``, on a schedule that their library does not know.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        channels: int,
        size: int | Sequence[int],
        training: Training | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.shown = training or Training.like(denoiser.process.clock, "v")
        size = size if isinstance(size, int) else tuple(size)
        self.config = _frozen(in_channels=channels, out_channels=channels, sample_size=size)

    @property
    def dtype(self) -> torch.dtype:
        """That of its weights."""
        floats = (p.dtype for p in self.parameters() if p.is_floating_point())
        return next(floats, torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The prediction, in their output class, or as a tuple without ``return_dict``.

        Classes, or else encoded texts, become the denoiser's condition. Raises ``ValueError`` for both at once.
        """
        if encoder_hidden_states is not None and class_labels is not None:
            raise ValueError(
                "give encoder_hidden_states or class_labels, a denoiser has one condition"
            )
        cond = class_labels if encoder_hidden_states is None else encoder_hidden_states
        layout, shown, clock = Dense(len(sample)), self.shown.process, self.denoiser.process.clock
        t = self.shown.time(timestep).cpu()
        t = t[0] if t.numel() == 1 and t.ndim == 1 else t
        level = shown.schedule.log_snr(t)
        own = clock.time(level).clamp(0, 1)
        # at one noise level the two schedules hold the same value in different units
        unit = (torch.hypot(*clock(own)) / torch.hypot(*shown.schedule(t))).to(sample)
        x = sample * layout.expand(unit, sample)
        x0 = self._tensor(self.denoiser(x, own.to(sample.device), cond).x0)
        target = self.shown.target
        out = shown.convert(x0, sample, t.to(sample.device), layout, src="x0", dst=target)
        if not return_dict:
            return (out,)
        return require("diffusers.models.unets.unet_2d", extra="diffusers").UNet2DOutput(sample=out)

    @staticmethod
    def _tensor(value: Value) -> Tensor:
        if not isinstance(value, Tensor):
            raise ValueError("denoiser predicts a state; their models take one tensor")
        return value


@dataclass
class _Run:
    """One run of a scheduler, from its first step on."""

    plan: Plan
    step: int = 0
    stage: int = 0
    base: Tensor | None = None
    known: tuple[tuple[Tensor, Tensor], ...] = field(default_factory=tuple)

    @property
    def time(self) -> float | None:
        """Of the next evaluation; None when the run is over."""
        times = self.plan.times
        return float(times[self.step][self.stage]) if self.step < len(times) else None


@final
class Scheduler:
    """A solver of ours as a scheduler of theirs: ``set_timesteps``, ``step``, ``add_noise``, and what loops ask for.

    It works for any model trained as ``training`` says. ``timesteps`` lists every evaluation, so solvers with several a
    step run too. A run begins with the first timestep that does not follow the last call's, at the start of any step:
    nothing of an earlier batch is left, and image-to-image pipelines may begin in the middle. Samples have variance 1
    at the first step (``init_noise_sigma``) on flows and tables alike.

    Args:
        training: what the model was trained on; ``Training.of(scheduler)`` reads it from theirs.
        solver: any but those that raise the noise at the start of a step (churn), and restarts.
        grid: of the times from 1 to 0.
    """

    init_noise_sigma = 1.0

    def __init__(self, training: Training, solver: Solver, grid: Grid | None = None) -> None:
        self.training, self.solver, self.grid = training, solver, grid or FlowTime()
        self.order = solver.evaluations  # theirs counts evaluations a step by this name
        self.num_inference_steps: int | None = None
        self.timesteps = training.step(torch.linspace(1, 0, training.steps + 1)[:-1]).float()
        self.config = _frozen(**_told(training))
        self.begin_index: int | None = None
        self._times = torch.empty(0)
        self._run: _Run | None = None

    def __len__(self) -> int:
        return self.training.steps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Lay out the steps: by the grid, or at given ``sigmas`` (flow times, from 1 downwards, without the final 0).

        ``mu`` shifts either by :math:`e^{mu}`, as pipelines of flows ask for. Raises ``ValueError`` if there is neither
        number nor sigmas, and for a solver with churn.
        """
        if sigmas is None and num_inference_steps is None:
            raise ValueError("give num_inference_steps or sigmas")
        schedule, flow = self.training.schedule, RectifiedFlow()
        if sigmas is not None:
            even = torch.as_tensor([*sigmas, 0.0], dtype=torch.float64)
            times = schedule.time(flow.log_snr(even))
            times[-1] = 0.0
        else:
            times = self.grid(schedule, int(num_inference_steps or 0))
        if mu is not None:
            inner = schedule.log_snr(times[1:-1]) - 2 * mu
            times = torch.cat([times[:1], schedule.time(inner), times[-1:]])
        sampler = self._sampler(times, 0)
        windows = sampler.windows(self.training.process)
        if any(w.nodes[0] != w.start for w in windows):
            raise ValueError(
                f"{self.solver} raises the noise before its steps, for which their loops have no place; set churn=0"
            )
        nodes = torch.tensor([t for w in windows for t in w.nodes], dtype=torch.float64)
        self._times, self._run = times, None
        self.num_inference_steps = len(times) - 1
        self.timesteps = self.training.step(nodes).float().to(device or "cpu")

    def _sampler(self, times: Tensor, first: int) -> Sampler:
        rest = times[first:]
        steps, ends = len(rest) - 1, (float(rest[0]), float(rest[-1]))
        return Sampler(self.solver, steps, Times(rest), *ends)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Taken note of; a run begins at the timestep that it is first asked for."""
        self.begin_index = begin_index

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """The sample itself: it is on the schedule that the model was trained on."""
        return sample

    def _begin(self, timestep: float, sample: Tensor) -> _Run:
        starts = self.training.step(self._times[:-1])
        near = (starts - timestep).abs()
        first = int(near.argmin()) if len(near) else 0
        if not len(near) or not _same(float(starts[first]), timestep):
            raise ValueError(
                f"timestep {timestep} does not follow the last call's and begins no step; call set_timesteps, then "
                f"step through timesteps in order ({self.timesteps[:4].tolist()} ...)"
            )
        return _Run(self._sampler(self._times, first).plan(self.training.process, sample))

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next timestep, in their output class with the predicted data, or as a tuple.

        ``generator`` seeds the noise of stochastic solvers: one, or one a sample. Raises ``ValueError`` for a timestep
        out of turn.
        """
        asked, process = float(timestep), self.training.process
        run, batch = self._run, len(sample)
        due = None if run is None or run.time is None else float(self.training.step(run.time))
        if run is None or due is None or not _same(due, asked):
            run = self._begin(asked, sample)
        t = torch.tensor(run.time, dtype=torch.float64)
        x, layout = sample.to(torch.promote_types(sample.dtype, torch.float32)), Dense(batch)
        raw = model_output.to(x.dtype)
        x0 = process.convert(raw, x, t, layout, src=self.training.target, dst="x0")
        base = x if run.stage == 0 or run.base is None else run.base
        known = ((x, x0), *run.known)
        moves = [m[run.step] for m in run.plan.moves]
        noise = _noise(generator, batch) if self.solver.stochastic else Noise(0)
        out = Sampler.advance(process, moves, run.stage, base, known, noise)
        done = run.stage + 1 == len(run.plan.times[run.step])
        keep = max(1, self.solver.history) if done else len(known)
        after = (run.step + 1, 0) if done else (run.step, run.stage + 1)
        self._run = _Run(run.plan, *after, None if done else base, known[:keep])
        out, x0 = out.to(sample.dtype), x0.to(sample.dtype)  # type: ignore[union-attr]
        if not return_dict:
            return (out, x0)
        module = require("diffusers.schedulers.scheduling_ddim", extra="diffusers")
        return module.DDIMSchedulerOutput(prev_sample=out, pred_original_sample=x0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Data noised to the timesteps, () or (B,)."""
        t, layout = self.training.time(timesteps), Dense(len(original_samples))
        alpha, sigma = (
            layout.expand(c.to(original_samples), original_samples)
            for c in self.training.schedule(t)
        )
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """:meth:`add_noise` by the name that pipelines of flows use."""
        return self.add_noise(sample, noise, timestep)


def _told(training: Training) -> dict[str, Any]:
    config = training.config()
    config.pop("trained_betas", None)
    return config | {"prediction_type": config.get("prediction_type", "flow_prediction")}


def _same(one: float, other: float) -> bool:
    """Whether two timesteps are the same but for their rounding."""
    return abs(one - other) <= 1e-3


def _noise(generator: torch.Generator | Sequence[torch.Generator] | None, batch: int) -> Noise:
    """A stream, or one a sample, seeded by the next number of their generators."""

    def seed(one: torch.Generator | None) -> int:
        device = "cpu" if one is None else one.device
        return int(torch.randint(2**62, (), generator=one, device=device))

    if generator is None or isinstance(generator, torch.Generator):
        return Noise(seed(generator))
    if len(generator) != batch:
        raise ValueError(f"generator is a list of {len(generator)} for a batch of {batch}")
    return Noise([seed(one) for one in generator])
