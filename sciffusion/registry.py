"""Which domains there are, and how to load one by its name.

The domains that ship with the library are the folders of ``sciffusion.domains``, so a bare
checkout finds them too. Any other package adds its own through an entry point:

.. code-block:: toml

    [project.entry-points."sciffusion.domains"]
    polymers = "my_package.polymers"
"""

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from types import ModuleType

from sciffusion.errors import did_you_mean

GROUP = "sciffusion.domains"


def domains() -> dict[str, EntryPoint]:
    """Every known domain by name; nothing is imported yet (``.value`` names the module).

    A name that ships with the library cannot be taken over by another package.
    """
    # Found by name, at run time: the core never imports a domain.
    shipped = iter_modules(import_module(GROUP).__path__)
    found = {m.name: EntryPoint(m.name, f"{GROUP}.{m.name}", GROUP) for m in shipped if m.ispkg}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def load_domain(name: str) -> ModuleType:
    """Import the domain called ``name``, for instance ``"molecules"``, and return its module.

    Raises:
        ValueError: no domain has this name; the message lists those that there are.
    """
    known = domains()
    if name not in known:
        listed = ", ".join(repr(key) for key in known) or "none"
        raise ValueError(
            f"unknown domain {name!r}; known domains: {listed}. {did_you_mean(name, known)}".strip()
        )
    return import_module(known[name].module)
