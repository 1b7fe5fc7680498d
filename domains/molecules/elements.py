"""The elements, and the vocabulary of those that a model knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .properties import unknown

__all__ = ["QM9_ATOMS", "SYMBOLS", "AtomVocabulary", "DataError", "UnknownElementError"]

SYMBOLS = tuple(
    "* H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og".split()
)
"""Element symbols by atomic number; ``*`` stands at 0."""

_UNKNOWN = 255


class DataError(ValueError):
    """Molecules that cannot be used: the message names the molecule and what is wrong with it."""


class UnknownElementError(DataError):
    """An atom whose element the vocabulary does not hold; ``atom`` is its place in the tensor."""

    def __init__(self, message: str, atom: int) -> None:
        super().__init__(message)
        self.atom = atom


@final
@dataclass(frozen=True)
class AtomVocabulary:
    """The elements that a model knows: type k stands for atomic number ``elements[k]``.

    >>> AtomVocabulary.of("H", "C", "N", "O", "F").encode(torch.tensor([6, 1, 1])).tolist()
    [1, 0, 0]
    """

    elements: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.elements or len(set(self.elements)) != len(self.elements):
            raise ValueError(f"elements must be one or more different ones, got {self.elements}")
        if not all(1 <= z < len(SYMBOLS) for z in self.elements):
            raise ValueError(f"elements must lie in 1..{len(SYMBOLS) - 1}, got {self.elements}")

    @classmethod
    def of(cls, *symbols: str) -> AtomVocabulary:
        """The vocabulary of these element symbols, in this order."""
        for symbol in symbols:
            if symbol not in SYMBOLS[1:]:
                raise unknown("element", symbol, SYMBOLS[1:])
        return cls(tuple(SYMBOLS.index(symbol) for symbol in symbols))

    @classmethod
    def covering(cls, z: Tensor) -> AtomVocabulary:
        """The vocabulary of the elements that occur, by rising atomic number."""
        return cls(tuple(int(element) for element in z.unique()))

    def __len__(self) -> int:
        return len(self.elements)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The element symbol of each type."""
        return tuple(SYMBOLS[z] for z in self.elements)

    def encode(self, z: Tensor) -> Tensor:
        """Types, uint8 with the shape of ``z``, of atomic numbers.

        Raises:
            UnknownElementError: an atomic number is not in the vocabulary.
        """
        table = torch.full((256,), _UNKNOWN, dtype=torch.uint8, device=z.device)
        for k, element in enumerate(self.elements):
            table[element] = k
        types = table[z.long()]
        if bool((types == _UNKNOWN).any()):
            atom = int((types == _UNKNOWN).flatten().nonzero()[0])
            element = int(z.flatten()[atom])
            symbol = SYMBOLS[element] if element < len(SYMBOLS) else "?"
            raise UnknownElementError(
                f"element {symbol} (atomic number {element}) is not in the vocabulary "
                f"{' '.join(self.symbols)}; give a vocabulary that has it, or leave the molecule "
                "out",
                atom,
            )
        return types

    def decode(self, types: Tensor) -> Tensor:
        """Atomic numbers, uint8, of types; the way back of `encode`."""
        return torch.tensor(self.elements, dtype=torch.uint8, device=types.device)[types.long()]


QM9_ATOMS = AtomVocabulary.of("H", "C", "N", "O", "F")
"""The elements of QM9, in the usual order."""
