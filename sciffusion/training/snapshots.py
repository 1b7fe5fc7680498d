"""Snapshots of averaged weights, from which other averages are made after training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sciffusion.ema import EMA, Power
from sciffusion.io import atomic_write
from sciffusion.posthoc import Snapshot

from .distributed import whole

__all__ = ["Snapshots"]


@final
@dataclass(frozen=True)
class Snapshots:
    """The snapshots in a folder, ``updates-00001000-width-0.05.safetensors`` and so on.

    >>> import tempfile
    >>> from torch import nn
    >>> from sciffusion.posthoc import posthoc
    >>> model = nn.Linear(2, 1)
    >>> emas = [EMA(model, Power(sigma_rel=s)) for s in (0.05, 0.1)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     snapshots = Snapshots(Path(folder))
    ...     for update in range(1, 9):
    ...         for ema in emas:
    ...             ema.update(model)
    ...             if update % 4 == 0:
    ...                 _ = snapshots.save(ema)
    ...     weights = posthoc(snapshots.load(), sigma_rel=0.07)
    >>> sorted(weights)
    ['bias', 'weight']
    """

    directory: Path

    def save(self, ema: EMA, *, write: bool = True) -> Path:
        """Store an average, whole or not at all, over one of the same width and time; return its file.

        Sharded tensors are gathered, in a call for all processes, of which one should ``write``. Raises ``ValueError``
        for an average without a power-function profile, or before its first update.
        """
        profile = ema.profile
        if not isinstance(profile, Power):
            raise ValueError(f"only averages with a Power profile can be combined, got {profile}")
        if ema.updates < 1:
            raise ValueError("the average has not been updated yet; there is nothing to store")
        tensors = {n: whole(t) for n, t in ema.state_dict().items()}
        about = {
            "updates": json.dumps(ema.updates),
            "sigma_rel": json.dumps(profile.sigma_rel),
            "copied": json.dumps(sorted(ema.copied)),
        }
        name = f"updates-{ema.updates:08d}-width-{profile.sigma_rel:g}.safetensors"
        if write:
            with atomic_write(self.directory / name) as part:
                save_file(tensors, part, about)
        return self.directory / name

    def load(self) -> list[Snapshot]:
        """All snapshots in the folder, in the order of time; their tensors are read when needed."""
        found = []
        for path in sorted(self.directory.glob("updates-*.safetensors")):
            with safe_open(path, "pt") as file:
                about = {k: json.loads(v) for k, v in file.metadata().items()}
            found.append(
                Snapshot(
                    about["updates"],
                    about["sigma_rel"],
                    partial(load_file, path),
                    frozenset(about["copied"]),
                )
            )
        return found
