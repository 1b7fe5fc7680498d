"""How molecules plug into the core: their fields, spaces and processes, and the typed settings of a model.

A molecule is a state of

* ``pos``: coordinates in units of ``scale`` angstrom, on the subspace of zero centre of mass;
* ``atom``: element types, either classes under a jump process or one-hot vectors under a Gaussian one;
* ``charge``: formal charges -1, 0, 1 as classes 0, 1, 2, if the data have them;
* ``bond``: bond orders 0 to 3 of every pair i < j, if the data have them; always packed, with ``context["pairs"]``.

Atoms are padded (``Masked``, or ``Dense`` where no padding is needed) or packed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Dense, Layout, Masked, Packed
from sciffusion.process import FieldProcess, Gaussian, Joint, Jump
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State

from .denoisers.base import MoleculeNet
from .denoisers.egnn import EGNN
from .denoisers.transformer import Transformer
from .elements import AtomVocabulary

__all__ = [
    "EGNNConfig",
    "ModelConfig",
    "TensorFieldConfig",
    "TransformerConfig",
    "atom_classes",
    "molecule_state",
]

CHARGES = 3
BONDS = 4


@final
@dataclass(frozen=True)
class TransformerConfig:
    """The plain transformer; see :class:`~.denoisers.transformer.Transformer`."""

    kind: Literal["transformer"] = "transformer"
    d_model: int = 192
    layers: int = 6
    heads: int = 8
    radial: int = 24
    relative_heads: int = 8
    ordered: bool = True


@final
@dataclass(frozen=True)
class EGNNConfig:
    """The E(n)-GNN; see :class:`~.denoisers.egnn.EGNN`."""

    kind: Literal["egnn"] = "egnn"
    width: int = 64
    depth: int = 5


@final
@dataclass(frozen=True)
class TensorFieldConfig:
    """The e3nn network; see :class:`~.denoisers.tensor_field.TensorField`."""

    kind: Literal["tensor-field"] = "tensor-field"


@final
@dataclass(frozen=True)
class ModelConfig:
    """A molecular model: its network and what it is trained to undo.

    ``types`` says how element types are noised: ``jump`` replaces them by uniform ones, ``absorbing`` by a mask, and
    ``gaussian`` noises a one-hot vector of length ``one_hot_scale``. ``scale`` is the number of angstrom per unit of
    length (None: measured, the root mean square coordinate of the training data). ``conditions`` names properties of
    the data set that the model may be conditioned on. ``self_condition`` lets the network see its own prediction of the
    step before; training sets it, since one that never learnt to read that input must not be given it.
    """

    network: TransformerConfig | EGNNConfig | TensorFieldConfig = TransformerConfig()
    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    schedule: Literal["rectified-flow", "cosine", "polynomial", "trig-flow"] = "rectified-flow"
    types: Literal["jump", "absorbing", "gaussian"] = "jump"
    one_hot_scale: float = 1.0
    charges: bool = False
    bonds: bool = False
    scale: float | None = None
    conditions: tuple[str, ...] = ()
    self_condition: bool = False

    @property
    def vocabulary(self) -> AtomVocabulary:
        """The elements by type."""
        return AtomVocabulary.of(*self.elements)

    def process(self) -> Joint:
        """The forward process of every field."""
        schedule, k = SCHEDULES[self.schedule], len(self.elements)
        fields: dict[str, FieldProcess] = {"pos": Gaussian(schedule, ZeroCoM())}
        if self.types == "gaussian":
            fields["atom"] = Gaussian(schedule, Euclidean())
        else:
            fields["atom"] = Jump(schedule, Categorical(k, absorbing=self.types == "absorbing"))
        if self.charges:
            fields["charge"] = Jump(schedule, Categorical(CHARGES))
        if self.bonds:
            fields["bond"] = Jump(schedule, Categorical(BONDS))
        return Joint(fields, clock="pos")

    def net(self) -> MoleculeNet:
        """The network, freshly initialised."""
        k, charges = len(self.elements), CHARGES if self.charges else 0
        conditions = dict.fromkeys(self.conditions, 1)
        match self.network:
            case TransformerConfig() as c:
                if self.bonds:
                    raise ValueError(
                        "network transformer predicts no bonds; choose egnn or bonds: false"
                    )
                return Transformer(
                    k,
                    charges,
                    conditions,
                    ordered=c.ordered,
                    d_model=c.d_model,
                    layers=c.layers,
                    heads=c.heads,
                    radial=c.radial,
                    relative_heads=c.relative_heads,
                )
            case EGNNConfig() as c:
                bonds = BONDS if self.bonds else 0
                return EGNN(k, charges, bonds, conditions, width=c.width, depth=c.depth)
            case TensorFieldConfig():
                from .denoisers.tensor_field import TensorField  # needs e3nn

                return TensorField(k, charges, BONDS if self.bonds else 0, conditions)

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser. Positions have unit variance in units of ``scale``."""
        # the standard deviation of a one-hot vector's entries, their mean left in: sqrt(1/k - 1/k^2) at most
        one_hot = self.one_hot_scale * (1 / len(self.elements)) ** 0.5
        return Preconditioned(
            self.net(),
            self.process(),
            sigma_data={"pos": 1.0, "atom": one_hot},
            self_condition=self.self_condition,
        )


