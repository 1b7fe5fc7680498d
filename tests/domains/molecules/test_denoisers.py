"""The contract of every molecular network, and what each one promises beyond it."""

import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, final

import pytest
import torch
from torch import Tensor, nn

from sciffusion.domains.molecules.denoisers import egnn
from sciffusion.domains.molecules.denoisers.base import MoleculeNet, MoleculeScalars
from sciffusion.domains.molecules.denoisers.blocks import Blocks
from sciffusion.domains.molecules.denoisers.egnn import EGNN, PairLinear
from sciffusion.domains.molecules.denoisers.tensor_field import TensorField
from sciffusion.domains.molecules.denoisers.transformer import Transformer
from sciffusion.errors import MissingExtra
from sciffusion.layout import Dense, Layout, Masked, Packed
from sciffusion.state import State

TYPES, CHARGES, BONDS = 5, 3, 4
SIZES = (5, 1, 9, 5, 2)


@final
@dataclass(frozen=True)
class Case:
    """A network, and whether it turns with the molecule and forgets the order of its atoms."""

    name: str
    build: Callable[[Mapping[str, int]], MoleculeNet]
    equivariant: bool
    package: str = "torch"
    double: bool = True


CASES = [
    Case("egnn", lambda c: EGNN(TYPES, CHARGES, conditions=c, width=24, depth=3), True),
    Case(
        "egnn_in_one_padded_block",
        lambda c: EGNN(TYPES, CHARGES, conditions=c, width=24, depth=3, by_size=False),
        True,
    ),
    Case(
        "tensor_field",
        lambda c: TensorField(
            TYPES, CHARGES, conditions=c, hidden="12x0e + 6x1o + 3x2e", depth=2, radial_width=16
        ),
        True,
        package="e3nn",
    ),
    Case(
        "transformer",
        lambda c: Transformer(TYPES, CHARGES, c, d_model=24, layers=2, heads=3),
        False,
        double=False,  # it computes positions and logits in single precision, whatever it is given
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
equivariant = pytest.mark.parametrize(
    "case", [case for case in CASES if case.equivariant], ids=lambda case: case.name
)


@final
@dataclass(frozen=True)
class Molecule:
    """One molecule with everything that a network gets to know about it."""

    pos: Tensor
    atom: Tensor
    charge: Tensor
    before: tuple[Tensor, Tensor, Tensor]
    log_snr: tuple[float, float, float]
    mu: float
    polarizability: tuple[float, float]

    def turned(self, by: Tensor) -> "Molecule":
        pos, atom, charge = self.before
        return replace(self, pos=self.pos @ by.T, before=(pos @ by.T, atom, charge))

    def moved(self, by: Tensor) -> "Molecule":
        return replace(self, pos=self.pos + by)

    def permuted(self, order: Tensor) -> "Molecule":
        a, b, c = self.before
        return replace(
            self,
            pos=self.pos[order],
            atom=self.atom[order],
            charge=self.charge[order],
            before=(a[order], b[order], c[order]),
        )


def molecules(sizes: Sequence[int] = SIZES, seed: int = 0) -> list[Molecule]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(torch.get_default_dtype())

    def one(n: int) -> Molecule:
        before = (normal(n, 3), normal(n, TYPES).softmax(1), normal(n, CHARGES).softmax(1))
        a, b, c, mu, xx, yy = normal(6).tolist()
        atom, charge = normal(n, TYPES), normal(n, CHARGES)
        return Molecule(normal(n, 3), atom, charge, before, (3 * a, 3 * b, 3 * c), mu, (xx, yy))

    return [one(n) for n in sizes]


def pack(parts: Sequence[Tensor]) -> tuple[Tensor, Layout]:
    index = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))
    return torch.cat(list(parts)), Packed(index, len(parts))


