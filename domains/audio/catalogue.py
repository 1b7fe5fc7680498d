"""What clips there were to learn from: how long, and with which attributes. New clips are asked for as they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["Catalogue"]


@final
@dataclass(frozen=True, eq=False)
class Catalogue:
    """Length in samples (N,) and classes (N,) by attribute of the clips that a model was trained on, all integers."""

    samples: Tensor
    classes: Mapping[str, Tensor]

    def draw(self, u: Tensor, given: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A length and a class of every attribute for each of n clips.

        They are those of a training clip, drawn evenly from those that agree with most of what is given: the joint law
        of all that is left open, duration included.

        Args:
            u: numbers uniform on [0, 1), (n,): they choose.
            given: classes (n,) of some attributes; a number that is no class of the data agrees with none.
        """
        agree = torch.zeros(len(u), len(self.samples), dtype=torch.long)
        for name, wanted in given.items():
            agree += wanted.cpu()[:, None] == self.classes[name]
        best = agree == agree.amax(1, keepdim=True)
        count = best.sum(1)
        place = torch.minimum((u * count).long(), count - 1)
        row = (best.cumsum(1) > place[:, None]).long().argmax(1)
        found = {name: values[row] for name, values in self.classes.items()}
        return self.samples[row], found | {name: wanted.cpu() for name, wanted in given.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, in small integers."""
        classes = {f"classes.{k}": v.to(torch.int16) for k, v in self.classes.items()}
        return {"samples": self.samples.to(torch.int32)} | classes

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Catalogue:
        """What :meth:`tensors` stored."""
        prefix = "classes."
        classes = {k.removeprefix(prefix): v.long() for k, v in tensors.items() if prefix in k}
        return cls(tensors["samples"].long(), classes)
