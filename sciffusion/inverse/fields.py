r"""Fields of a state that are known, or not there: one network for a joint law, its conditional laws and its marginals.

Where every field of a state has a noise level of its own, a field at time 0 is known and one at time 1 tells nothing.
A network that was trained with both learns :math:`p(x, y)`, :math:`p(x\mid y)`, :math:`p(y\mid x)`, :math:`p(x)` and
:math:`p(y)` at once, and each is sampled by holding the other field where it is (Bao et al., One transformer fits all
distributions in multi-modal diffusion at scale, 2023, arXiv 2303.06555).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse.operators import check_boolean
from sciffusion.process import Jump
from sciffusion.state import State, Value

__all__ = ["Apart", "HiddenFields", "KnownFields"]


@final
class KnownFields(Denoiser):
    """A denoiser of states some of whose fields are known, or hidden from it.

    A known field is shown clean, at time 0, and predicted to be what it is, bit by bit. A hidden one is shown as zeros,
    at time 1, and its prediction is what ``known`` holds: nothing is learnt of it, and samples of it mean nothing. It
    serves in training as in sampling: the loss of both is zero.

    Args:
        denoiser: of states, which takes a time for each field, as :class:`~sciffusion.denoiser.Preconditioned` does.
        known: a clean state like the samples; what it holds in fields that are neither is not looked at.
        shown: for each field by name which samples know it, (B,) or (); a field that it does not name is not known.
        hidden: the same of fields that are not there.

    Raises:
        ValueError: for masks that are not boolean, of another shape, or of fields that there are not, for samples that
            know what is hidden from them, for fields of classes, and for times that differ between points.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        known: State,
        shown: Mapping[str, Tensor],
        hidden: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if type(known) is not State:
            raise ValueError("known must be a state; a plain tensor has points, for Known")
        for name in known:
            if isinstance(denoiser.process.field(name), Jump):
                raise ValueError(
                    f"the field {name!r} of known holds classes; only numbers can be shown or hidden"
                )
        self.denoiser, self.process, self.known = denoiser, denoiser.process, known
        self.shown, self.hidden = _masks(known, shown), _masks(known, hidden or {})
        for name, mask in self.shown.items():
            if bool((mask & self.hidden[name]).any()):
                raise ValueError(f"the field {name!r} is both shown and hidden in some samples")

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if type(x_t) is not State or {k: v.shape for k, v in x_t.items()} != {
            k: v.shape for k, v in self.known.items()
        }:
            raise ValueError(f"x_t must be a state like known, {self.known}, got {x_t}")
        t = torch.as_tensor(t)
        if t.shape not in ((), (x_t.batch,)):
            raise ValueError(f"t must be () or ({x_t.batch},), got {tuple(t.shape)}")
        fields, times = {}, {}
        for name, x in x_t.items():
            layout = x_t.layout(name)
            shown, hidden = self.shown[name].to(x.device), self.hidden[name].to(x.device)
            x = torch.where(layout.expand(shown, x), self.known[name].to(x), x)
            fields[name] = torch.where(layout.expand(hidden, x), 0.0, x)
            at = t.to(x.device)
            times[name] = torch.where(hidden, 1.0, torch.where(shown, 0.0, at).to(at))
        x_t = x_t.replace(fields)
        x0 = self.denoiser(x_t, times, cond, previous).x0
        assert type(x0) is State
        held = {k: self.shown[k] | self.hidden[k] for k in x_t}
        out = {
            k: torch.where(x_t.layout(k).expand(held[k].to(x.device), x), self.known[k].to(x), x)
            for k, x in x0.items()
        }
        return Prediction(x0.replace(out), x_t, t, self.process)


@final
class HiddenFields(Denoiser):
    """A denoiser of states from which the named fields are hidden in every sample: the marginal law of the others.

    It is bound to no batch, and says of what is hidden that it is what it was shown, noise and all.
    Calls raise ``ValueError`` for a field that the state does not have, and for a plain tensor.
    """

    def __init__(self, denoiser: Denoiser, fields: Collection[str]) -> None:
        super().__init__()
        self.denoiser, self.process, self.hidden = denoiser, denoiser.process, tuple(fields)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if type(x_t) is not State:
            raise ValueError("x_t must be a state: a plain tensor has no other fields")
        hidden = dict.fromkeys(self.hidden, torch.tensor(True))
        return KnownFields(self.denoiser, x_t, {}, hidden)(x_t, t, cond, previous)


@final
class Apart(Denoiser):
    """What a denoiser of states says of each field with all others hidden: as many independent marginals.

    It costs a call for each field. As the weak model of :class:`~sciffusion.guidance.Autoguidance` it pushes the fields
    of a sample to agree with each other more than the joint law alone makes them.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.process = denoiser, denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if type(x_t) is not State:
            raise ValueError("x_t must be a state: a plain tensor has no other fields")
        out = {}
        for name in x_t:
            alone = HiddenFields(self.denoiser, [k for k in x_t if k != name])
            x0 = alone(x_t, t, cond, previous).x0
            assert type(x0) is State
            out[name] = x0[name]
        return Prediction(x_t.replace(out), x_t, torch.as_tensor(t), self.process)


def _masks(known: State, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A mask (B,) for every field."""
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r}; the state has {', '.join(known)}")
    out = {}
    for name in known:
        mask = named.get(name, torch.tensor(False))
        check_boolean(mask)
        if mask.shape not in ((), (known.batch,)):
            raise ValueError(
                f"masks must be ({known.batch},), a value for each sample, got {tuple(mask.shape)} for {name!r}"
            )
        out[name] = mask.expand(known.batch)
    return out