def pad(parts: Sequence[Tensor], fill: float = 0.0) -> tuple[Tensor, Layout]:
    sizes = torch.tensor([len(p) for p in parts])
    mask = torch.arange(int(sizes.max()) + 2) < sizes[:, None]  # two columns that nobody uses
    out = parts[0].new_full((*mask.shape, *parts[0].shape[1:]), fill)
    out[mask] = torch.cat(list(parts))
    return out, Masked(mask)


def state(arrange: Callable[..., tuple[Tensor, Layout]], *fields: Sequence[Tensor]) -> State:
    arranged = [arrange(f) for f in fields]
    names = ("pos", "atom", "charge")
    return State({k: x for k, (x, _) in zip(names, arranged, strict=True)}, arranged[0][1])


def run(
    net: MoleculeNet,
    batch: Sequence[Molecule],
    arrange: Callable[..., tuple[Tensor, Layout]] = pack,
    conditions: Sequence[str] = ("mu", "polarizability"),
    self_conditioning: bool = True,
) -> list[dict[str, Tensor]]:
    """The outputs for every molecule, however the batch is laid out."""
    x = state(arrange, *([getattr(m, k) for m in batch] for k in ("pos", "atom", "charge")))
    previous = state(arrange, *([m.before[k] for m in batch] for k in range(3)))
    levels = torch.tensor([m.log_snr for m in batch]).unbind(1)
    cond = {k: torch.tensor([getattr(m, k) for m in batch]) for k in conditions}
    out = net(
        x,
        dict(zip(("pos", "atom", "charge"), levels, strict=True)),
        cond,
        previous if self_conditioning else None,
    )
    assert set(out) == set(x)
    for name, value in out.items():
        assert value.shape == x[name].shape
    layout = x.layout("pos")
    if isinstance(layout, Masked):
        out = {k: v[layout.mask] for k, v in out.items()}
    parts = [v.split([len(m.pos) for m in batch]) for v in out.values()]
    return [dict(zip(out, values, strict=True)) for values in zip(*parts, strict=True)]


def difference(a: Sequence[Mapping[str, Tensor]], b: Sequence[Mapping[str, Tensor]]) -> float:
    """The largest deviation of a field, relative to the field's size or to 1."""
    errors = []
    for name in a[0]:
        left, right = torch.cat([m[name] for m in a]), torch.cat([m[name] for m in b])
        scale = max(1.0, float(right.detach().abs().max()))
        errors.append(float((left - right).detach().abs().max()) / scale)
    return math.inf if any(map(math.isnan, errors)) else max(errors)  # max() overlooks a NaN


def build(case: Case) -> MoleculeNet:
    """The network of a case in the default precision; tests must leave its weights alone."""
    pytest.importorskip(case.package)
    if torch.get_default_dtype() == torch.float64 and not case.double:
        pytest.skip("computes in single precision")
    net = _built(case, torch.get_default_dtype())
    net.zero_grad()
    return net


@cache
def _built(case: Case, dtype: torch.dtype) -> MoleculeNet:
    torch.manual_seed(1)
    net = awake(case.build({"mu": 1, "polarizability": 2}))
    out = run(net, molecules())
    for name in out[0]:
        assert torch.cat([m[name] for m in out]).square().mean() > 1e-4
    return net


def awake(net: MoleculeNet) -> MoleculeNet:
    """The same network with larger weights: networks begin near zero, where every law holds trivially."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * (0.5 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.1))
    return net


@pytest.fixture(params=["float32", "float64"])
def tolerance(request: pytest.FixtureRequest) -> Iterator[float]:
    """The whole test in one precision, with the error that it allows."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.param))
    yield {"float32": 1e-5, "float64": 1e-10}[request.param]
    torch.set_default_dtype(before)


def orthogonal(seed: int, sign: Literal[1, -1]) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
    return (q * (sign * torch.linalg.det(q))).to(torch.get_default_dtype())


# --- every network ---------------------------------------------------------------------------


