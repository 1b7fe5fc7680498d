"""Geometry that training needs: random rotations, and an order of the atoms that follows bonds."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["chain_order", "random_rotations"]

_DISTANCES_AT_ONCE = 4_000_000


def random_rotations(
    n: int,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """``n`` rotation matrices (n, 3, 3), uniform on SO(3); rotate rows by ``pos @ R.mT``.

    A normalised 4D Gaussian is uniform on the unit quaternions, which cover SO(3) evenly (twice).
    The numbers are drawn on the generator's device (the CPU without one) and moved to ``device``,
    so that a seed of a CPU generator means the same everywhere.
    """
    source = generator.device if generator is not None else torch.device("cpu")
    q = torch.randn(n, 4, generator=generator, dtype=dtype, device=source)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    entries = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(entries, dim=1).view(n, 3, 3).to(device if device is not None else source)


def chain_order(z: Tensor, pos: Tensor, ptr: Tensor) -> Tensor:
    """The permutation (A,) of packed atoms that puts each hydrogen right after its heavy atom.

    Heavy atoms keep their order, and the hydrogens of one heavy atom keep theirs. A hydrogen goes
    to the heavy atom of its molecule that is nearest; no bonds are guessed. A molecule without
    heavy atoms keeps its order. Use it as ``pos[order]``.

    Args:
        z: (A,) atomic numbers.
        pos: (A, 3) positions.
        ptr: (M + 1,): molecule m owns atoms ``ptr[m]:ptr[m + 1]``.
    """
    atoms = torch.arange(len(z), device=z.device)
    molecule = torch.repeat_interleave(torch.arange(len(ptr) - 1, device=z.device), ptr.diff())
    hydrogen = z == 1
    heavy = atoms[~hydrogen]
    # the heavy atoms of molecule m are heavy[first[m] : first[m] + count[m]]
    count = torch.bincount(molecule[heavy], minlength=len(ptr) - 1)
    first = count.cumsum(0) - count
    bound = atoms[hydrogen & (count[molecule] > 0)]

    parent = atoms.clone()
    if len(bound):
        slot = torch.arange(int(count.max()), device=z.device)
        for part in bound.split(max(1, _DISTANCES_AT_ONCE // len(slot))):
            m = molecule[part]
            choices = heavy[(first[m, None] + slot).clamp(max=len(heavy) - 1)]
            distances = (pos[choices] - pos[part, None]).square().sum(-1)
            distances[slot >= count[m, None]] = torch.inf
            parent[part] = choices.gather(1, distances.argmin(1, keepdim=True))[:, 0]
    return torch.argsort(2 * parent + hydrogen, stable=True)
