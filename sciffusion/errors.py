"""Errors that tell their reader what to do, and the import of optional packages."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType


class MissingExtra(ImportError):
    """An optional package is not installed; the message holds the pip command that brings it."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``, which the extra ``sciffusion[extra]`` brings, and return it.

    Only a package that is absent becomes a `MissingExtra`. One that is there but fails to import
    (a broken build, a dependency of its own that is gone, a submodule that this version lacks)
    raises its own error unchanged, because installing the extra again would not mend it.

    >>> require("math", extra="molecules").sqrt(9.0)
    3.0

    Raises:
        MissingExtra: the top-level package of ``module`` is not installed.
    """
    package = module.partition(".")[0]
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtra(
            f"{module!r} cannot be imported: the package {package!r} is not installed. "
            f'Install it with: pip install "sciffusion[{extra}]"',
            name=package,
        ) from error
    return import_module(module)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence ``Did you mean '...'?`` with the known name nearest to ``name``, else ``""``.

    >>> did_you_mean("molecule", ["audio", "molecules"])
    "Did you mean 'molecules'?"
    """
    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


@contextmanager
def of_field(name: str | None) -> Iterator[None]:
    """Say of which field of a state a ``ValueError`` is; None: of the only one, which has no name.

    >>> with of_field("atom"):
    ...     raise ValueError("it holds integers 0..4")
    Traceback (most recent call last):
        ...
    ValueError: field 'atom': it holds integers 0..4
    """
    try:
        yield
    except ValueError as error:
        if name is None:
            raise
        raise ValueError(f"field {name!r}: {error}") from error