@every
def test_a_molecule_alone_is_the_molecule_in_a_batch(case: Case, tolerance: float) -> None:
    net, batch = build(case), molecules()
    alone = [run(net, [m])[0] for m in batch]
    assert difference(run(net, batch), alone) < tolerance


@every
def test_padded_molecules_are_packed_molecules(case: Case, tolerance: float) -> None:
    net, batch = build(case), molecules()
    assert difference(run(net, batch, pad), run(net, batch)) < tolerance


@every
def test_molecules_of_one_size_need_neither_padding_nor_packing(
    case: Case, tolerance: float
) -> None:
    net, batch = build(case), molecules((6, 6, 6))

    def stack(parts: Sequence[Tensor]) -> tuple[Tensor, Layout]:
        return torch.stack(list(parts)), Masked(torch.ones(len(parts), 6, dtype=torch.bool))

    def dense(parts: Sequence[Tensor]) -> tuple[Tensor, Layout]:
        return pack(parts)[0].view(len(parts), 6, -1), Dense(len(parts))

    packed = run(net, batch)
    assert difference(run(net, batch, stack), packed) < tolerance
    x = state(dense, *([getattr(m, k) for m in batch] for k in ("pos", "atom", "charge")))
    levels = torch.tensor([m.log_snr for m in batch]).unbind(1)
    out = net(x, dict(zip(x, levels, strict=True)))
    bare = run(net, batch, conditions=(), self_conditioning=False)
    assert difference([{k: v[i] for k, v in out.items()} for i in range(3)], bare) < tolerance


@every
@pytest.mark.parametrize("fill", [1e6, -1e6, float("nan")])
def test_what_stands_in_the_padding_never_matters(case: Case, fill: float) -> None:
    net, batch = build(case), molecules()
    dirty = run(net, batch, lambda parts: pad(parts, fill))
    assert difference(dirty, run(net, batch, pad)) == 0


@every
def test_a_single_atom_gives_finite_outputs_and_gradients(case: Case) -> None:
    net = build(case)
    (only,) = molecules((1,))
    (out,) = run(net, [only])
    torch.stack([v.square().sum() for v in out.values()]).sum().backward()
    assert all(v.isfinite().all() for v in out.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@every
def test_gradients_are_finite_where_atoms_coincide(case: Case) -> None:
    net, (m,) = build(case), molecules((5,))
    pos = m.pos.clone()
    pos[1] = pos[0]
    pos.requires_grad_()
    before = (pos.detach().clone().requires_grad_(), m.before[1], m.before[2])
    (out,) = run(net, [replace(m, pos=pos, before=before)])
    torch.stack([v.square().sum() for v in out.values()]).sum().backward()
    for grad in (pos.grad, before[0].grad, *(p.grad for p in net.parameters())):
        assert grad is None or (grad.isfinite().all() and grad.abs().max() < 1e6)


@every
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: replace(m, mu=2.0), id="mu"),
        pytest.param(lambda m: replace(m, polarizability=(0.5, 2.0)), id="polarizability"),
        pytest.param(lambda m: replace(m, log_snr=(5.0, -4.0, 2.0)), id="log_snr"),
        pytest.param(
            lambda m: replace(m, before=(molecules((9,), 3)[0].pos, *m.before[1:])),
            id="previous_positions",
        ),
        pytest.param(
            lambda m: replace(m, before=(m.before[0], *molecules((9,), 3)[0].before[1:])),
            id="previous_types",
        ),
    ],
)
def test_what_is_known_of_a_molecule_changes_its_output_and_no_other(
    case: Case, change: Callable[[Molecule], Molecule]
) -> None:
    net, batch = build(case), molecules()
    changed = [change(m) if i == 2 else m for i, m in enumerate(batch)]
    before, after = run(net, batch), run(net, changed)
    for name in before[0]:
        assert (after[2][name] - before[2][name]).abs().max() > 1e-3
    others = [i for i in range(len(batch)) if i != 2]
    assert difference([after[i] for i in others], [before[i] for i in others]) == 0


