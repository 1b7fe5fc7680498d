"""How near do samplers of posteriors come to the exact one? A mixture of 25 Gaussians seen through random matrices.

    PYTHONPATH=/tmp/peers python benchmarks/inverse_gmm.py --quick
    PYTHONPATH=/tmp/peers python benchmarks/inverse_gmm.py

The problem is that of MCGDiff (Cardoso et al., Monte Carlo guided diffusion for Bayesian linear inverse problems,
2023), set up as in its authors' code (github.com/gabrielvc/mcg_diff, scripts/viz_gaussian.py): modes of unit covariance
at (8i, 8j, 8i, 8j, ...), i and j from -2 to 2, weights as squares of normal numbers, an observation y = A x + noise in
1, 2 or 4 dimensions, the singular values of A uniform on [0, 1], the noise uniform on [0, 1] times the greatest one.
The posterior is again a mixture in closed form. Every method has the exact denoiser, so all errors are its own. One
difference: beta_max is 40 instead of 20, with which a start from N(0, I) is right at 800 dimensions too.

The distance is the sliced Wasserstein-2 distance between as many samples of the method and of the exact posterior, over
200 random directions; "exact" is that of two such sets of the posterior itself, the least that can be reached. A figure
is the mean over problems with its standard deviation: problems differ much, so compare within a column. All share the
problems, the grid (evenly spaced in the time of rectified flow), and, but for DPS, the number of steps. DPS takes 1000
as its paper does, since its step has a fixed length; azula takes its norm over the whole batch, which makes that step
shorter by the root of the samples. The particle methods run one set of particles, as many as samples; their twist is
N(y; A x0hat, s^2 I + A C_t A^T), C_t the covariance of x0 given x_t for Gaussian data with the mixture's covariance.

Peers (azula 0.11.1) are measured where they are installed, and skipped with a message elsewhere:

    pip install --no-deps --target /tmp/peers azula==0.11.1 einops
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev

import torch
from measure import environment, write
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import FlowTime
from sciffusion.inverse import DPS, MMPS, SDA, Function, Method, PiGDM, Posterior, TwistedSMC
from sciffusion.process import Gaussian
from sciffusion.samplers import DDIM, Sampler
from sciffusion.schedule import VP
from sciffusion.state import Value

SCHEDULE = VP(0.1, 40.0)
STEPS, DPS_STEPS = 100, 1000


@dataclass(frozen=True)
class Problem:
    """A mixture, an observation of it, and exact samples of the posterior."""

    weights: Tensor
    means: Tensor
    operator: Tensor
    noise: float
    y: Tensor

    @staticmethod
    def draw(d: int, d_y: int, seed: int) -> Problem:
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64)

        span = range(-2, 3)
        pairs = torch.tensor([[8.0 * i, 8.0 * j] for i in span for j in span]).double()
        means, weights = pairs.repeat(1, d // 2), normal(25) ** 2
        u, _, v = torch.linalg.svd(normal(d_y, d), full_matrices=False)
        scales = torch.rand(d_y, generator=g, dtype=torch.float64).sort(descending=True).values
        operator = u @ torch.diag(scales) @ v
        mode = int(torch.multinomial(weights, 1, generator=g))
        noise = float(torch.rand(1, generator=g, dtype=torch.float64) * scales.max())
        y = operator @ (means[mode] + normal(d)) + noise * normal(d_y)
        return Problem(weights / weights.sum(), means, operator, noise, y)

    def posterior(self, n: int, seed: int) -> Tensor:
        """Exact samples: a mode by its evidence, then the Gaussian posterior within it."""
        g = torch.Generator().manual_seed(seed)
        cov = self.operator @ self.operator.T + self.noise**2 * torch.eye(len(self.y)).double()
        residual = self.y - self.means @ self.operator.T
        solved = torch.linalg.solve(cov, residual.T).T
        log_p = self.weights.log() - 0.5 * (residual * solved).sum(1)
        modes = torch.multinomial(log_p.softmax(0), n, replacement=True, generator=g)
        # a draw of the prior, moved by its own misfit (Matheron's rule)
        x = self.means[modes] + torch.randn(n, self.means.shape[1], generator=g).double()
        seen = x @ self.operator.T + self.noise * torch.randn(n, len(self.y), generator=g).double()
        return x + torch.linalg.solve(cov, (self.y - seen).T).T @ self.operator

    def observe(self, x: Tensor) -> Tensor:
        return x @ self.operator.T

    def mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for x = alpha x0 + sigma e: a cheap closed form, since every mode has unit covariance."""
        total = alpha**2 + sigma**2
        square = (self.means**2).sum(1)
        log_p = self.weights.log() + (alpha * x @ self.means.T - alpha**2 * square / 2) / total
        centre = log_p.softmax(1) @ self.means
        return centre + alpha / total * (x - alpha * centre)

    def twist(self, x0: Tensor, ratio: Tensor) -> Tensor:
        """log N(y; A x0, noise^2 I + A C_t A^T), one per row, at the noise-to-signal ratio sigma / alpha.

        C_t is the covariance of x0 given x_t for Gaussian data with the covariance of the mixture.
        """
        centred = (self.means - self.weights @ self.means) * self.weights.sqrt()[:, None]
        _, s, v = torch.linalg.svd(centred, full_matrices=False)
        spread, within = 1 + s**2, ratio**2 / (ratio**2 + 1)
        along = v @ self.operator.T  # (25, d_y): what is seen of each axis of the modes
        more = spread * ratio**2 / (ratio**2 + spread) - within
        eye = torch.eye(len(self.y), dtype=x0.dtype)
        cov = self.noise**2 * eye + within * self.operator @ self.operator.T
        cov = cov + along.T @ (more[:, None] * along)
        law = torch.distributions.MultivariateNormal(self.y, cov)
        return law.log_prob(self.observe(x0))


