"""Their networks as denoisers of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sciffusion.denoiser import Condition, Denoiser, Prediction, check_condition
from sciffusion.errors import did_you_mean
from sciffusion.experts import TimeExperts
from sciffusion.interop.diffusers.calls import CALLS, Call
from sciffusion.interop.diffusers.packing import Packing, Patches
from sciffusion.interop.diffusers.training import Training
from sciffusion.process import Gaussian
from sciffusion.state import State, Value, layout_of

__all__ = ["from_experts", "from_model"]


def from_model(
    model: nn.Module,
    scheduler: object,
    *,
    process: Gaussian | None = None,
    call: Call | None = None,
    frames: bool = False,
) -> Denoiser:
    """A network of theirs as a denoiser.

    It lives on the schedule that its scheduler tells, and runs with every sampler and guidance. Networks in half
    precision get their input in it; what they predict comes back in the dtype of the field. Where a network returns
    twice as many channels as it gets, the second half is a learned variance and left out.

    A condition is a mapping of the network's own argument names to tensors with one row a sample, or one tensor for the
    first of these (classes, encoded texts). ``"concat"`` holds the channels that a network gets beside those that it
    denoises (inpainting, the image that a film begins with, edges): a field like the samples, of its own channels.

    Args:
        model: the network, its weights loaded, in evaluation mode if it has dropout.
        scheduler: theirs, its configuration, or a :class:`Training`.
        process: the process with a space of your own; by default the training's, Euclidean.
        call: how to call a network of a class that is not listed in ``CALLS``.
        frames: films are (B, T, C, H, W), as in the domain of video, not (B, C, T, H, W). A network that is told the
            time of every token (Wan 2.2 TI2V, LTX) then takes a time for each frame, (B, T), and
            :class:`~sciffusion.inverse.Known` shows it some of them clean.

    Raises:
        ValueError: for a class that is not listed, and for a scheduler that cannot be read.
    """
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    name = type(inner).__name__
    if call is None and name not in CALLS:
        raise ValueError(
            f"model is a {name}, which is not one of {', '.join(CALLS)}. {did_you_mean(name, CALLS)} Declare how it is "
            "called with call=Call(...)"
        )
    training = scheduler if isinstance(scheduler, Training) else Training.of(scheduler)
    process = process or training.process
    return _Model(model, inner.config, call or CALLS[name], training, process, frames)


def from_experts(
    noisy: nn.Module,
    clean: nn.Module,
    scheduler: object,
    boundary: float,
    *,
    guided: Sequence[Callable[[Denoiser], Denoiser]] = (lambda d: d, lambda d: d),
) -> TimeExperts:
    """Two networks of theirs that share the noise levels as one denoiser (Wan 2.2).

    Args:
        noisy, clean: ``transformer`` and ``transformer_2`` of their pipeline.
        scheduler: as for :func:`from_model`.
        boundary: their ``boundary_ratio``: the first network acts from this part of the steps on, the second below.
        guided: what becomes of either denoiser; for a scale of its own each, ``(lambda d: CFG(d, cond, null, 4.0),
            lambda d: CFG(d, cond, null, 3.0))``.

    Raises:
        ValueError: unless the boundary lies between 0 and 1, and as :func:`from_model`.
    """
    if not 0 < boundary < 1:
        raise ValueError(f"boundary must lie between 0 and 1, got {boundary}")
    training = scheduler if isinstance(scheduler, Training) else Training.of(scheduler)
    pairs = zip(guided, (noisy, clean), strict=True)
    experts = [change(from_model(model, training)) for change, model in pairs]
    time = training.time(boundary * training.steps)
    return TimeExperts(experts, [float(training.schedule.log_snr(time))])


@final
class _Model(Denoiser):
    """A network of theirs with the declaration of how to call it."""

    def __init__(
        self,
        model: nn.Module,
        config: Any,
        call: Call,
        training: Training,
        process: Gaussian,
        frames: bool,
    ) -> None:
        super().__init__()
        self.model, self.config, self.call, self.trained = model, config, call, training
        self.process = self.field = process
        self.frames = frames

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.process.check_kind(x_t)
        x = cast(Tensor, x_t)
        check_condition(cond, x)
        if self.frames and x.ndim != 5:
            raise ValueError(
                f"with frames=True films are (B, T, C, H, W), got a field {tuple(x.shape)}"
            )
        t = torch.as_tensor(t, dtype=torch.float64)
        self._check_times(t, x)
        layout, edm = layout_of(x), self.trained.edm
        if edm is None:
            x0 = self.field.read(self._told(x, t, cond), x, t, layout, self.trained.target)
        else:
            seen, parts = self.field.show(x, t, layout, edm.sigma_data)
            x0 = self.field.read(edm.sign * self._told(seen, t, cond), x, t, layout, "v", parts)
        return Prediction(x0, x_t, t, self.process)

    def _check_times(self, t: Tensor, x: Tensor) -> None:
        if t.ndim == 0 or (t.ndim == 1 and len(t) == len(x)):
            return
        if not (self.frames and self.call.tokens):
            raise ValueError(
                f"t must be one number or one for each of {len(x)} samples, got shape {tuple(t.shape)}; of the "
                f"networks of diffusers {', '.join(n for n, c in CALLS.items() if c.tokens)} take a time for each "
                "frame, read with from_model(..., frames=True), none takes one for each element"
            )
        if t.shape != x.shape[:2]:
            raise ValueError(
                f"t must be (), ({len(x)},), or one number for each frame, {tuple(x.shape[:2])}, got {tuple(t.shape)}"
            )

    def _told(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """What the network says, in the shape of the field."""
        if not self.frames:
            return self._call(x, t, self._condition(cond, x))
        film = x.transpose(1, 2)
        return self._call(film, t, self._condition(cond, film)).transpose(1, 2)

    def _condition(self, cond: Condition, x: Tensor) -> dict[str, Any]:
        known = (*self.call.needs, *self.call.takes, *["concat"] * self.call.concat)
        if isinstance(cond, Tensor) and known:
            cond = {known[0]: cond}
        if cond is not None and (not isinstance(cond, Mapping) or isinstance(cond, State)):
            raise ValueError(
                f"cond must be a mapping of {known} or one tensor, got {type(cond).__name__}"
            )
        given = dict(cond or {})
        for name in given:
            if name not in known:
                raise ValueError(
                    f"cond holds {name!r}, which is none of {known}. {did_you_mean(str(name), known)}"
                )
        missing = [name for name in self.call.needs if name not in given]
        if missing:
            raise ValueError(f"cond lacks {missing}, without which the network cannot be called")
        given = cast(dict[str, Any], pytree.tree_map(lambda v: self._rows(v, x), given))
        more = self.call.derived(self.config, x, given)
        return {name: v for name, v in (given | more).items() if more.get(name, v) is not None}

    def _rows(self, value: Any, x: Tensor) -> Any:
        """A row for each sample, where one stood for all; floating numbers in the network's dtype."""
        if not isinstance(value, Tensor):
            return value
        if value.ndim > 0 and len(value) == 1:
            value = value.expand(len(x), *value.shape[1:])
        return value.to(self._dtype(x)) if value.is_floating_point() else value

    def _dtype(self, x: Tensor) -> torch.dtype:
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), x.dtype)

    def _call(self, x: Tensor, t: Tensor, given: dict[str, Any]) -> Tensor:
        trained, call = self.trained, self.call
        step = trained.step(t).to(x.device, torch.float32)
        step = self._of_tokens(step, x) if t.ndim > 1 else step.expand(len(x))
        packing = call.packing(self.config) if call.packing else None
        value = self._beside(x, given.pop("concat", None), packing).to(self._dtype(x))
        asked = {
            call.value: packing.pack(value) if packing else value,
            call.time: call.tell(step, trained.steps, self.config),
        }
        (out, *_) = self.model(**asked, return_dict=False, **given)
        out = packing.unpack(out, x) if packing else out
        if out.shape[1] == 2 * x.shape[1]:
            out = out[:, : x.shape[1]]
        if out.shape != x.shape:
            raise ValueError(
                f"the network returned shape {tuple(out.shape)} for a field {tuple(x.shape)}"
            )
        return out if call.sign > 0 else -out

    def _of_tokens(self, step: Tensor, film: Tensor) -> Tensor:
        """The steps of frames (B, T) as those of the tokens of a film (B, C, T, H, W), (B, L)."""
        assert self.call.tokens is not None
        wide = step[:, None, :, None, None].expand(-1, 1, *film.shape[2:])
        tokens = self.call.tokens(self.config).pack(wide)
        if bool((tokens != tokens[..., :1]).any()):
            raise ValueError("t differs between frames that are one token of the network")
        return tokens[..., 0]

    def _beside(self, x: Tensor, concat: Tensor | None, packing: Packing | None) -> Tensor:
        """The field with the channels that the network gets beside it."""
        takes = self.config.get("in_channels") if self.call.concat else None
        if takes is None:
            return x
        more = takes // packing.size if isinstance(packing, Patches) else takes
        more -= x.shape[1]
        if concat is None and more == 0:
            return x
        shape = (len(x), more, *x.shape[2:])
        if concat is None or concat.shape != shape:
            raise ValueError(
                f"cond['concat'] must hold the {more} channels that this network gets beside the {x.shape[1]} of the "
                f"field, {shape}, got {None if concat is None else tuple(concat.shape)}"
            )
        return torch.cat((x, concat.to(x)), 1)