@every
def test_without_a_previous_prediction_the_output_differs(case: Case) -> None:
    net, batch = build(case), molecules()
    for with_it, without in zip(
        run(net, batch), run(net, batch, self_conditioning=False), strict=True
    ):
        assert all((with_it[k] - without[k]).abs().max() > 1e-3 for k in ("atom", "charge"))


@every
def test_a_condition_that_is_nan_is_a_condition_that_is_not_given(case: Case) -> None:
    net, batch = build(case), molecules()
    nan = [replace(m, polarizability=(1.0, float("nan"))) for m in batch]
    assert difference(run(net, nan), run(net, batch, conditions=("mu",))) == 0
    zero = [replace(m, polarizability=(0.0, 0.0)) for m in batch]
    assert difference(run(net, zero), run(net, nan)) > 1e-3  # zero is a value


@every
def test_an_unknown_condition_is_refused(case: Case) -> None:
    net = build(case)
    batch = molecules()
    x = state(pack, *([getattr(m, k) for m in batch] for k in ("pos", "atom", "charge")))
    levels = {name: torch.zeros(len(batch)) for name in x}
    with pytest.raises(ValueError, match="mu"):
        net(x, levels, {"mew": torch.zeros(len(batch))})
    with pytest.raises(ValueError, match="shape"):
        net(x, levels, {"polarizability": torch.zeros(len(batch))})


@every
def test_forward_and_reverse_derivatives_agree(case: Case, tolerance: float) -> None:
    net, (m,) = build(case), molecules((6,))
    u, v = molecules((6,), seed=5)[0].pos, molecules((6,), seed=6)[0].pos

    def f(pos: Tensor) -> Tensor:
        return run(net, [replace(m, pos=pos)])[0]["pos"]

    forward: Tensor = torch.func.jvp(f, (m.pos,), (v,))[1]
    (reverse,) = torch.func.vjp(f, m.pos)[1](u)
    scale = float(forward.detach().abs().max() * u.abs().sum())
    gap = float(((u * forward).sum() - (reverse * v).sum()).detach())
    assert abs(gap) < tolerance * max(1.0, scale)


@every
def test_a_copy_of_the_network_computes_the_same(case: Case) -> None:
    net, batch = build(case), molecules()
    twin = deepcopy(net)
    twin.load_state_dict(net.state_dict())
    assert difference(run(twin, batch), run(net, batch)) == 0


@every
def test_inference_computes_what_training_computes(case: Case, tolerance: float) -> None:
    net, batch = build(case), molecules()
    with torch.no_grad():
        quick = run(net, batch)
    assert difference(quick, run(net, batch)) < tolerance


@every
def test_positions_stay_in_single_precision_under_autocast(case: Case) -> None:
    net, batch = build(case), molecules()
    exact = run(net, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = run(net, batch)
    assert all(m["pos"].dtype == torch.float32 for m in rough)
    assert difference(rough, exact) < 0.1


# --- equivariant networks --------------------------------------------------------------------


@equivariant
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "reflection"])
def test_the_output_turns_with_the_molecule(
    case: Case, sign: Literal[1, -1], tolerance: float
) -> None:
    net, batch = build(case), molecules()
    turns = [orthogonal(i, sign) for i in range(len(batch))]
    turned = run(net, [m.turned(q) for m, q in zip(batch, turns, strict=True)])
    expected = [m | {"pos": m["pos"] @ q.T} for m, q in zip(run(net, batch), turns, strict=True)]
    assert difference(turned, expected) < tolerance


@equivariant
def test_the_output_does_not_depend_on_where_the_molecule_is(case: Case, tolerance: float) -> None:
    net, batch = build(case), molecules()
    shifts = molecules((len(batch),), seed=8)[0].pos
    moved = run(net, [m.moved(s) for m, s in zip(batch, shifts, strict=True)])
    assert difference(moved, run(net, batch)) < tolerance


