"""What ``sciffusion info`` tells: what is installed, what is missing, what ships."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

import sciffusion
from sciffusion.registry import domains

from .domain import open_domain

__all__ = ["describe", "extras"]


def describe() -> None:
    """Print everything."""
    import torch
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)

    def line(title: str, text: str) -> None:
        console.print(f"{title:<12}{text}")

    parts = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    line("sciffusion", ", ".join([sciffusion.__version__, *parts, f"numpy {version('numpy')}"]))
    line("device", _device())
    for name in domains():
        for title, text in _domain(name):
            line(title, text)
    for extra, (present, missing) in extras().items():
        have = f"has {', '.join(present)}" if present else "has none of its packages"
        lack = f'; lacks {", ".join(missing)}: pip install "sciffusion[{extra}]"' if missing else ""
        line(f"[{extra}]", have + lack)


def extras() -> dict[str, tuple[list[str], list[str]]]:
    """For each extra but dev the packages that are installed, and those that are not."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    try:
        lines = requires("sciffusion") or []
    except PackageNotFoundError:  # a checkout that was not installed
        lines = []
    for text in lines:
        match = re.match(r"""([\w.-]+)[^;]*;\s*extra\s*==\s*["']([\w-]+)["']""", text)
        if match is None or match[1] == "sciffusion" or match[2] == "dev":
            continue
        present, missing = found.setdefault(match[2], ([], []))
        (present if _installed(match[1]) else missing).append(match[1])
    return found


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"cpu, {torch.get_num_threads()} threads"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _domain(name: str) -> Iterator[tuple[str, str]]:
    """The lines about one domain. One that does not import must not hide the others."""
    try:
        domain = open_domain(name, "info")
    except Exception as error:
        yield "domain", f"{name}: does not load: {error}"
        return
    yield "domain", f"{name}; data sets: {', '.join(domain.DATASETS) or 'none'}"
    for model in domain.models():
        yield "  model", f"{model}: {_summary(domain.load(model).info or {})}"


def _summary(info: Mapping[str, object]) -> str:
    """The plain entries of a model's info, and its figures."""
    figures = info.get("figures")
    entries = {**info, **(figures if isinstance(figures, Mapping) else {})}
    plain = {k: v for k, v in entries.items() if isinstance(v, str | int | float)}
    return "; ".join(f"{k.replace('_', ' ')}: {_number(v)}" for k, v in plain.items())


def _number(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value
