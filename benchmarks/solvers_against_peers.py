"""How many denoiser calls a solver needs: ours against diffusers' and azula's of the same name, on a mixture.

    PYTHONPATH=/tmp/peers python benchmarks/solvers_against_peers.py

Everybody denoises exactly, by the closed form at the noise level at which the library evaluates, and starts from the
same evenly spread normal numbers. The distance is the sliced Wasserstein-1 distance of the samples to the mixture.
Every library may use the best of its own grids at every number of steps; a figure is the least number of calls from
which on the distance stays below the threshold at all tried numbers of steps. The time is what the library spends for
each call of a network that returns its input, in runs of 30 steps on a batch of 64 x 9.

Peers are measured where they are installed, and skipped with a message elsewhere:

    pip install --no-deps --target /tmp/peers diffusers==0.42.1 azula==0.11.1 huggingface_hub httpx2 httpcore2 \\
        truststore h11 einops
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import environment, interleave, ratio, write
from mixture import SCHEDULE, Truth, exact, posterior_mean, start
from torch import Tensor

from sciffusion.denoiser import Denoiser, Prediction
from sciffusion.grid import Beta, FlowTime, Grid, Karras, LogSNR, Power
from sciffusion.noise import Noise
from sciffusion.process import Gaussian
from sciffusion.samplers import (
    DDIM,
    DEIS,
    LMS,
    Ancestral,
    Heun,
    Multistep,
    Sampler,
    SASolver,
    Singlestep,
    UniPC,
)
from sciffusion.solver import Solver
from sciffusion.state import Value

STEPS = (4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 80, 100, 150, 200)
THRESHOLDS = (0.1, 0.05, 0.03)

Mean = Callable[[Tensor, float, float], Tensor]
"""A denoiser: the value, alpha and sigma."""


@dataclass(frozen=True)
class Contender:
    """A solver of a library with one of its grids: ``run(steps, x, mean) -> samples``."""

    package: str
    grid: str
    run: Callable[[int, Tensor, Mean], Tensor]


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, mean: Mean) -> None:
        self.mean, self.calls = mean, 0

    def __call__(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        self.calls += 1
        return self.mean(x, alpha, sigma)


def identity(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """A network that costs nothing."""
    return x


class Ours(Denoiser):
    """Our loop around a function of the value and the noise level."""

    def __init__(self, mean: Mean) -> None:
        super().__init__()
        self.mean, self.process = mean, Gaussian(SCHEDULE)

    def forward(
        self, x_t: Value, t: Tensor, cond: Any = None, previous: Value | None = None
    ) -> Prediction:
        """The function's value."""
        assert isinstance(x_t, Tensor)
        alpha, sigma = (float(c) for c in SCHEDULE(t))
        return Prediction(self.mean(x_t, alpha, sigma), x_t, t, self.process)


def ours(solver: Solver) -> list[Contender]:
    """Our solver on our grids."""

    def contender(label: str, grid: Grid) -> Contender:
        def run(steps: int, x: Tensor, mean: Mean) -> Tensor:
            x = x * float(SCHEDULE.sigma(1.0))
            end = Sampler(solver, steps, grid)(Ours(mean), x, Noise(1)).x
            assert isinstance(end, Tensor)
            return end

        return Contender("sciffusion", label, run)

    return [
        contender("FlowTime", FlowTime()),
        contender("LogSNR", LogSNR()),
        contender("LogSNR(-8, 8)", LogSNR(-8.0, 8.0)),
        contender("Karras", Karras()),
        contender("Power(2)", Power(2.0)),
        contender("Beta", Beta()),
    ]


def diffusers(name: str, grids: Sequence[str] = ("",), **settings: object) -> list[Contender]:
    """A scheduler of diffusers with each of the grids that it offers."""
    import diffusers as library

    library.utils.logging.set_verbosity_error()

    def contender(grid: str) -> Contender:
        option = "use_lu_lambdas" if grid == "lu" else f"use_{grid}_sigmas"
        more = {option: True} if grid else {}

        def run(steps: int, x: Tensor, mean: Mean) -> Tensor:
            torch.manual_seed(1)
            scheduler = getattr(library, name)(prediction_type="epsilon", **settings, **more)
            log_snr = torch.log(
                scheduler.alphas_cumprod.double() / (1 - scheduler.alphas_cumprod.double())
            )
            scheduler.set_timesteps(steps)
            x = x * float(scheduler.init_noise_sigma)
            for t in scheduler.timesteps:
                value = scheduler.scale_model_input(x, t)
                low = min(int(math.floor(float(t))), len(log_snr) - 2)
                level = torch.lerp(
                    log_snr[low], log_snr[low + 1], torch.tensor(float(t) - low).double()
                )
                alpha, sigma = float(level.sigmoid().sqrt()), float((-level).sigmoid().sqrt())
                eps = (value - alpha * mean(value, alpha, sigma)) / sigma
                x = scheduler.step(eps, t, x, return_dict=False)[0]
            return x

        return Contender("diffusers", grid or "default", run)

    return [contender(grid) for grid in grids]