@equivariant
def test_the_output_follows_the_order_of_the_atoms(case: Case, tolerance: float) -> None:
    net, batch = build(case), molecules()
    g = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(m.pos), generator=g) for m in batch]
    permuted = run(net, [m.permuted(o) for m, o in zip(batch, orders, strict=True)])
    expected = [
        {k: v[o] for k, v in m.items()} for m, o in zip(run(net, batch), orders, strict=True)
    ]
    assert difference(permuted, expected) < tolerance


@equivariant
def test_displacements_leave_the_centre_where_it_is(case: Case, tolerance: float) -> None:
    for m in run(build(case), molecules()):
        pos = m["pos"].detach()
        assert pos.mean(0).abs().max() < tolerance * max(1.0, float(pos.abs().max()))


# --- bonds -----------------------------------------------------------------------------------

WITH_BONDS = [
    pytest.param(lambda: EGNN(TYPES, bonds=BONDS, width=24, depth=2), id="egnn"),
    pytest.param(lambda: EGNN(TYPES, bonds=BONDS, width=24, depth=2, by_size=False), id="padded"),
    pytest.param(
        lambda: TensorField(TYPES, bonds=BONDS, hidden="12x0e + 6x1o", depth=2, radial_width=16),
        id="tensor_field",
    ),
]
with_bonds = pytest.mark.parametrize("make", WITH_BONDS)


def bonded(make: Callable[[], MoleculeNet]) -> MoleculeNet:
    torch.manual_seed(2)
    return awake(make())


def run_with_bonds(
    net: MoleculeNet,
    batch: Sequence[Molecule],
    pairs: Tensor,
    bond: Tensor,
    arrange: Callable[..., tuple[Tensor, Layout]] = pack,
    before: Tensor | None = None,
) -> dict[str, Tensor]:
    """Outputs in the packed order; ``pairs`` names rows of that order."""
    pos, layout = arrange([m.pos for m in batch])
    atom, _ = arrange([m.atom for m in batch])
    owner = pack([m.pos for m in batch])[1]
    assert isinstance(owner, Packed)
    layouts = {"pos": layout, "atom": layout, "bond": Packed(owner.index[pairs[0]], len(batch))}
    x = State({"pos": pos, "atom": atom, "bond": bond}, layouts, {"pairs": pairs})
    previous = None if before is None else x.replace({"bond": before})
    levels = {k: torch.tensor([m.log_snr[0] for m in batch]) for k in x}
    out = net(x, levels, None, previous)
    assert out["bond"].shape == bond.shape
    return {
        k: v[layout.mask] if isinstance(layout, Masked) and k != "bond" else v
        for k, v in out.items()
    }


def all_pairs(batch: Sequence[Molecule]) -> tuple[Tensor, Tensor]:
    pairs, start = [], 0
    for m in batch:
        pairs.append(torch.triu_indices(len(m.pos), len(m.pos), 1) + start)
        start += len(m.pos)
    joined = torch.cat(pairs, 1)
    g = torch.Generator().manual_seed(4)
    return joined, torch.randn(joined.shape[1], BONDS, generator=g)


@with_bonds
def test_bonds_have_no_direction(make: Callable[[], MoleculeNet], tolerance: float) -> None:
    net, batch = bonded(make), molecules((4, 2, 6, 4))
    pairs, bond = all_pairs(batch)
    out = run_with_bonds(net, batch, pairs, bond, before=2 * bond)
    flipped = run_with_bonds(net, batch, pairs.flip(0), bond, before=2 * bond)
    assert difference([out], [flipped]) < tolerance


