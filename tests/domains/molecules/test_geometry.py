"""Rotations are uniform on SO(3); the chain order is a permutation that keeps hydrogens at home."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.domains.molecules import geometry
from sciffusion.domains.molecules.geometry import chain_order, random_rotations


def rotations(n: int, seed: int = 0) -> torch.Tensor:
    return random_rotations(n, torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotations_are_orthogonal_with_determinant_one() -> None:
    r = rotations(1000)
    torch.testing.assert_close(r @ r.mT, torch.eye(3).double().expand(1000, 3, 3))
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(1000).double())


def test_rotations_have_the_moments_of_the_haar_measure() -> None:
    n = 200_000
    r = rotations(n).reshape(n, 9)
    error = 5 / n**0.5  # five standard errors: every entry has variance 1/3
    assert r.mean(0).abs().max() < error
    second = r.T @ r / n  # E[R_ij R_kl] = delta_ik delta_jl / 3
    torch.testing.assert_close(second, torch.eye(9).double() / 3, atol=error, rtol=0)
    # E[R_11 R_22 R_33] and its like: the third moment is epsilon epsilon / 6 (determinant)
    third = torch.einsum("na,nb,nc->abc", r, r, r).view(3, 3, 3, 3, 3, 3) / n
    epsilon = torch.zeros(3, 3, 3).double()
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        epsilon[i, j, k], epsilon[i, k, j] = 1, -1
    expected = torch.einsum("ikm,jln->ijklmn", epsilon, epsilon) / 6
    torch.testing.assert_close(third, expected, atol=error, rtol=0)


def test_a_fixed_rotation_of_random_rotations_changes_no_distribution() -> None:
    n = 100_000
    turned = rotations(n) @ rotations(1, seed=9)
    traces = torch.diagonal(turned, dim1=1, dim2=2).sum(1)  # 1 + 2 cos(angle)
    assert traces.mean().abs() < 5 / n**0.5  # Haar: E[tr] = 0, E[tr^2] = 1
    assert (traces.square().mean() - 1).abs() < 10 / n**0.5


def test_rotations_follow_their_generator() -> None:
    assert torch.equal(rotations(3, seed=4), rotations(3, seed=4))
    assert not torch.equal(rotations(3, seed=4), rotations(3, seed=5))


def test_each_hydrogen_follows_its_nearest_heavy_atom() -> None:
    # O-C with a hydrogen on each, three on C; file order: heavy atoms first, hydrogens mixed
    z = torch.tensor([8, 6, 1, 1, 1, 1])
    x = torch.tensor([0.0, 1.4, 1.5, -0.9, 1.6, 1.3])
    pos = torch.stack([x, torch.zeros(6), torch.zeros(6)], dim=1)
    assert chain_order(z, pos, torch.tensor([0, 6])).tolist() == [0, 3, 1, 2, 4, 5]


def test_a_molecule_without_heavy_atoms_keeps_its_order() -> None:
    z = torch.tensor([1, 1, 1, 6])
    order = chain_order(z, torch.randn(4, 3), torch.tensor([0, 2, 4]))
    assert order.tolist() == [0, 1, 3, 2]
    assert chain_order(z[:2], torch.randn(2, 3), torch.tensor([0, 2])).tolist() == [0, 1]


@given(
    st.lists(st.lists(st.sampled_from([1, 6, 8]), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(0, 2**31),
)
def test_the_order_of_the_whole_set_is_that_of_each_molecule_by_a_plain_loop(
    mols: list[list[int]], seed: int
) -> None:
    z = torch.tensor([z for mol in mols for z in mol])
    pos = torch.randn(len(z), 3, generator=torch.Generator().manual_seed(seed))
    ptr = np.cumsum([0, *map(len, mols)])
    expected = []
    for start, end in zip(ptr, ptr[1:], strict=False):
        heavy = [a for a in range(start, end) if z[a] > 1]
        home = {
            a: min(heavy, key=lambda b: float((pos[a] - pos[b]).norm()))
            for a in range(start, end)
            if z[a] == 1 and heavy
        }
        if not heavy:
            expected += list(range(start, end))
        for b in heavy:
            expected += [b, *(a for a in range(start, end) if home.get(a) == b)]
    assert chain_order(z, pos, torch.from_numpy(ptr)).tolist() == expected


def test_the_order_does_not_depend_on_how_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.tensor([6, 1, 8, 1, 1, 6, 1] * 50)
    pos = torch.randn(350, 3, generator=torch.Generator().manual_seed(0))
    whole = chain_order(z, pos, torch.arange(0, 351, 7))
    monkeypatch.setattr(geometry, "_DISTANCES_AT_ONCE", 5)
    assert torch.equal(chain_order(z, pos, torch.arange(0, 351, 7)), whole)
