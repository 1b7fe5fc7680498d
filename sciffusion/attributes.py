"""What samples may be asked by: named labels of the data, each with its classes in order.

A condition holds a number for each sample and attribute, (B,): that of its class, or the number of classes where the
attribute is left open. A network reads it from a table with one row more than there are classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.errors import did_you_mean

__all__ = ["Attributes", "Labels"]

Labels = Mapping[str, Sequence[object] | NDArray[Any]]
"""What is told of samples: by name a value for each."""


@final
@dataclass(frozen=True)
class Attributes:
    """Attributes by name, and the ``classes`` of each (empty: not known yet).

    Raises ``ValueError`` for classes of another number of attributes.

    >>> asked = Attributes(("digit", "speaker"), (("0", "1", "2"), ("lucas", "theo")))
    >>> asked.condition({"digit": 2}, 2)
    {'digit': tensor([2, 2]), 'speaker': tensor([2, 2])}
    """

    names: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.classes and len(self.classes) != len(self.names):
            raise ValueError(
                f"classes lists {len(self.classes)} attributes, but attributes names {len(self.names)}"
            )

    @property
    def sizes(self) -> dict[str, int]:
        """The number of classes of each, which is also the number that leaves it open."""
        return {k: len(c) for k, c in zip(self.names, self.classes, strict=True)}

    def index(self, attribute: str, value: object) -> int:
        """The number of an attribute's class; None is the number that leaves it open.

        A class is told by its name; where no name is a number, also by its place.

        Raises ``ValueError`` for an attribute or a value that is not known.
        """
        self.require(attribute)
        classes = self.classes[self.names.index(attribute)]
        if value is None:
            return len(classes)
        if isinstance(value, np.generic | Tensor):
            value = value.item()
        if str(value) in classes:
            return classes.index(str(value))
        places = "" if any(map(_is_number, classes)) else f", or a number below {len(classes)}"
        if places and type(value) is int and 0 <= value < len(classes):
            return value
        raise ValueError(
            f"{attribute} must be one of {', '.join(classes)}{places}, got {value!r}. "
            f"{did_you_mean(str(value), classes)}".rstrip()
        )

    def require(self, name: str, also: Sequence[str] = ()) -> None:
        """Raise ``ValueError`` for a name that is no attribute, nor among what ``also`` may be given to a model."""
        known = (*self.names, *also)
        if name not in known:
            raise ValueError(
                f"given names {name!r}, but this model knows {', '.join(known) or 'no attribute'}. "
                f"{did_you_mean(name, known)}".rstrip()
            )

    def condition(
        self, given: Mapping[str, object], n: int, also: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """What is asked of n samples: of each attribute one value for all, or one for each; what is not named is open.

        ``also`` are other names that ``given`` may hold, whose values somebody else reads.

        Raises ``ValueError`` for an attribute, a value or a number of values that do not fit.
        """
        cond = {k: torch.full((n,), size) for k, size in self.sizes.items()}
        for name, value in given.items():
            self.require(name, also)  # an unknown name comes before a wrong number of values
            if name not in self.names:
                continue
            single = value is None or isinstance(value, str | int | float | np.generic)
            values = [value] * n if single else list(value)  # type: ignore[call-overload]
            if len(values) != n:
                raise ValueError(f"{name} has {len(values)} values for {n} samples")
            cond[name] = torch.tensor([self.index(name, v) for v in values])
        return cond

    def found(self, labels: Labels) -> Attributes:
        """The same with the classes that the labels of the data have, numbers by size, unless they are known already.

        Raises ``ValueError`` for an attribute that is no label.
        """
        for name in self.names:
            if name not in labels:
                known = ", ".join(labels) or "none"
                raise ValueError(f"model.attributes names {name!r}; labels of the data: {known}")
        classes = (np.unique(np.asarray(labels[name])).tolist() for name in self.names)
        return Attributes(self.names, self.classes or tuple(tuple(map(str, c)) for c in classes))

    def rows(self, labels: Labels) -> dict[str, Tensor]:
        """The numbers of the classes that labels tell, (N,) by attribute. Raises ``ValueError`` for any other value."""
        out = {}
        for name in self.names:
            values, rows = np.unique(np.asarray(labels[name]), return_inverse=True)
            known = torch.tensor([self.index(name, v) for v in values])
            out[name] = known[torch.from_numpy(rows)]
        return out

    def in_turn(self, n: int) -> dict[str, list[str]]:
        """For n samples the classes of every attribute, one after the other."""
        pairs = zip(self.names, self.classes, strict=True)
        return {k: [c[i % len(c)] for i in range(n)] for k, c in pairs}

    def each(self, name: str, cond: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """A condition with one of its attributes exchanged for every class in turn.

        >>> asked = Attributes(("digit", "speaker"), (("0", "1"), ("lucas", "theo")))
        >>> asked.each("digit", asked.condition({"speaker": "theo"}, 1))
        [{'digit': tensor([0]), 'speaker': tensor([1])}, {'digit': tensor([1]), 'speaker': tensor([1])}]
        """
        return [{**cond, name: torch.full_like(cond[name], c)} for c in range(self.sizes[name])]

    def told(self, labels: Labels) -> dict[str, object]:
        """What samples' own labels say of the attributes; a value that is no class leaves it open."""
        return {
            name: [str(v) if str(v) in classes else None for v in labels[name]]
            for name, classes in zip(self.names, self.classes, strict=True)
            if name in labels
        }

    def labels(self, cond: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """The values that a condition asks for, empty where it leaves an attribute open."""
        return {
            name: np.array([(*classes, "")[i] for i in cond[name].tolist()])
            for name, classes in zip(self.names, self.classes, strict=True)
        }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