@with_bonds
def test_bonds_follow_the_order_of_the_atoms(
    make: Callable[[], MoleculeNet], tolerance: float
) -> None:
    net, batch = bonded(make), molecules((4, 2, 6, 4))
    pairs, bond = all_pairs(batch)
    orders = [torch.randperm(len(m.pos)) for m in batch]
    old_row = torch.cat([o + s for o, s in zip(orders, (0, 4, 6, 12), strict=True)])
    permuted = [m.permuted(o) for m, o in zip(batch, orders, strict=True)]
    out = run_with_bonds(net, batch, pairs, bond)
    renamed = old_row.argsort()[pairs].sort(0).values
    again = run_with_bonds(net, permuted, renamed, bond)
    expected = {k: v if k == "bond" else v[old_row] for k, v in out.items()}
    assert difference([again], [expected]) < tolerance


@with_bonds
def test_bonds_are_the_same_padded_and_packed(
    make: Callable[[], MoleculeNet], tolerance: float
) -> None:
    net, batch = bonded(make), molecules((4, 2, 6, 4))
    pairs, bond = all_pairs(batch)
    packed = run_with_bonds(net, batch, pairs, bond, before=bond.softmax(1))
    padded = run_with_bonds(net, batch, pairs, bond, pad, before=bond.softmax(1))
    assert difference([padded], [packed]) < tolerance


@with_bonds
@pytest.mark.parametrize("earlier", [False, True], ids=["noised", "previous"])
def test_a_bond_is_heard_by_its_own_molecule_only(
    make: Callable[[], MoleculeNet], earlier: bool
) -> None:
    net, batch = bonded(make), molecules((4, 2, 6, 4))
    pairs, bond = all_pairs(batch)
    other = bond.clone()
    other[10] += 1  # in the third molecule: rows 6 to 11
    a = run_with_bonds(net, batch, pairs, bond, before=bond)
    b = run_with_bonds(
        net, batch, pairs, bond if earlier else other, before=other if earlier else bond
    )
    change = (a["atom"] - b["atom"]).abs().amax(1)
    assert (change[6:12] > 1e-4).all()
    assert change[:6].max() == change[12:].max() == 0


# --- the shared parts ------------------------------------------------------------------------


def test_scalars_tell_an_absent_condition_from_zero() -> None:
    scalars = MoleculeScalars(["pos"], {"mu": 1})
    level = {"pos": torch.tensor([0.0, 2.0, -40.0])}
    out = scalars(level, {"mu": torch.tensor([0.0, float("nan"), 3.0])}, 3)
    assert out.shape == (3, scalars.width)
    assert out[:, 1].tolist() == torch.sigmoid(torch.tensor([0.0, 1.0, -20.0])).tolist()
    assert out[:, 2:].tolist() == [[0, 1], [0, 0], [3, 1]]


@pytest.mark.parametrize("by_size", [True, False])
@pytest.mark.parametrize("arrange", [pack, pad])
def test_blocks_give_back_what_they_take(
    arrange: Callable[..., tuple[Tensor, Layout]], by_size: bool
) -> None:
    x, layout = arrange([m.pos for m in molecules()])
    blocks = Blocks.of(layout, x, by_size)
    assert torch.equal(blocks.give(blocks.take(x), x), x)
    owner = layout.spread(torch.arange(len(SIZES)), x).expand(x.shape[:-1])
    same = blocks.give(blocks.molecule.unsqueeze(1), x).squeeze(-1)
    assert torch.equal(layout.clean(same), layout.clean(owner))


def test_blocks_by_size_hold_every_pair_and_no_padding() -> None:
    x, layout = pad([m.pos for m in molecules()])
    blocks = Blocks.of(layout, x, by_size=True)
    assert sorted(map(tuple, blocks.shapes)) == [(1, 1), (1, 2), (1, 9), (2, 5)]
    assert blocks.pairs == sum(n * n for n in SIZES)
    to, origin = blocks.edges()
    assert len(to) == sum(n * (n - 1) for n in SIZES)
    assert torch.equal(blocks.molecule[to], blocks.molecule[origin])
    assert len(set(zip(to.tolist(), origin.tolist(), strict=True))) == len(to)


