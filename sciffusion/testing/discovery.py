"""Finding the classes that have to keep a contract."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import sciffusion

__all__ = ["final_classes"]

_OUTSIDE = ("domains", "datasets", "cli", "__main__")
"""What is no part of the mathematical core: domains hold their own classes to the contracts."""


def final_classes(base: type, package: str = "sciffusion") -> list[type]:
    """All public classes in a package that can be instances of ``base``, by name, wherever they are defined.

    Every module of the package is imported; for the core's own, those of its domains are not.
    """
    root = importlib.import_module(package)
    packages = [root]
    while packages:
        here = packages.pop()
        for module in pkgutil.iter_modules(here.__path__, f"{here.__name__}."):
            if here is sciffusion and module.name.split(".")[1] in _OUTSIDE:
                continue
            loaded = importlib.import_module(module.name)
            packages += [loaded] * module.ispkg
    found: set[type] = set()
    waiting: list[type] = [base]
    while waiting:
        subclasses: list[type] = waiting.pop().__subclasses__()
        for one in subclasses:
            waiting.append(one)
            inside = f"{one.__module__}.".startswith(f"{package}.")
            if inside and not inspect.isabstract(one) and not one.__name__.startswith("_"):
                found.add(one)
    if root is sciffusion:
        found = {c for c in found if c.__module__.split(".")[1] not in _OUTSIDE}
    return sorted(found, key=lambda c: (c.__module__, c.__name__))
