"""Sets of points in space, of any number each: packed one after another, with labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.layout import Packed
from sciffusion.noise import sample_seeds
from sciffusion.space import ZeroCoM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciffusion.report import Report

__all__ = ["Shapes"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Shapes(Sequence["Shapes"]):
    """Point sets, with labels: one value for each set by name.

    ``points`` (A, 3) are ``float32``, in the unit that the data came in; the first ``sizes[0]`` rows are the first set,
    and so on. The order of the points within a set means nothing. ``shapes[3]`` is a set of one; a slice, a boolean
    array or a list of indices gives others.

    Raises ``ValueError`` for another shape or type, values that are not finite, no sets, sets without points, sizes
    that do not add up, and a label with another number of values.
    """

    points: Tensor
    sizes: NDArray[np.int64]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        x, sizes = self.points, self.sizes
        if x.dtype != torch.float32 or x.ndim != 2 or x.shape[1] != 3:
            raise ValueError(
                f"points must be float32 of shape (A, 3), got {x.dtype} {tuple(x.shape)}; Shapes.of converts arrays"
            )
        if not len(sizes) or int(sizes.min()) < 1 or int(sizes.sum()) != len(x):
            raise ValueError(
                f"sizes must list at least one set, each with a point, and add up to the {len(x)} points, got "
                f"{len(sizes)} sets of {int(sizes.sum())} points"
            )
        if not bool(x.isfinite().all()):
            raise ValueError("points hold NaN or infinity; repair or drop the set")
        for name, values in self.labels.items():
            if len(values) != len(sizes):
                raise ValueError(f"label {name} has {len(values)} values for {len(sizes)} sets")

    @classmethod
    def of(
        cls,
        sets: Sequence[ArrayLike | Tensor] | NDArray[Any] | Tensor,
        labels: Mapping[str, ArrayLike] | None = None,
    ) -> Shapes:
        """Point sets of a list of arrays (n, 3), or of one array (N, n, 3), which are copied.

        Raises ``ValueError`` for sets of another shape and what :class:`Shapes` refuses.
        """
        parts = [torch.as_tensor(x if isinstance(x, Tensor) else np.array(x)) for x in sets]
        for i, x in enumerate(parts):
            if x.ndim != 2 or x.shape[1] != 3:
                raise ValueError(f"set {i} must have shape (n, 3), got {tuple(x.shape)}")
        if not parts:
            raise ValueError("sets is empty; give at least one set of points")
        found = {k: np.asarray(v) for k, v in (labels or {}).items()}
        points = torch.cat([x.detach().cpu().to(torch.float32) for x in parts])
        return cls(points, np.array([len(x) for x in parts]), found)

    @classmethod
    def from_padded(
        cls, x: Tensor, mask: Tensor, labels: Mapping[str, NDArray[Any]] | None = None
    ) -> Shapes:
        """The valid points of a padded batch (B, N, 3) with a mask (B, N)."""
        return cls(x[mask].float().cpu(), mask.sum(1).cpu().numpy(), dict(labels or {}))

    @classmethod
    def joined(cls, parts: Sequence[Shapes]) -> Shapes:
        """Several collections with the same labels as one."""
        labels = {k: np.concatenate([p.labels[k] for p in parts]) for k in parts[0].labels}
        sizes = np.concatenate([p.sizes for p in parts])
        return cls(torch.cat([p.points for p in parts]), sizes, labels)

    @classmethod
    def read(cls, path: str | Path) -> Shapes:
        """Point sets of a file ``.npz``, ``.ply``, ``.npy`` or ``.xyz``, or of a folder; see :func:`.files.read`."""
        from .files import read

        return read(path)

    def parts(self) -> tuple[Tensor, ...]:
        """The sets one by one, each (n, 3)."""
        return self.points.split(self.sizes.tolist())

    def padded(self) -> tuple[Tensor, Tensor]:
        """All sets as one batch (B, N, 3), zero where a set has no more points, and the mask (B, N)."""
        sizes = torch.from_numpy(self.sizes)
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        out = torch.zeros(*mask.shape, 3)
        out[mask] = self.points
        return out, mask

    def centred(self) -> Shapes:
        """Every set moved so that its centre, the mean of its points, is the origin; the unit stays."""
        owner = torch.repeat_interleave(torch.from_numpy(self.sizes))
        layout = Packed(owner, len(self))
        return Shapes(
            ZeroCoM().project(self.points.double(), layout).float(), self.sizes, self.labels
        )

    def thinned(self, n: int, *, seed: int = 0) -> Shapes:
        """``n`` points of every set, drawn without replacement by the seed and the set's place; all of smaller sets.

        Raises ``ValueError`` for n below 1.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        chosen = [
            x[torch.randperm(len(x), generator=torch.Generator().manual_seed(s))[:n]]
            for x, s in zip(self.parts(), sample_seeds(seed, len(self)), strict=True)
        ]
        return Shapes(torch.cat(chosen), np.minimum(self.sizes, n), self.labels)

    def __repr__(self) -> str:
        low, high = int(self.sizes.min()), int(self.sizes.max())
        points = f"{low}" if low == high else f"{low} to {high}"
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        return f"Shapes({len(self)} of {points} points{labels})"

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Shapes]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Shapes: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Shapes: ...
    def __getitem__(self, index: int | slice | NDArray[Any] | Sequence[int]) -> Shapes:
        rows = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        rows = np.atleast_1d(rows)
        parts = self.parts()
        points = torch.cat([parts[i] for i in rows]) if len(rows) else self.points[:0]
        labels = {name: np.asarray(values)[rows] for name, values in self.labels.items()}
        return Shapes(points, self.sizes[rows], labels)

    def labelled(self, **labels: ArrayLike) -> Shapes:
        """The same with further labels."""
        found = {k: np.asarray(v) for k, v in labels.items()}
        return Shapes(self.points, self.sizes, {**self.labels, **found})

    def save(self, path: str | Path) -> Path:
        """Write one file, whole or not at all: ``.npz``, or ``.ply`` for a single set.

        An ``.npz`` keeps everything, and :meth:`read` brings it back. A path without suffix becomes a folder of
        numbered ``.ply`` files, in a folder for each class if there are classes. Raises ``ValueError`` for another
        suffix, and for several sets in one ``.ply``.
        """
        from .files import write

        return write(self, path)

    def report(self, reference: Shapes | None = None, *, seed: int = 0, **checks: int) -> Report:
        """Judge the sets, beside real ones if there are any; see :func:`.evaluation.evaluate`."""
        from .evaluation import evaluate

        if checks:
            raise ValueError(f"shapes have no further checks, got {', '.join(checks)}")
        return evaluate(self, reference, seed=seed)

    def plot(self) -> Figure:
        """All sets, each in a box of its own, under its class if it has one."""
        from .viewer import figure

        return figure(self)
