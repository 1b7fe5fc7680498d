"""Where schedulers of diffusers depart from their own formulas: theirs and ours from the same configuration.

    python benchmarks/diffusers_traps.py

No figure is frozen here. The data are Gaussian, so the network (one that denoises exactly at the level that it is told)
and the end of the probability flow from every start are known in closed form; "error" is the greatest distance of 64
samples from that end. The other numbers are properties of the noise levels that a run visits. Both columns are made of
one configuration: theirs by their scheduler's own loop, ours by ``sciffusion.interop.diffusers.from_scheduler``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import environment, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sciffusion.domains.audio._torchaudio import torchaudio
from sciffusion.errors import MissingExtra, require
from sciffusion.interop.diffusers import Call, Training, from_model, from_scheduler
from sciffusion.layout import Dense
from sciffusion.schedule import RectifiedFlow

MEAN, SPREAD = 0.4, 0.6


class Exact(torch.nn.Module):
    """A network trained to perfection on Gaussian data: told a step, it returns the target at that step."""

    config: dict[str, Any] = {}

    def __init__(self, training: Training, mean: float = MEAN) -> None:
        super().__init__()
        self.training_of, self.mean = training, mean
        self.told: list[float] = []

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """The target at the told step."""
        training = self.training_of
        self.told.append(float(timestep.flatten()[0]))
        t = training.time(timestep.flatten()[:1].double())
        alpha, sigma = training.schedule(t)
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        x = sample.double()
        x0 = self.mean + gain * (x - alpha * self.mean)
        layout, target = Dense(len(x)), training.target
        out = training.process.convert(x0, x, t.expand(len(x)), layout, src="x0", dst=target)
        return (out.to(sample.dtype),)


@dataclass(frozen=True)
class Run:
    """One run: its samples, the exact end of the flow from its start, the levels told and those of the solver."""

    x: Tensor
    exact: Tensor
    told: Tensor
    levels: Tensor

    @property
    def error(self) -> float:
        """The greatest distance from the exact end; NaN where a run broke down."""
        return float((self.x - self.exact).abs().max())

    @property
    def mismatch(self) -> float:
        """The greatest relative difference of sigma between what the network is told and the solver's."""
        return float((self.told / self.levels - 1).abs().max())

    @property
    def repeated(self) -> float:
        """How many evaluations are told the step of the one before."""
        return float((self.told.diff() == 0).sum())


def noise(training: Training, t: Tensor) -> Tensor:
    """What their schedulers call sigma: that of a flow, and sigma/alpha of a table."""
    alpha, sigma = training.schedule(t)
    return sigma if isinstance(training.schedule, RectifiedFlow) else sigma / alpha


def flow_end(training: Training, t: Tensor, end: float, x: Tensor, mean: float) -> Tensor:
    """Where the probability flow of the Gaussian data leads from ``x`` at time ``t`` to the time ``end``."""
    (alpha, sigma), (a, s) = training.schedule(t), training.schedule(end) if end else (1.0, 0.0)
    width = torch.hypot(torch.as_tensor(a * SPREAD), torch.as_tensor(s))
    return a * mean + width * (x - alpha * mean) / torch.hypot(alpha * SPREAD, sigma)


def start() -> Tensor:
    """Unit noise."""
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def theirs(scheduler: Any, steps: int, mean: float = MEAN, **options: Any) -> Run:
    """Their loop."""
    training = Training.of(scheduler)
    network, x = Exact(training, mean), start()
    scheduler.set_timesteps(steps, **options)
    flow = "FlowMatch" in type(scheduler).__name__ or scheduler.config.get("use_flow_sigmas", False)
    sigmas = getattr(scheduler, "sigmas", None)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t)[0], t, x, return_dict=False)[0]
    told = training.time(torch.tensor(network.told).double())
    if sigmas is None:
        levels = noise(training, told)
    else:
        levels = sigmas[: len(told)].double()
    begin = sigmas[0].double() if flow and sigmas is not None else told[0]
    last = 0.0 if sigmas is None or sigmas[-1] == 0 else float(training.time(0))
    exact = flow_end(training, begin, last, start().double(), mean)
    return Run(x.double(), exact, noise(training, told), levels)


def ours(scheduler: Any, steps: int, mean: float = MEAN) -> Run:
    """Our sampler, from the same configuration."""
    training = Training.of(scheduler)
    network, x = Exact(training, mean), start()
    sampler = from_scheduler(scheduler, steps)
    end = sampler(from_model(network, training, call=Call("sample")), x).x
    assert isinstance(end, Tensor)
    times = torch.tensor([t for w in sampler.windows(training.process) for t in w.nodes]).double()
    told = training.time(torch.tensor(network.told).double())
    exact = flow_end(training, times[0], sampler.stop, start().double(), mean)
    return Run(end.double(), exact, noise(training, told), noise(training, times))


@dataclass(frozen=True)
class Trap:
    """A row: what goes wrong, in which setting, the number that shows it, and both values of it."""

    what: str
    setting: str
    number: str
    theirs: Callable[[], float]
    ours: Callable[[], float]