@pytest.mark.parametrize("limit", [1, 7, 30, 60, 10_000])
def test_parts_cut_between_molecules_and_keep_the_order(limit: int) -> None:
    x, layout = pack([m.pos for m in molecules((5,) * 7 + (3, 3))])
    blocks = Blocks.of(layout, x, by_size=True)
    parts = list(blocks.parts(limit))
    assert torch.equal(torch.cat([p.molecule for p in parts]), blocks.molecule)
    assert torch.equal(torch.cat([p.take(x) for p in parts]), blocks.take(x))
    assert all(p.pairs <= max(25, limit + 13) for p in parts)


def test_a_pair_linear_is_the_linear_layer_on_the_concatenation() -> None:
    torch.manual_seed(0)
    x, layout = pack([m.pos for m in molecules()])
    blocks = Blocks.of(layout, x, by_size=True)
    layer, h = PairLinear(7, 3, 4), torch.randn(len(blocks), 7)
    f = torch.cat([torch.randn(blocks.pairs, 2), torch.ones(blocks.pairs, 1)], 1)
    f = torch.cat([f[:, :1], f], 1)[:, :4]  # 3 features and the one
    i, j = (blocks.split(v) for v in layer.atoms(h))
    pairs = zip(i, j, blocks.split_pairs(f), strict=True)
    fast = torch.cat([layer.pairs(*p).flatten(0, 2) for p in pairs])
    ends = [
        torch.cat(
            [torch.cat([a.expand_as(b), b], -1).flatten(0, 2) for a, b in grid(blocks.split(h))]
        )
    ]
    plain = layer.linear(torch.cat([*ends, f[:, :3]], 1))
    torch.testing.assert_close(fast, plain)
    to, origin = blocks.edges()
    kept = blocks.pair_mask().squeeze(1)
    torch.testing.assert_close(layer.edges(h, to, origin, f[kept, :3]), plain[kept])


