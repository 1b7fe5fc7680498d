"""What the command line asks of a domain's module; a domain need not inherit from anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from sciffusion.registry import load_domain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Domain", "Model", "Report", "Run", "Samples", "open_domain"]


class Report(Protocol):
    """Figures of a set of samples: printed with ``str`` or by rich, saved as JSON."""

    def save(self, path: str | Path) -> Path:
        """Write the JSON, whole or not at all."""


class Samples(Protocol):
    """A set of samples.

    Checks that cost time are arguments of ``report`` that are named ``n_NAME``: the number of
    samples to check. On the command line they are the options ``--NAME``.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice) -> Self: ...
    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all."""

    def report(self, reference: Self | None = None, *, seed: int = 0, **checks: int) -> Report:
        """Judge the samples, beside real ones if there are any."""

    def plot(self) -> Figure:
        """A picture of all samples."""


class Model(Protocol):
    """A trained model; ``info`` says where it comes from, and in ``figures`` how good it is."""

    info: Mapping[str, Any] | None

    def to(self, device: str) -> Self:
        """The same model on another device."""

    def sample(self, n: int, *, seed: int = 0, steps: int | None = None) -> Samples:
        """Draw ``n`` samples."""


class Run(Protocol):
    """The end of a training run: ``stopped`` says why it ended early, if it did."""

    step: int
    stopped: str


class Domain(Protocol):
    """The module of a domain.

    ``models`` maps the names of the shipped models, the default one first, to their files.
    ``DATASETS`` maps the names of data sets to functions that fetch one, or take it from a local
    copy, and return it with the place where it is kept.
    """

    DATASETS: Mapping[str, Callable[[Path | None], tuple[object, Path]]]

    def models(self) -> Mapping[str, Path]: ...
    def load(self, name: str | Path) -> Model: ...
    def recipe(self, name: str | Path, overrides: Sequence[str] = ()) -> object: ...
    def train(
        self, config: object, directory: str | Path, *, resume: bool = True
    ) -> tuple[Model, Run]: ...
    def read(self, source: str | Path) -> Samples: ...
    def check_output(self, path: Path) -> None: ...
    def demo(self, directory: str | Path) -> Report: ...


def open_domain(name: str) -> Domain:
    """Import a domain by its name.

    Raises:
        ValueError: there is none of this name, or its module lacks something of `Domain`.
    """
    module = load_domain(name)
    needed = ("DATASETS", "models", "load", "recipe", "train", "read", "check_output", "demo")
    missing = [attribute for attribute in needed if not hasattr(module, attribute)]
    if missing:
        raise ValueError(f"the domain {name!r} has no command line: it lacks {', '.join(missing)}")
    return cast(Domain, module)
