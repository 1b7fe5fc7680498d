"""What a sampler costs beside its network: ours against diffusers' schedulers and azula's samplers.

    python benchmarks/sampler_overhead.py

The network is trivial (it returns its input), so everything measured is the library: the run's preparation, the
coefficients, the updates. Two kinds of network: one that predicts x0 and is asked directly, and one that predicts v,
with whatever the library does around it (preconditioning, conversion).

Peers are measured where they are installed, and skipped with a message elsewhere. In an environment to throw away:

    pip install --no-deps --target /tmp/peers diffusers==0.42.1 azula==0.11.1 huggingface_hub httpx2 httpcore2 \\
        truststore h11 einops
    PYTHONPATH=/tmp/peers python benchmarks/sampler_overhead.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import Times, interleave, ratio, show, write
from torch import Tensor, nn

from sciffusion.denoiser import Denoiser, Preconditioned, Prediction
from sciffusion.process import Gaussian, Process
from sciffusion.samplers import DDIM, Multistep, Sampler
from sciffusion.schedule import VP
from sciffusion.state import Value

SHAPES = ((16, 3, 32, 32), (64, 9))
Runs = dict[str, Callable[[], Tensor]]
"""Whole runs by library."""


class Bare(Denoiser):
    """A trivial prediction of x0."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Any = None, previous: Value | None = None
    ) -> Prediction:
        """x0 = x_t."""
        return Prediction(x_t, x_t, t, self.process)


class Trivial(nn.Module):
    """A network that returns its input."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))  # libraries ask a network for its dtype

    def forward(self, x: Tensor, *args: object) -> Tensor:
        """The input."""
        return x


def ours(order: int, steps: int, target: str, x: Tensor) -> Runs:
    """A whole run with this library."""
    process = Gaussian(VP())
    denoiser = (
        Bare(process)
        if target == "x0"
        else Preconditioned(Trivial(), process, target="v", sigma_data=1.0)
    )
    sampler = Sampler(DDIM() if order == 1 else Multistep(order), steps)
    return {"sciffusion": lambda: sampler(denoiser, x).x}  # type: ignore[dict-item,return-value]


def diffusers(order: int, steps: int, target: str, x: Tensor) -> Runs:
    """A whole run with diffusers: the loop that its documentation shows."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    kind = {"x0": "sample", "v": "v_prediction"}[target]
    scheduler = (
        DDIMScheduler(prediction_type=kind, clip_sample=False)
        if order == 1
        else DPMSolverMultistepScheduler(prediction_type=kind, solver_order=order)
    )
    net = Trivial()

    @torch.no_grad()
    def run() -> Tensor:
        scheduler.set_timesteps(steps)
        value = x
        for t in scheduler.timesteps:
            out = net(scheduler.scale_model_input(value, t), t)
            value = scheduler.step(out, t, value, return_dict=False)[0]
        return value

    return {"diffusers": run}


def azula(order: int, steps: int, target: str, x: Tensor) -> Runs:
    """A whole run with azula."""
    from azula.denoise import Denoiser as AzulaDenoiser
    from azula.denoise import DiracPosterior, KarrasDenoiser
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler, xEABSampler

    class AzulaBare(AzulaDenoiser):
        schedule = VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> DiracPosterior:
            return DiracPosterior(mean=x_t)

    denoiser = AzulaBare() if target == "x0" else KarrasDenoiser(Trivial(), VPSchedule())
    sampler = (
        DDIMSampler(denoiser, steps=steps, silent=True)
        if order == 1
        else xEABSampler(denoiser, order=order, steps=steps, silent=True)
    )
    return {"azula": lambda: sampler(x)}


def installed() -> list[Callable[[int, int, str, Tensor], Runs]]:
    """The libraries that can be measured here."""
    found: list[Callable[[int, int, str, Tensor], Runs]] = [ours]
    for library in (diffusers, azula):
        try:
            library(1, 1, "x0", torch.zeros(1, 1))
            found.append(library)
        except ImportError as error:
            print(f"{error.name} is skipped: {error}; the head of this file says how to install it")
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="at least, per measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/sampler_overhead.json")
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    libraries = installed()
    rows: list[tuple[str, ...]] = []
    results: dict[str, dict[str, object]] = {}
    for shape in SHAPES:
        x = torch.randn(shape)
        for order, solver in ((1, "DDIM"), (2, "DPM-Solver++ 2M")):
            for target in ("x0", "v"):
                runs: Runs = {}
                for library in libraries:
                    runs |= library(order, args.steps, target, x)
                times: Times = interleave(runs, args.repeats, args.seconds)
                case = f"{solver}, {tuple(shape)}, {target}"
                results[case] = {"seconds": times}
                for name, seconds in times.items():
                    middle, low, high = ratio(times, name, "sciffusion")
                    results[case][f"{name} / sciffusion"] = [middle, low, high]
                    us = 1e6 * sorted(seconds)[len(seconds) // 2] / args.steps
                    names = (solver, str(tuple(shape)), target, name)
                    rows.append((*names, f"{us:.1f}", f"{middle:.2f}", f"{low:.2f}-{high:.2f}"))
                if not all(math.isfinite(float(run().sum())) for run in runs.values()):
                    raise RuntimeError(f"a run of {case} is not finite: its time means nothing")
    title = f"Sampler alone, {args.steps} steps, one thread: us per step; ratio to ours"
    show(title, ("solver", "shape", "network", "library"), rows)
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    write(args.out, settings, results)


if __name__ == "__main__":
    main()
