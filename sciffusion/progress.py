"""A bar on a terminal for work that takes a while; silence everywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")


def track(
    parts: Iterable[T], title: str = "sampling", total: int | None = None, show: bool = True
) -> Iterable[T]:
    """Go through ``parts``, and show on standard error how far it is, if that is a terminal.

    ``total`` is how many there are, where they have no length themselves.
    """
    from rich.console import Console
    from rich.progress import track as bar

    console = Console(stderr=True)
    hidden = not (show and console.is_terminal)
    return bar(parts, title, total=total, console=console, disable=hidden)
