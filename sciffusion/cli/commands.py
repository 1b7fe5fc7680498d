"""The commands. Each is short: it reads its arguments and calls the verbs of a domain."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import sciffusion
from sciffusion.errors import did_you_mean
from sciffusion.io import atomic_write

from .domain import Domain, Model, Report, Samples, open_domain

__all__ = ["app"]

app = App(
    name="sciffusion",
    help="Generative modelling for scientists: train, sample and judge diffusion models.",
    help_format="markdown",
    help_epilogue="""\
First steps:

    sciffusion demo molecules --out out/demo
    sciffusion sample molecules -n 100 --out mols.sdf
    sciffusion forecast weather --out forecast.nc
    sciffusion evaluate molecules mols.sdf --reference qm9:test
    sciffusion train molecules --config qm9 --out runs/qm9

`sciffusion COMMAND --help` explains one command. `--debug`, anywhere, shows
the traceback of an error.""",
    version=sciffusion.__version__,
    suppress_keyboard_interrupt=False,
)
data = App(name="data", help="Fetch data sets.")
app.command(data)

Device = Literal["auto", "cpu", "cuda"]
_PICTURES = (".png", ".svg", ".pdf", ".jpg")
_OPTIONS = ("out", "number", "seed", "model", "steps", "device", "report", "picture")


@app.command(
    help_epilogue="""\
Examples:

    sciffusion sample molecules -n 100 --seed 0 --out mols.sdf
    sciffusion sample molecules -n 1000 --steps 20 --out mols.xyz
    sciffusion sample molecules -n 16 --model runs/qm9/model.safetensors \\
        --out mols.sdf --report report.json --picture mols.png
    sciffusion sample audio --digit 7 --speaker theo --out seven.wav
    sciffusion sample images --label 7 -n 16 --out grid.png"""
)
def sample(
    domain: str,
    /,
    *,
    out: Path,
    n: Annotated[int | None, Parameter(name=["-n", "--number"])] = None,
    seed: int = 0,
    model: str | None = None,
    steps: int | None = None,
    device: Device = "auto",
    report: Path | None = None,
    picture: Path | None = None,
    **given: Annotated[str, Parameter(name="--ATTRIBUTE")],
) -> None:
    """Draw new samples from a trained model and write them to a file.

    Sample i depends on the seed and on i alone: a larger -n only adds some.

    Args:
        domain: what to sample, for instance molecules.
        out: where to write the samples; the suffix says in which format
            (molecules: .sdf, .xyz; audio: .wav, .flac; images: .png, .npz;
            video: .gif, .mp4, .npz; audiovisual: .mp4; shapes: .npz, .ply).
        n: how many samples; 100 unless the domain has a number of its own
            (audio: 1; images: 16).
        seed: of everything random.
        model: a model that ships (`sciffusion info` lists them) or a file that
            training wrote; the domain's first model unless given.
        steps: denoising steps; the model's own number unless given.
        device: where to compute; auto is a GPU if there is one.
        report: judge the samples and write the figures to this JSON file.
        picture: draw the first 16 samples into this .png, .svg or .pdf file.
        given: a value that the samples are to have, of a model that was
            trained with it: --digit 7 --speaker theo.
    """
    chosen = open_domain(domain, "sample")
    chosen.check_output(out)
    if picture is not None and picture.suffix not in _PICTURES:
        raise ValueError(f"--picture {picture}: end it with one of {', '.join(_PICTURES)}")
    trained = chosen.load(model or _default_model(chosen, domain)).to(_device(device))
    samples = _drawn(trained, n, given, seed=seed, steps=steps)
    _say(f"{len(samples)} sample{'s' * (len(samples) != 1)} in {samples.save(out)}")
    if picture is not None:
        with atomic_write(picture) as part:
            samples[:16].plot().savefig(part, dpi=150)
        _say(f"picture in {picture}")
    if report is not None:
        _show(samples.report(seed=seed), report)


@app.command(
    help_epilogue="""\