def traps(library: Any) -> list[Trap]:
    """All rows."""

    def compare(
        what: str,
        setting: str,
        number: str,
        make: Callable[[], Any],
        steps: int,
        mean: float = MEAN,
    ) -> Trap:
        name = number.split(" ")[0]
        return Trap(
            what,
            f"{setting}, {steps} steps",
            number,
            lambda: getattr(theirs(make(), steps, mean), name),
            lambda: getattr(ours(make(), steps, mean), name),
        )

    flow = library.FlowMatchEulerDiscreteScheduler
    dpm, unipc = library.DPMSolverMultistepScheduler, library.UniPCMultistepScheduler
    ddim, deis = library.DDIMScheduler, library.DEISMultistepScheduler
    v = {"prediction_type": "v_prediction"}
    rows = [
        Trap(
            "shift applied twice (#13243)",
            "FlowMatchEuler, shift 3, 1000 steps of 1000",
            "sigma: greatest distance from the training's own",
            lambda: _table_distance(flow(shift=3.0), lambda s: s.sigmas[:-1]),
            lambda: _table_distance(flow(shift=3.0), _our_sigmas),
        )
    ]
    for steps in (250, 256, 300):
        rows.append(
            compare(
                "the step before found by arithmetic",
                "DDIM, trailing",
                "error",
                lambda: ddim(clip_sample=False, timestep_spacing="trailing", **v),
                steps,
            )
        )
    rows.append(
        compare(
            "the step before found by arithmetic",
            "DDIM, linspace",
            "error",
            lambda: ddim(clip_sample=False, timestep_spacing="linspace", **v),
            300,
        )
    )
    for steps in (80, 160, 320, 640):
        rows.append(
            compare(
                "refined steps that do not converge",
                "DEIS of order 3",
                "error",
                lambda: deis(solver_order=3, **v),
                steps,
            )
        )
    for name, kind in (("DPM++ 2M", dpm), ("UniPC-2", unipc)):
        rows += [
            compare(
                "the network is told a rounded level",
                f"{name}, Karras",
                "mismatch of sigma, greatest relative",
                lambda kind=kind: kind(use_karras_sigmas=True, **v),
                200,
            ),
            compare(
                "one step told again and again",
                f"{name}, Karras",
                "repeated evaluations",
                lambda kind=kind: kind(use_karras_sigmas=True, **v),
                200,
            ),
        ]
    rows += [
        compare(
            "one step told again and again (#12771)",
            "DPM++ 2M, Karras, cosine rates",
            "error",
            lambda: dpm(use_karras_sigmas=True, beta_schedule="squaredcos_cap_v2", **v),
            20,
        ),
        compare(
            "the network is told a truncated level",
            "UniPC-2 on a flow",
            "mismatch of sigma, greatest relative",
            lambda: unipc(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
            20,
        ),
        compare(
            "a function B(h) without an end",
            "UniPC-2 with bh1",
            "error",
            lambda: unipc(solver_type="bh1", **v),
            20,
        ),
        compare(
            "a table that ends on pure noise",
            "DPM++ 2M, cosine rates to the end",
            "error",
            lambda: dpm(trained_betas=_ending(), **v),
            20,
        ),
        compare(
            "values clipped to [-1, 1] by default",
            "DDIM, data of mean 2",
            "error",
            lambda: ddim(**v),
            50,
            2.0,
        ),
    ]
    return rows


def _ending() -> list[float]:
    """Rates of a cosine that reaches zero."""
    alpha2 = torch.cos(torch.linspace(0, 0.5 * torch.pi, 1001, dtype=torch.float64)) ** 2
    alpha2[-1] = 0.0
    return (1 - alpha2[1:] / alpha2[:-1]).tolist()


def _our_sigmas(scheduler: Any) -> Tensor:
    sampler = from_scheduler(scheduler, 1000)
    return sampler.grid(Training.of(scheduler).schedule, 1000, sampler.start, sampler.stop)[:-1]


def _table_distance(scheduler: Any, sigmas: Callable[[Any], Tensor]) -> float:
    """How far the sigmas of as many steps as in training lie from those that the scheduler was made with."""
    trained = scheduler.sigmas.double().clone()
    scheduler.set_timesteps(1000)
    return float((sigmas(scheduler).double() - trained).abs().max())


def attempt(run: Callable[[], float]) -> float | str:
    """The number, or the name of the error that a run ends with."""
    try:
        return run()
    except (IndexError, ValueError, RuntimeError) as error:
        return type(error).__name__


def main() -> None:
    """Print the table and write it to results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "diffusers_traps"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    with suppress(MissingExtra):
        torchaudio()  # transformers, which diffusers imports where it is installed, import it
    library = require("diffusers", extra="diffusers")
    library.utils.logging.set_verbosity_error()
    table = Table(title=f"diffusers {library.__version__} and sciffusion", title_justify="left")
    for name in ("trap", "setting", "number", "theirs", "ours"):
        table.add_column(name, justify="right" if name in ("theirs", "ours") else "left")
    lines, results = [], []
    for row in traps(library):
        values = (attempt(row.theirs), attempt(row.ours))
        shown = (v if isinstance(v, str) else f"{v:.2g}" for v in values)
        cells = [row.what, row.setting, row.number, *shown]
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
        results.append(
            {"trap": row.what, "setting": row.setting, "number": row.number}
            | dict(zip(("theirs", "ours"), values, strict=True))
        )
    Console(width=150).print(table)
    write(
        args.out.with_suffix(".json"),
        {"diffusers": library.__version__, "seed": 0},
        {"rows": results},
    )
    args.out.with_suffix(".md").write_text(page(lines, library.__version__))


def page(lines: list[str], version: str) -> str:
    """The table with what it was measured by."""
    where = environment()
    return "\n".join(
        [
            "# Traps in schedulers of diffusers",
            "",
            f"`{where['command']}`: diffusers {version}, torch {where['torch']}, {where['cpu']}, seed 0. Exact "
            "denoiser of Gaussian data; the error is the greatest distance of 64 samples from the end of the exact "
            "flow. The script's head says more.",
            "",
            "| trap | setting | number | diffusers | sciffusion |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