def distance(a: Tensor, b: Tensor, seed: int = 0, directions: int = 200) -> float:
    """Sliced Wasserstein-2 distance of two sets of as many samples."""
    g = torch.Generator().manual_seed(seed)
    along = torch.randn(a.shape[1], directions, generator=g, dtype=torch.float64)
    along = along / along.norm(dim=0)
    gap = (a @ along).sort(0).values - (b @ along).sort(0).values
    return float(gap.square().mean().sqrt())


class Modes(Denoiser):
    """The exact denoiser of a problem's mixture."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem, self.process = problem, Gaussian(SCHEDULE)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        return Prediction(self.problem.mean(x_t, *SCHEDULE(t)), x_t, t, self.process)


Contender = Callable[[Problem, int, int], Tensor]
"""``run(problem, samples, seed)``."""


def guided(method: Method, steps: int, problem: Problem, n: int, seed: int) -> Tensor:
    """Ancestral sampling with a posterior denoiser."""
    operator = Function(lambda x: problem.observe(_tensor(x)), linear=True)
    posterior = Posterior(Modes(problem), operator, problem.y[None], problem.noise, method)
    return _tensor(Sampler(DDIM(1.0), steps)(posterior, _start(problem, n, seed), seed).x)


def matched(problem: Problem, n: int, seed: int) -> Tensor:
    """MMPS with as many iterations as observations, which solves its systems."""
    return guided(MMPS(len(problem.y)), STEPS, problem, n, seed)


def particles(steered: bool, problem: Problem, n: int, seed: int) -> Tensor:
    """Particles with the problem's twist."""

    def twist(x0: Value, x_t: Value, t: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE(t)
        return problem.twist(_tensor(x0), sigma / alpha)

    smc = TwistedSMC(Sampler(DDIM(1.0), STEPS), twist, n, guided=steered)
    like = torch.zeros(1, problem.means.shape[1], dtype=torch.float64)
    return _tensor(smc(Modes(problem), like, seed).resampled)


def _tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def _start(problem: Problem, n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, problem.means.shape[1], generator=g, dtype=torch.float64)


OURS: dict[str, Contender] = {
    "MMPS": matched,
    "PiGDM": partial(guided, PiGDM(), STEPS),
    "SDA(0.1)": partial(guided, SDA(0.1), STEPS),
    "SDA(1)": partial(guided, SDA(1.0), STEPS),
    "DPS(1), 1000 steps": partial(guided, DPS(), DPS_STEPS),
    "DPS(0.05), 1000 steps": partial(guided, DPS(0.05), DPS_STEPS),
    "TwistedSMC": partial(particles, True),
    "TwistedSMC, guided=False": partial(particles, False),
}


def azula() -> dict[str, Contender]:
    """azula's methods, each as it stands, on our grid."""
    if find_spec("azula") is None:
        print("azula is not installed: see the head of this file")
        return {}
    from azula.denoise import Denoiser as Base
    from azula.denoise import DiracPosterior
    from azula.guidance.dps import DPSSampler
    from azula.guidance.mmps import MMPSDenoiser
    from azula.guidance.pgdm import PGDMSampler
    from azula.guidance.tds import TDSSampler
    from azula.linalg.covariance import IsotropicCovariance
    from azula.sample import DDPMSampler

    class Schedule:
        """Our schedule at our grid's times, for a library whose grids are even in t."""

        def __init__(self, steps: int) -> None:
            self.times = FlowTime()(SCHEDULE, steps, 1.0, 0.0).flip(0)

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = SCHEDULE(self.times[(t * (len(self.times) - 1)).round().long()])
            return alpha, sigma

    class Exact(Base):
        def __init__(self, problem: Problem, steps: int) -> None:
            super().__init__()
            self.problem, self.schedule = problem, Schedule(steps)

        def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
            return DiracPosterior(mean=self.problem.mean(x_t, *self.schedule(t)))

    def start(problem: Problem, n: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return _start(problem, n, seed)

    def mmps(problem: Problem, n: int, seed: int) -> Tensor:
        x = start(problem, n, seed)
        cov_y = IsotropicCovariance(torch.tensor(problem.noise**2, dtype=torch.float64))
        inner, y = Exact(problem, STEPS), problem.y.expand(n, -1)
        posterior = MMPSDenoiser(inner, y, problem.observe, cov_y, iterations=len(problem.y))
        return DDPMSampler(posterior, steps=STEPS, silent=True, dtype=torch.float64)(x)

    def dps(problem: Problem, n: int, seed: int) -> Tensor:
        sampler = DPSSampler(
            Exact(problem, DPS_STEPS),
            problem.y,
            problem.observe,
            steps=DPS_STEPS,
            silent=True,
            dtype=torch.float64,
        )
        return sampler(start(problem, n, seed))

    def pgdm(problem: Problem, n: int, seed: int) -> Tensor:
        x, inverse = start(problem, n, seed), torch.linalg.pinv(problem.operator)
        sampler = PGDMSampler(
            Exact(problem, STEPS),
            problem.y,
            problem.observe,
            lambda y: y @ inverse.T,
            eta=1.0,
            steps=STEPS,
            silent=True,
            dtype=torch.float64,
        )
        return sampler(x)

    def tds(problem: Problem, n: int, seed: int) -> Tensor:
        def twist(x0: Tensor, ratio: Tensor) -> Tensor:
            return problem.twist(x0, ratio)[:, None]

        x = start(problem, n, seed)
        sampler = TDSSampler(
            Exact(problem, STEPS), twist, steps=STEPS, silent=True, dtype=torch.float64
        )
        return sampler(x)

    return {
        "azula MMPS": mmps,
        "azula PGDM (knows no noise)": pgdm,
        "azula DPS(1), 1000 steps": dps,
        "azula TDS": tds,
    }


def measure(
    contenders: dict[str, Contender], d: int, d_y: int, seeds: Sequence[int], n: int
) -> dict[str, tuple[list[float], float]]:
    """Distances over the problems, and the CPU time of one run, seconds."""
    out: dict[str, tuple[list[float], float]] = {}
    for name, run in contenders.items():
        found, began = [], time.process_time()
        for seed in seeds:
            problem = Problem.draw(d, d_y, seed)
            truth = problem.posterior(n, 10_000 + seed)
            found.append(distance(run(problem, n, 20_000 + seed), truth))
        out[name] = found, (time.process_time() - began) / len(seeds)
    return out


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation over the problems."""
    if any(math.isnan(v) for v in values):
        return f"NaN in {sum(map(math.isnan, values))} of {len(values)}"
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.2f} ± {spread:.2f}"


def main() -> None:
    """Measure, print, and write the results unless ``--quick``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 dimensions, three problems")
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    exact: Contender = lambda problem, n, seed: problem.posterior(n, seed)  # noqa: E731
    contenders = {"exact": exact, **OURS, **azula()}
    problems = {8: 3} if args.quick else {8: 8, 80: 4, 800: 2}
    cells = [(d, d_y) for d in problems for d_y in (1, 2, 4)]
    began = time.process_time()
    results = {c: measure(contenders, *c, range(problems[c[0]]), args.samples) for c in cells}
    where, seconds = environment(), time.process_time() - began
    lines = [
        "# Posteriors of a mixture of 25 Gaussians",
        "",
        f"`{where['command']}`, {where['date']}: {where['cpu']}, one thread, Python {where['python']}, "
        f"torch {where['torch']}; {seconds:.0f} s of CPU time.",
        "",
        "Sliced Wasserstein-2 distance to the exact posterior, mean ± standard deviation over problems "
        f"({', '.join(f'{k} of {d} dimensions' for d, k in problems.items())}), {args.samples} samples each; "
        f"{STEPS} steps unless stated. The file's head says how. CPU time of a run in seconds, of the last column.",
        "",
        "| method | " + " | ".join(f"d={d}, d_y={e}" for d, e in cells) + " | time |",
        "|---" * (len(cells) + 2) + "|",
    ]
    for name in contenders:
        row = [cell(results[c][name][0]) for c in cells]
        lines.append(f"| {name} | " + " | ".join(row) + f" | {results[cells[-1]][name][1]:.1f} |")
    print("\n".join(lines))
    if not args.quick:
        args.results.mkdir(exist_ok=True)
        (args.results / "inverse_gmm.md").write_text("\n".join(lines) + "\n")
        content = {
            f"d={d}, d_y={e}": {k: {"distances": v, "seconds": s} for k, (v, s) in r.items()}
            for (d, e), r in results.items()
        }
        write(
            args.results / "inverse_gmm.json",
            {"samples": args.samples, "steps": STEPS, "problems": problems},
            content,
        )


if __name__ == "__main__":
    main()