Examples:

    sciffusion forecast weather --steps 10 --members 20 --out forecast.nc
    sciffusion forecast weather --start states.nc --steps 30 --out forecast.zarr"""
)
def forecast(
    domain: str,
    /,
    *,
    out: Path,
    steps: int = 10,
    members: int = 10,
    start: str | None = None,
    seed: int = 0,
    model: str | None = None,
    device: Device = "auto",
) -> None:
    """Continue a state in time, as an ensemble, and write every step as it is made.

    A forecast that was interrupted goes on when the same command is given again.

    Args:
        domain: what to forecast, for instance weather.
        out: where to write; the suffix says in which format (weather: .nc, .zarr).
        steps: how many steps of the model.
        members: of the ensemble; member i depends on the seed and on i alone.
        start: a file with the states to start from, or part of a data set; an example that ships
            with the model unless given.
        seed: of everything random.
        model: a model that ships (`sciffusion info` lists them) or a file that
            training wrote; the domain's first model unless given.
        device: where to compute; auto is a GPU if there is one.
    """
    chosen = open_domain(domain, "forecast")
    chosen.check_output(out)
    name = model or _default_model(chosen, domain)
    states = chosen.example(name) if start is None else chosen.read(start)
    chosen.load(name).to(_device(device)).forecast(states, steps, members, seed=seed, out=out)
    _say(f"{members} members, {steps} steps in {out}")


@app.command(
    help_epilogue="""\
Examples:

    sciffusion train molecules --config qm9 --out runs/qm9
    sciffusion train molecules --config qm9 --out runs/small \\
        model.network.layers=2 data.limit=5000 train.steps=500
    torchrun --nproc-per-node 2 -m sciffusion train molecules \\
        --config qm9 --out runs/qm9

Training needs no command line; where cyclopts is not installed:

    python -c 'from sciffusion.domains import molecules
    molecules.train(molecules.recipe("qm9"), "runs/qm9")'"""
)
def train(
    domain: str,
    /,
    *overrides: Annotated[str, Parameter(name="KEY=VALUE", negative=())],
    config: str,
    out: Path,
    resume: bool = True,
) -> int:
    """Train a model, or go on with a run that was interrupted.

    SIGTERM, Ctrl-C and train.max_seconds end a run after its present step with
    a checkpoint; the same command then continues it. A second signal ends it
    at once. The model, with averaged weights, is OUT/model.safetensors.

    Args:
        domain: what to learn, for instance molecules.
        overrides: settings that replace those of the configuration.
        config: a recipe that ships with the domain, or a YAML file.
        out: the folder of the run: checkpoints, log.csv, model.safetensors.
        resume: continue the run in OUT; with --no-resume a run there is an
            error.
    """
    from sciffusion.training import Diverged

    chosen = open_domain(domain, "train")
    try:
        trained, run = chosen.train(chosen.recipe(config, overrides), out, resume=resume)
    except Diverged as error:
        raise ValueError(str(error)) from error
    weights = out / "model.safetensors"
    if run.stopped:
        _say(f"stopped at step {run.step} by {run.stopped}; the same command goes on from there")
    else:
        _say(f"model in {weights}")
        if hasattr(trained, "sample"):  # an autoencoder or a classifier has none
            _say(f"sample it: sciffusion sample {domain} --model {weights} -n 100 --out FILE")
    known = {name.name: 128 + name for name in signal.Signals}
    return known.get(run.stopped, 0)


@app.command(
    help_epilogue="""\
Examples:

    sciffusion evaluate molecules mols.sdf
    sciffusion evaluate molecules mols.sdf --reference qm9:test --out report.json
    sciffusion evaluate molecules mols.sdf --xtb 100 --posebusters 100"""
)
def evaluate(
    domain: str,
    file: str,
    /,
    *,
    reference: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    **checks: Annotated[str, Parameter(name="--CHECK")],
) -> None:
    """Judge samples in a file: every figure with its 95 % interval.

    Args:
        domain: what the samples are, for instance molecules.
        file: the samples, or part of a data set: mols.sdf, qm9:test.
        reference: real samples to compare with, a file or part of a data set;
            brings novelty, distances, and the figures of real samples.
        seed: of subsamples and intervals.
        out: write the figures to this JSON file.
        checks: a check that costs time, and on how many of the samples to make
            it; molecules have --xtb N (relaxed by GFN2-xTB) and
            --posebusters N.
    """
    chosen = open_domain(domain, "evaluate")
    known = [p[2:] for p in inspect.signature(chosen.judge).parameters if p.startswith("n_")]
    counts = {f"n_{name}": _count(name, text, known) for name, text in checks.items()}
    _show(chosen.judge(file, reference, seed=seed, **counts), out)