def azula(name: str, **settings: object) -> list[Contender]:
    """A sampler of azula."""
    import azula.sample as library
    from azula.denoise import Denoiser as Base
    from azula.denoise import DiracPosterior
    from azula.noise import VPSchedule

    schedule = VPSchedule(alpha_min=math.exp(-0.5 * 10.05), sigma_min=1e-3)

    class Peer(Base):
        def __init__(self, mean: Mean) -> None:
            super().__init__()
            self.mean, self.schedule = mean, schedule

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> DiracPosterior:
            alpha, sigma = (float(c) for c in schedule(t))
            return DiracPosterior(mean=self.mean(x_t, alpha, sigma))

    def run(steps: int, x: Tensor, mean: Mean) -> Tensor:
        torch.manual_seed(1)
        sampler = getattr(library, name)(Peer(mean), steps=steps, silent=True, **settings)
        return sampler(x * float(schedule(torch.ones(()))[1]))

    return [Contender("azula", "uniform", run)]


SPACED = ("", "karras", "exponential", "beta")


def contenders() -> dict[str, list[Callable[[], list[Contender]]]]:
    """By the solver's common name, all who have it."""
    trailing = {"timestep_spacing": "trailing"}
    return {
        "DDIM": [
            lambda: ours(DDIM()),
            lambda: (
                diffusers("DDIMScheduler", clip_sample=False)
                + diffusers("DDIMScheduler", clip_sample=False, **trailing)
            ),
            lambda: azula("DDIMSampler"),
        ],
        "Euler": [
            lambda: ours(DDIM()),
            lambda: diffusers("EulerDiscreteScheduler", SPACED),
            lambda: azula("EulerSampler"),
        ],
        "Heun": [
            lambda: ours(Heun()),
            lambda: diffusers("HeunDiscreteScheduler", SPACED),
            lambda: azula("HeunSampler"),
        ],
        "DPM-Solver++ 2M": [
            lambda: ours(Multistep(2)),
            lambda: diffusers("DPMSolverMultistepScheduler", (*SPACED, "lu"), solver_order=2),
            lambda: azula("xEABSampler", order=2),
        ],
        "DPM-Solver++ 3M": [
            lambda: ours(Multistep(3)),
            lambda: diffusers("DPMSolverMultistepScheduler", (*SPACED, "lu"), solver_order=3),
            lambda: azula("xEABSampler", order=3),
        ],
        "DPM-Solver++ 2S": [
            lambda: ours(Singlestep(2)),
            lambda: diffusers("DPMSolverSinglestepScheduler", SPACED, solver_order=2),
        ],
        "UniPC-2": [
            lambda: ours(UniPC(2)),
            lambda: diffusers("UniPCMultistepScheduler", SPACED, solver_order=2),
        ],
        "UniPC-3": [
            lambda: ours(UniPC(3)),
            lambda: diffusers("UniPCMultistepScheduler", SPACED, solver_order=3),
        ],
        "DEIS-2": [
            lambda: ours(DEIS(2)),
            lambda: diffusers("DEISMultistepScheduler", SPACED, solver_order=2),
        ],
        "DEIS-3": [
            lambda: ours(DEIS(3)),
            lambda: diffusers("DEISMultistepScheduler", SPACED, solver_order=3),
        ],
        "LMS": [
            lambda: ours(LMS(3)),
            lambda: diffusers("LMSDiscreteScheduler", SPACED),
            lambda: azula("zABSampler", order=3),
        ],
        "DDPM": [
            lambda: ours(Ancestral()),
            lambda: (
                diffusers("DDPMScheduler", clip_sample=False)
                + diffusers("DDPMScheduler", clip_sample=False, **trailing)
            ),
            lambda: azula("DDPMSampler"),
        ],
        "DPM-Solver++ 2M SDE": [
            lambda: ours(Multistep(2, 1.0)),
            lambda: diffusers(
                "DPMSolverMultistepScheduler",
                (*SPACED, "lu"),
                solver_order=2,
                algorithm_type="sde-dpmsolver++",
            ),
        ],
        "SA-Solver": [
            lambda: ours(SASolver()),
            lambda: diffusers("SASolverScheduler", SPACED),
        ],
    }


