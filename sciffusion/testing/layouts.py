"""The contract of a layout, and the two things that other checks need of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.state import State, Value, layout_of
from sciffusion.testing.claims import claim, claim_equal

__all__ = ["check_layout", "split", "spoil"]


def _valid(x: Tensor, layout: Layout) -> Tensor:
    """True where an entry of ``x`` belongs to a sample."""
    return layout.clean(torch.ones_like(x, dtype=torch.bool))


def split(x: Value, name: str | None = None) -> list[Tensor]:
    """The valid entries of each sample of a tensor, or of a state's named field, each as one flat vector."""
    layout, field = layout_of(x, name), x[name] if isinstance(x, State) and name else x
    assert isinstance(field, Tensor)
    return _split(field, layout)


def _split(x: Tensor, layout: Layout) -> list[Tensor]:
    owner = layout.expand(torch.arange(layout.batch, device=x.device), x).expand(x.shape)
    owner = torch.where(_valid(x, layout), owner, -1)
    return [x[owner == i] for i in range(layout.batch)]


def spoil(x: Value, garbage: float) -> Value:
    """``x`` with ``garbage`` wherever no sample lies; integer fields take it as far as it is one."""
    if isinstance(x, State):
        return x.replace({k: spoil_field(v, x.layout(k), garbage) for k, v in x.items()})
    return spoil_field(x, layout_of(x), garbage)


def spoil_field(x: Tensor, layout: Layout, garbage: float) -> Tensor:
    """One field with ``garbage`` wherever no sample lies."""
    if x.is_floating_point():
        return torch.where(_valid(x, layout), x, garbage)
    whole = int(garbage) if garbage == garbage else -1
    return torch.where(_valid(x, layout), x, whole)


def check_layout(layout: Layout, field: Tensor, samples: Sequence[Tensor]) -> None:
    """Check that a layout's operations say the same as a loop over the samples.

    Args:
        layout: the layout.
        field: a floating-point field in it, with any number of feature dimensions.
        samples: the samples of ``field``, (points, *features) each.
    """
    claim(layout.batch == len(samples), f"batch is {layout.batch} for {len(samples)} samples")
    claim(layout.parts(field) == [tuple(s.shape) for s in samples], "parts are the samples' shapes")
    claim_equal(
        layout.clean(layout.assemble(samples, field)),
        layout.clean(field),
        "assemble puts the samples' parts where they were",
    )
    for i, (got, want) in enumerate(zip(_split(field, layout), samples, strict=True)):
        claim_equal(got, want.flatten(), f"expand and clean find sample {i}")

    eps = 100 * torch.finfo(field.dtype).eps
    points = torch.tensor([s.shape[0] for s in samples])
    claim_equal(layout.points(field), points, "points counts each sample's points")
    counts = torch.tensor([s.numel() for s in samples])
    claim_equal(layout.count(field), counts, "count counts each sample's numbers")
    for how in ("sum", "mean"):
        want = torch.stack([getattr(s, how)() for s in samples])
        claim_equal(layout.reduce(field, how), want, f"reduce {how}", tol=eps)
    pooled = layout.pool(field)
    claim_equal(pooled, torch.stack([s.sum(0) for s in samples]), "pool", tol=eps)
    claim_equal(
        torch.cat(_split(layout.spread(pooled, field).expand(field.shape), layout)),
        torch.cat([s.sum(0).expand(s.shape).flatten() for s in samples]),
        "spread gives every point its own sample's row",
        tol=eps,
    )

    scale = torch.arange(1, len(samples) + 1, dtype=field.dtype)
    for c, scaled in (
        (torch.tensor(3.0, dtype=field.dtype), [3 * s for s in samples]),
        (scale, [c * s for c, s in zip(scale, samples, strict=True)]),
        (field, [s * s for s in samples]),
    ):
        got = torch.cat(_split(layout.expand(c, field) * field, layout))
        claim_equal(got, torch.cat([s.flatten() for s in scaled]), f"expand of {tuple(c.shape)}")

    for garbage in (1e6, -1e6, float("nan")):
        dirty = torch.where(_valid(field, layout), field, garbage)
        law = f"{garbage} outside the samples changes no"
        claim_equal(layout.pool(dirty), pooled, f"{law} pool")
        claim_equal(layout.reduce(dirty, "mean"), layout.reduce(field, "mean"), f"{law} mean")
        claim_equal(layout.clean(dirty), layout.clean(field), f"{law} cleaned field")
    last = len(samples) - 1
    chosen = torch.tensor([last, 0, last])
    taken, its_layout = layout.take(field, chosen)
    claim(type(its_layout) is type(layout), "take keeps the kind of layout")
    picked = [samples[i].flatten() for i in chosen.tolist()]
    joined, joint = layout.cat([field, taken], [layout, its_layout])
    everyone = [*(s.flatten() for s in samples), *picked]
    for law, x, where, whole in (
        ("take finds the samples in their order", taken, its_layout, picked),
        ("cat lays batches one after another", joined, joint, everyone),
    ):
        claim(where.batch == len(whole), f"{law}: as many samples")
        for got, sample in zip(_split(x, where), whole, strict=True):
            claim_equal(got, sample, law)
    wrong = torch.zeros(len(samples) + 1, dtype=field.dtype)
    if wrong.shape != field.shape[:1]:
        try:
            layout.expand(wrong, field)
        except ValueError:
            return
        raise AssertionError("expand must refuse a vector that is neither per sample nor per row")
