"""Properties of molecules: a table with units, conversions, and the scale that networks see."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from sciffusion.errors import did_you_mean

if TYPE_CHECKING:
    from .data import MoleculeSet

__all__ = ["Normaliser", "PropertyTable", "convert"]

# CODATA 2018: 1 Eh = 27.211386245988 eV, 1 bohr = 0.529177210903 angstrom, 1 D = 1e-21/c C m.
_EV = 27.211386245988
_BOHR = 0.529177210903
_KJ = 4.3597447222071e-18 * 6.02214076e23 / 1000  # one hartree per molecule, in kJ/mol
_E_ANGSTROM = 1.602176634e-29 * 299792458 / 1e-21  # one e angstrom, in debye

# unit -> (what it measures, how many of it make one of the first unit of that kind)
_UNITS: dict[str, tuple[str, float]] = {
    **{"Eh": ("energy", 1.0), "eV": ("energy", _EV), "meV": ("energy", 1000 * _EV)},
    **{"kJ/mol": ("energy", _KJ), "kcal/mol": ("energy", _KJ / 4.184)},
    **{"D": ("dipole", 1.0), "e*angstrom": ("dipole", 1 / _E_ANGSTROM)},
    **{"e*a0": ("dipole", 1 / (_E_ANGSTROM * _BOHR))},
    **{"a0^2": ("area", 1.0), "angstrom^2": ("area", _BOHR**2)},
    **{"a0^3": ("volume", 1.0), "angstrom^3": ("volume", _BOHR**3)},
    **{"cal/mol/K": ("heat capacity", 1.0), "J/mol/K": ("heat capacity", 4.184)},
    **{"GHz": ("frequency", 1.0), "cm^-1": ("frequency", 1 / 29.9792458)},
}


def convert(values: Tensor, unit: str, to: str) -> Tensor:
    """``values`` given in ``unit``, expressed in the unit ``to``.

    >>> convert(torch.tensor(1.0, dtype=torch.float64), "Eh", "eV").item()
    27.211386245988

    Raises:
        ValueError: a unit that is not known, or one that measures something else.
    """
    if unit == to:
        return values
    for name in (unit, to):
        if name not in _UNITS:
            raise unknown("unit", name, _UNITS)
    (kind, one), (other_kind, other) = _UNITS[unit], _UNITS[to]
    if kind != other_kind:
        raise ValueError(f"{unit!r} measures {kind} and {to!r} {other_kind}: no conversion")
    return values * (other / one)


@final
@dataclass(frozen=True, eq=False)
class PropertyTable:
    """Properties of M molecules, each with its unit.

    Args:
        names: P names.
        units: P units; ``convert`` knows the common ones, others are only labels.
        values: (M, P) float64, on the CPU.
        atoms: for properties that grow with the molecule, the value of each isolated atom by
            atomic number, in the unit of the property.

    Raises:
        ValueError: names, units and values that do not fit together.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: Tensor
    atoms: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.units) == self.values.shape[-1]:
            raise ValueError(
                f"{len(self.names)} names and {len(self.units)} units for values of shape "
                f"{tuple(self.values.shape)}, which must be (molecules, properties)"
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names must differ from each other, got {self.names}")
        if self.values.dtype != torch.float64:
            raise ValueError(f"values must be float64, got {self.values.dtype}")
        for name in self.atoms:
            self._column(name)

    @classmethod
    def empty(cls, molecules: int) -> PropertyTable:
        """No properties of so many molecules."""
        return cls((), (), torch.empty(molecules, 0, dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.values)

    def unit(self, name: str) -> str:
        """The unit that a property is stored in."""
        return self.units[self._column(name)]

    def take(self, rows: Tensor) -> PropertyTable:
        """The same properties of some of the molecules."""
        return PropertyTable(self.names, self.units, self.values[rows], self.atoms)

    def get(self, name: str, unit: str | None = None) -> Tensor:
        """The values of one property, (M,) float64, in ``unit`` (None: as stored)."""
        column = self._column(name)
        stored = self.units[column]
        return convert(self.values[:, column], stored, unit or stored)

    def atom_values(self, name: str, unit: str | None = None) -> Tensor:
        """The property's values of isolated atoms as a table (256,) over atomic numbers.

        NaN where an element's value is not known.
        """
        column = self._column(name)
        if name not in self.atoms:
            having = ", ".join(self.atoms) or "none"
            raise ValueError(f"no atoms' values to subtract from {name!r}; having them: {having}")
        table = torch.full((256,), torch.nan, dtype=torch.float64)
        for z, value in self.atoms[name].items():
            table[z] = value
        return convert(table, self.units[column], unit or self.units[column])

    def _column(self, name: str) -> int:
        if name not in self.names:
            raise unknown("property", name, self.names)
        return self.names.index(name)


@final
@dataclass(frozen=True)
class Normaliser:
    """The scale on which a network sees properties: ``(y - mean) / mad``.

    ``mad`` is the mean absolute deviation from the mean, as in EDM (Hoogeboom et al., 2022). It
    remembers the convention of each property (its unit, whether atoms' values are subtracted), so
    that targets given later are read in the same one; store it with the model as ``to_dict()``.

    Raises:
        ValueError: a scale that is zero or not finite, as of a property that never varies.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    mad: tuple[float, ...]
    subtract_atoms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, mean, mad in zip(self.names, self.mean, self.mad, strict=True):
            if not (math.isfinite(mean) and math.isfinite(mad) and mad > 0):
                raise ValueError(f"property {name!r} has mean {mean} and deviation {mad}: no scale")

    @classmethod
    def fit(
        cls,
        mols: MoleculeSet,
        names: Sequence[str],
        *,
        units: Mapping[str, str] | None = None,
        subtract_atoms: Collection[str] = (),
    ) -> Normaliser:
        """Measure the scale on a set, usually ``mols.split("train")``.

        EDM fits it on the *valid* split, also for the model trained on the second half.

        Args:
            names: the properties, in the order of the network's input.
            units: in which unit to read a property, where not as stored.
            subtract_atoms: the properties to read without their atoms' values; see
                `MoleculeSet.get` for what that means for Cv.
        """
        units = units or {}
        for given in (*units, *subtract_atoms):
            if given not in names:
                raise ValueError(f"{given!r} is not one of names: {', '.join(names)}")
        chosen = tuple(units.get(name, mols.properties.unit(name)) for name in names)
        y = _read(mols, names, chosen, subtract_atoms)
        mean = y.mean(0)
        mad = (y - mean).abs().mean(0)
        as_floats = (tuple(mean.tolist()), tuple(mad.tolist()))
        return cls(tuple(names), chosen, *as_floats, tuple(subtract_atoms))

    def targets(self, mols: MoleculeSet) -> Tensor:
        """The normalised properties of a set, (M, P) float32."""
        return self.normalise(_read(mols, self.names, self.units, self.subtract_atoms)).float()

    def normalise(self, y: Tensor) -> Tensor:
        """Properties (..., P) in ``units`` to the scale of the network."""
        return (y - y.new_tensor(self.mean)) / y.new_tensor(self.mad)

    def denormalise(self, y: Tensor) -> Tensor:
        """The way back of `normalise`."""
        return y * y.new_tensor(self.mad) + y.new_tensor(self.mean)

    def to_dict(self) -> dict[str, list[str] | list[float]]:
        """As plain lists, for JSON."""
        return {
            "names": list(self.names),
            "units": list(self.units),
            "mean": list(self.mean),
            "mad": list(self.mad),
            "subtract_atoms": list(self.subtract_atoms),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[Any]]) -> Normaliser:
        """The way back of `to_dict`."""
        return cls(
            tuple(values["names"]),
            tuple(values["units"]),
            tuple(values["mean"]),
            tuple(values["mad"]),
            tuple(values["subtract_atoms"]),
        )


def _read(
    mols: MoleculeSet, names: Sequence[str], units: Sequence[str], without_atoms: Collection[str]
) -> Tensor:
    columns = [
        mols.get(name, unit=unit, subtract_atoms=name in without_atoms)
        for name, unit in zip(names, units, strict=True)
    ]
    return torch.stack(columns, dim=1)


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is none of the known ones, with the nearest of them."""
    known = list(known)
    hint = did_you_mean(name, known)
    words = f"{kind} {name!r} is not known.", hint, f"Known: {', '.join(known) or 'none'}"
    return ValueError(" ".join(word for word in words if word))