def curve(contender: Contender, x: Tensor, truth: Truth) -> dict[int, float]:
    """The distance by the number of calls; runs that fail or overflow are infinitely far."""
    out: dict[int, float] = {}
    for steps in STEPS:
        mean = Counted(posterior_mean)
        try:
            end = contender.run(steps, x, mean)
        except (ValueError, IndexError, RuntimeError):
            continue
        far = truth.distance(end) if bool(end.isfinite().all()) else math.inf
        out[mean.calls] = min(far, out.get(mean.calls, math.inf))
    return out


def calls_needed(curves: Sequence[dict[int, float]], threshold: float) -> int | None:
    """The least number of calls from which on the best grid stays below the threshold."""
    best: dict[int, float] = {}
    for c in curves:
        for n, far in c.items():
            best[n] = min(far, best.get(n, math.inf))
    least = None
    for n in sorted(best, reverse=True):
        if best[n] > threshold:
            break
        least = n
    return least


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.03, help="at least, per measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of solvers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/solvers"))
    args = parser.parse_args()
    torch.set_num_threads(1)

    generator = torch.Generator().manual_seed(args.seed)
    truth, x = Truth(args.samples, args.seed), start(args.samples, args.seed)
    small = torch.randn(64, 9, generator=generator)
    floor = truth.distance(exact().sample(args.samples, generator))
    results: dict[str, Any] = {"floor": floor}
    lines = []
    for name, makers in contenders().items():
        if args.only and name not in args.only:
            continue
        found: list[Contender] = []
        for make in makers:
            try:
                found += make()
            except ImportError as error:
                print(f"{error.name} is skipped; the head of this file says how to install it")
        curves = {f"{c.package}, {c.grid}": curve(c, x, truth) for c in found}
        libraries = list(dict.fromkeys(c.package for c in found))
        first = {lib: next(c for c in found if c.package == lib) for lib in libraries}
        runs = {lib: (lambda c=c: c.run(30, small, identity)) for lib, c in first.items()}
        calls = {}
        for lib, c in first.items():
            counted = Counted(identity)
            c.run(30, small, counted)
            calls[lib] = counted.calls
        times = {
            lib: [t / calls[lib] for t in seconds]
            for lib, seconds in interleave(runs, args.repeats, args.seconds).items()
        }
        results[name] = {"distance by calls": curves, "seconds a call": times}
        for lib in libraries:
            own = [v for k, v in curves.items() if k.startswith(lib)]
            need = [calls_needed(own, threshold) for threshold in THRESHOLDS]
            middle, low, high = ratio(times, lib, "sciffusion")
            cells = [str(n) if n is not None else f"> {STEPS[-1]}" for n in need]
            us = 1e6 * sorted(times[lib])[len(times[lib]) // 2]
            spread = "" if lib == "sciffusion" else f"{middle:.1f} ({low:.1f} - {high:.1f})"
            lines.append(f"| {name} | {lib} | {' | '.join(cells)} | {us:.0f} | {spread} |")
            print(lines[-1], flush=True)
    write(
        args.out.with_suffix(".json"),
        {k: v for k, v in vars(args).items() if k != "out"},
        results,
    )
    if not args.only:
        args.out.with_suffix(".md").write_text(page(lines, floor, args.samples, args.seed))


def page(lines: Sequence[str], floor: float, samples: int, seed: int) -> str:
    """The table with what it was measured by."""
    where = environment()
    head = " | ".join(f"calls to distance {t}" for t in THRESHOLDS)
    return "\n".join(
        [
            "# Solvers against those of the same name elsewhere",
            "",
            f"`{where['command']}` on one thread of {where['cpu']}, torch {where['torch']}, {samples} samples, seed "
            f"{seed}. The distance of as many exact samples is {floor:.3f}.",
            "",
            f"| solver | library | {head} | us a call | time over ours |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