@app.command
def demo(domain: str, /, *, out: Path = Path("out/demo")) -> None:
    """Sample from a domain's shipped model, judge the samples, leave both in a folder.

    Args:
        domain: whose demonstration, for instance molecules.
        out: the folder for samples, report and picture.
    """
    report = open_domain(domain, "demo").demo(out)
    _show(report, None)
    _say(f"in {out}: {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}")


@data.command(
    help_epilogue="""\
Examples:

    sciffusion data get qm9
    sciffusion data get qm9 --path Downloads/dsgdb9nsd.xyz.tar.bz2"""
)
def get(name: str, /, *, path: Path | None = None) -> None:
    """Fetch a data set, check it and keep it in the cache; at once if it is there.

    The cache is $SCIFFUSION_CACHE, else ~/.cache/sciffusion.

    Args:
        name: of the data set, for instance qm9.
        path: a local copy to take it from, for a machine without network.
    """
    from sciffusion.registry import domains, load_domain

    known: dict[str, Callable[[Path | None], tuple[object, Path]]] = {}
    absent: list[str] = []
    for one in domains():
        try:
            if "data" in getattr(load_domain(one), "COMMANDS", ()):
                known |= open_domain(one, "data").DATASETS
        except ImportError as error:  # its packages are not installed; others are
            absent.append(f"The domain {one!r} is not installed: {error}.")
    if name not in known:
        listed = ", ".join(known)
        hints = " ".join([did_you_mean(name, known), *absent])
        raise ValueError(f"no data set {name!r}; there are: {listed}. {hints}".rstrip())
    found, place = known[name](path)
    _say(f"{found}\nkept in {place}")


@app.command
def info() -> None:
    """Versions, device, domains, shipped models and their figures, optional packages."""
    from .info import describe

    describe()


def _drawn(
    model: Model, n: int | None, given: Mapping[str, str], *, seed: int, steps: int | None
) -> Samples:
    """Samples of a model, as many as it makes by itself or 100, with what is given where it takes something."""
    parameters = inspect.signature(model.sample).parameters
    if n is None:
        own = parameters["n"].default
        n = 100 if own is inspect.Parameter.empty else int(own)
    if not given:
        return model.sample(n, seed=seed, steps=steps)
    known = getattr(model, "attributes", ())
    for name in given:
        if name not in known:
            options = [f"--{option}" for option in (*known, *_OPTIONS)]
            takes = ", ".join(options[: len(known)]) or "no values"
            hint = did_you_mean(f"--{name}", options)
            raise ValueError(f"Unknown option: --{name}. {hint} This model takes {takes}.")
    values = {name: _value(text) for name, text in given.items()}
    return model.sample(n, given=values, seed=seed, steps=steps)


def _value(text: str) -> int | float | str:
    """A number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _default_model(domain: Domain, name: str) -> str:
    models = list(domain.models())
    if not models:
        raise ValueError(f"the domain {name!r} ships no model; name a file with --model")
    return models[0]


def _device(wish: Device) -> str:
    import torch

    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda but torch sees no GPU; use cpu or auto")
    return "cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu"


def _count(name: str, text: str, known: list[str]) -> int:
    if name not in known:
        options = [f"--{option}" for option in (*known, "reference", "seed", "out")]
        hint = did_you_mean(f"--{name}", options)
        raise ValueError(f"Unknown option: --{name}. {hint} Options: {', '.join(options)}.")
    if not text.isdecimal():
        raise ValueError(f"--{name} takes the number of samples to check, got {text!r}")
    return int(text)


def _show(report: Report, path: Path | None) -> None:
    """Print a report, and write it to a file if wanted."""
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(report)
    else:
        _say(str(report).rstrip())
    if path is not None:
        _say(f"report in {report.save(path)}")


def _say(text: str) -> None:
    """Print a line; of the many processes of one training only the first does."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stdout, flush=True)