def grid(parts: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for h in parts:
        g, n, d = h.shape
        yield h.unsqueeze(2).expand(g, n, n, d), h.unsqueeze(1).expand(g, n, n, d)


# --- EGNN ------------------------------------------------------------------------------------


def edm_reference() -> ModuleType:
    """EDM's network in the plain form: the benchmark's yardstick, written independently."""
    path = Path(__file__).resolve().parents[3] / "benchmarks/edm_reference.py"
    spec = importlib.util.spec_from_file_location("edm_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("arrange", [pack, pad])
def test_egnn_is_edms_network(
    arrange: Callable[..., tuple[Tensor, Layout]],
) -> None:
    width, depth = 16, 3
    reference = edm_reference()
    torch.manual_seed(0)
    net = EGNN(TYPES, CHARGES, width=width, depth=depth).double()
    plain = reference.EDMReference(1, TYPES, width, depth).double()
    embedded: list[Tensor] = []
    ours: Any
    theirs: Any
    net.embed.register_forward_hook(lambda module, args, out: embedded.append(out))
    with torch.no_grad():
        for ours, theirs in zip(list(net.layers), list(plain.layers), strict=True):
            nn.init.normal_(theirs.phi_x[4].weight)
            first = torch.cat([theirs.phi_e[0].weight, theirs.phi_x[0].weight])
            ours.pairs_in.linear.weight.zero_()  # the distances of a previous prediction: unused
            ours.pairs_in.linear.weight[:, : 2 * width + 2] = first
            ours.pairs_in.linear.bias.copy_(torch.cat([theirs.phi_e[0].bias, theirs.phi_x[0].bias]))
            for a, b in (
                (ours.message, theirs.phi_e[2]),
                (ours.gate, theirs.phi_inf[0]),
                (ours.move, theirs.phi_x[2]),
                (ours.length, theirs.phi_x[4]),
                (ours.update[0], theirs.phi_h[0]),
                (ours.update[2], theirs.phi_h[2]),
            ):
                a.load_state_dict(b.state_dict())
        plain.head = net.heads["atom"]
        plain.embed = nn.Identity()
    batch = molecules()
    x = State(
        {
            k: arrange([getattr(m, k).double() for m in batch])[0].double()
            for k in ("pos", "atom", "charge")
        },
        arrange([m.pos for m in batch])[1],
    )
    out = net(x, {k: torch.zeros(len(batch), dtype=torch.float64) for k in x})

    padded = pad([m.pos.double() for m in batch])
    assert isinstance(padded[1], Masked)
    blocks = Blocks.of(x.layout("pos"), x["pos"], by_size=True)
    h = blocks.give(embedded[0], x["pos"])
    h = pad(h.split(list(SIZES)))[0].double() if arrange is pack else h
    mask = padded[1].mask
    i, j, edges = reference.complete_edges(mask)
    logits, moved = plain(
        h.flatten(0, 1), padded[0].double().flatten(0, 1), i, j, mask.view(-1, 1), edges.double()
    )
    logits, moved = logits[mask.view(-1)], moved[mask.view(-1)]
    moved = torch.cat([m - m.mean(0) for m in moved.split(list(SIZES))])
    atom, pos = (out[k][mask] if arrange is pad else out[k] for k in ("atom", "pos"))
    torch.testing.assert_close(atom, logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(pos, moved, rtol=0, atol=1e-10)


def test_egnn_has_the_published_number_of_parameters() -> None:
    published = 5.34e6  # width 256, 9 layers, 5 types and a charge: counted on the authors' code

    def count(net: nn.Module) -> int:
        return sum(p.numel() for p in net.parameters())

    assert count(edm_reference().EDMReference(7, 6)) == pytest.approx(published, rel=1e-3)
    assert count(EGNN(TYPES, 1)) == pytest.approx(published, rel=5e-3)


def test_egnn_does_not_depend_on_what_fits_into_the_cache(
    monkeypatch: pytest.MonkeyPatch, tolerance: float
) -> None:
    net, batch = build(CASES[0]), molecules((4,) * 9 + SIZES)
    whole = run(net, batch)
    for pairs in (1, 20, 100):
        monkeypatch.setattr(egnn, "_PAIRS_IN_CACHE", pairs)
        assert difference(run(net, batch), whole) < tolerance


def test_egnn_moves_no_atom_farther_than_its_reach() -> None:
    net, (m,) = deepcopy(build(CASES[0])), molecules((9,))
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("length.weight"):
                p.mul_(1e4)
    far = replace(m, pos=m.pos * 1e3)
    assert run(net, [far])[0]["pos"].norm(dim=1).max() <= 2 * 15.0 * 8


# --- TensorField -----------------------------------------------------------------------------


def test_importing_the_tensor_field_imports_no_e3nn() -> None:
    code = (
        "import sys, sciffusion.domains.molecules.denoisers.tensor_field;"
        "assert 'e3nn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_e3nn_building_a_tensor_field_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "e3nn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "e3nn", None)
    with pytest.raises(MissingExtra, match=r"sciffusion\[molecules\]"):
        TensorField()


@pytest.mark.parametrize("hidden", ["8x0e", "8x1o", "4x0o + 4x1o"])
def test_a_tensor_field_needs_scalars_and_vectors(hidden: str) -> None:
    pytest.importorskip("e3nn")
    with pytest.raises(ValueError, match="0e"):
        TensorField(hidden=hidden)


def test_a_tensor_field_takes_any_representations_in_any_order() -> None:
    pytest.importorskip("e3nn")
    hidden = "2x1e + 3x2e + 8x0e + 2x0o + 4x1o + 2x2o"
    case = Case("any", lambda c: TensorField(TYPES, CHARGES, 0, c, hidden, depth=2), True)
    net, batch, q = build(case), molecules(), orthogonal(0, -1)
    expected = [m | {"pos": m["pos"] @ q.T} for m in run(net, batch)]
    assert difference(run(net, [m.turned(q) for m in batch]), expected) < 1e-5
