"""What the command line asks of a domain's module; a domain need not inherit from anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    """A set of samples."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice) -> Self: ...
    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all."""

    def report(self, reference: Self | None = None, *, seed: int = 0, **checks: int) -> Report:
        """Judge the samples, beside real ones if there are any."""

    def plot(self) -> Figure:
        """A picture of all samples."""


class Model(Protocol):
    """A trained model; ``info`` says where it comes from, and in ``figures`` how good it is.

    A model whose samples may be asked for by something also has ``attributes``: the names that the
    argument ``given`` of ``sample`` takes, and the command line as options.
    """

    info: Mapping[str, Any] | None

    def to(self, device: str) -> Self:
        """The same model on another device."""

    def sample(
        self,
        n: int,
        *,
        given: Mapping[str, Any] | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> Samples:
        """Draw ``n`` samples (of the command ``sample``)."""

    def forecast(
        self, start: Any, steps: int, members: int = 1, *, seed: int = 0, out: Path | None = None
    ) -> object:
        """Write what follows ``start`` to ``out`` (of the command ``forecast``)."""


class Run(Protocol):
    """The end of a training run: ``stopped`` says why it ended early, if it did."""

    step: int
    stopped: str


class Domain(Protocol):
    """The module of a domain.

    ``COMMANDS`` names the commands that it serves; of the verbs below it needs theirs only.
    ``models`` maps the names of the shipped models, the default one first, to their files.
    ``DATASETS`` maps the names of data sets to functions that fetch one, or take it from a local
    copy, and return it with the place where it is kept. Checks that cost time are arguments of
    ``judge`` that are named ``n_NAME``: the number of samples to check. On the command line they
    are the options ``--NAME``. ``example`` is what a model may start from, if nothing else is at
    hand.
    """

    COMMANDS: Collection[str]
    DATASETS: Mapping[str, Callable[[Path | None], tuple[object, Path]]]

    def models(self) -> Mapping[str, Path]: ...
    def load(self, name: str | Path) -> Model: ...
    def recipe(self, name: str | Path, overrides: Sequence[str] = ()) -> object: ...
    def train(
        self, config: object, directory: str | Path, *, resume: bool = True
    ) -> tuple[Model, Run]: ...
    def read(self, source: str | Path) -> Any: ...
    def example(self, name: str | Path) -> Any: ...
    def judge(
        self, file: str, reference: str | None = None, *, seed: int = 0, **checks: int
    ) -> Report: ...
    def check_output(self, path: Path) -> None: ...
    def demo(self, directory: str | Path) -> Report: ...


_NEEDS = {
    "sample": ("models", "load", "check_output"),
    "forecast": ("models", "load", "check_output", "read", "example"),
    "train": ("recipe", "train"),
    "evaluate": ("judge",),
    "demo": ("demo",),
    "data": ("DATASETS",),
    "info": ("DATASETS", "models", "load"),
}
"""What each command needs of a domain."""


def open_domain(name: str, command: str) -> Domain:
    """Import a domain by its name, for a command.

    Raises:
        ValueError: there is none of this name, it does not serve the command, or its module lacks
            something of `Domain`.
    """
    module = load_domain(name)
    commands = sorted({"info", *getattr(module, "COMMANDS", ())})
    if command not in commands:
        raise ValueError(
            f"the domain {name!r} has no command {command!r}; it has {', '.join(commands)}"
        )
    missing = [attribute for attribute in _NEEDS[command] if not hasattr(module, attribute)]
    if missing:
        raise ValueError(
            f"the domain {name!r} cannot serve {command}: it lacks {', '.join(missing)}"
        )
    return cast(Domain, module)