def molecule_state(
    config: ModelConfig,
    pos: Tensor,
    atom: Tensor,
    *,
    mask: Tensor | None = None,
    index: Tensor | None = None,
    charge: Tensor | None = None,
    bond: Tensor | None = None,
) -> State:
    """A batch of molecules as the model's state.

    Args:
        config: of the model; its ``scale`` must be set.
        pos: angstrom, padded (B, N, 3) or packed (A, 3).
        atom: types, integers, (B, N) or (A,).
        mask: (B, N) of a padded batch; None: every place holds an atom.
        index: (A,) the molecule of each atom of a packed batch.
        charge: formal charges -1, 0 or 1, like ``atom``.
        bond: bond orders 0 to 3 of the pairs that :func:`pairs` lists, (P,).

    Raises:
        ValueError: a field that the configuration asks for is missing, or its scale is not set.
    """
    if config.scale is None:
        raise ValueError("scale of the configuration is not set; fit it to the training data")
    layout: Layout
    if index is not None:
        layout = Packed(index, int(index[-1]) + 1)
    else:
        layout = Dense(pos.shape[0]) if mask is None else Masked(mask)
    fields: dict[str, Tensor] = {"pos": pos / config.scale, "atom": atom}
    layouts: dict[str, Layout] = {"pos": layout, "atom": layout}
    if config.types == "gaussian":
        one_hot = torch.nn.functional.one_hot(atom, len(config.elements)).to(pos)
        fields["atom"] = layout.clean(one_hot * config.one_hot_scale)
    if config.charges:
        if charge is None:
            raise ValueError("charge is missing: the configuration has charges: true")
        fields["charge"], layouts["charge"] = layout.clean(charge.long() + 1), layout
    context: dict[str, Tensor] = {}
    if config.bonds:
        if bond is None:
            raise ValueError("bond is missing: the configuration has bonds: true")
        sizes = layout.points(pos)
        context["pairs"], owner = pairs(sizes)
        fields["bond"], layouts["bond"] = bond, Packed(owner, layout.batch)
    return State(fields, layouts, context)


def pairs(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs i < j of packed molecules of these sizes: atoms (2, P) and the molecule (P,) of each pair.

    Raises ``ValueError`` for a molecule of one atom, which has no pair.
    """
    if bool((sizes < 2).any()):
        raise ValueError("a molecule of one atom has no bonds; leave it out or use bonds: false")
    start = sizes.cumsum(0) - sizes
    blocks = [torch.triu_indices(n, n, 1, device=sizes.device) for n in sizes.tolist()]
    owner = torch.repeat_interleave(
        torch.arange(len(blocks), device=sizes.device), sizes * (sizes - 1) // 2
    )
    return torch.cat([b + s for b, s in zip(blocks, start, strict=True)], 1), owner


def atom_classes(atom: Tensor) -> Tensor:
    """Element types of a sampled field: classes as they are, noised one-hot vectors by their largest entry."""
    return atom.argmax(-1) if atom.is_floating_point() else atom
