"""Their networks and autoencoders as a denoiser and a codec of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sciffusion.codec import Affine, Codec
from sciffusion.denoiser import Condition, Denoiser, Prediction, check_condition
from sciffusion.errors import did_you_mean
from sciffusion.experts import TimeExperts
from sciffusion.interop.diffusers.calls import CALLS, Call
from sciffusion.interop.diffusers.training import Training
from sciffusion.process import Gaussian
from sciffusion.state import State, Value, layout_of

__all__ = ["from_autoencoder", "from_model"]


def from_model(
    model: nn.Module,
    scheduler: object,
    *,
    process: Gaussian | None = None,
    call: Call | None = None,
) -> Denoiser:
    """A network of theirs as a denoiser.

    It lives on the schedule that its scheduler tells, and runs with every sampler and guidance. Networks in half
    precision get their input in it; what they predict comes back in the dtype of the field. Where a network returns
    twice as many channels as it gets, the second half is a learned variance and left out.

    A condition is a mapping of the network's own argument names to tensors with one row a sample, or one tensor for the
    first of these (classes, encoded texts).

    Args:
        model: the network, its weights loaded, in evaluation mode if it has dropout.
        scheduler: theirs, its configuration, or a :class:`Training`.
        process: the process with a space of your own; by default the training's, Euclidean.
        call: how to call a network of a class that is not listed in ``CALLS``.

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
    return _Model(model, inner.config, call or CALLS[name], training, process or training.process)


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
        self, model: nn.Module, config: Any, call: Call, training: Training, process: Gaussian
    ) -> None:
        super().__init__()
        self.model, self.config, self.call, self.trained = model, config, call, training
        self.process = self.field = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.process.check_kind(x_t)
        x = cast(Tensor, x_t)
        check_condition(cond, x)
        t = torch.as_tensor(t, dtype=torch.float64)
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
            raise ValueError(
                f"t must be one number or one for each of {len(x)} samples, got shape {tuple(t.shape)}; a network of "
                "diffusers takes no time for each element"
            )
        given, layout, edm = self._condition(cond, x), layout_of(x), self.trained.edm
        if edm is None:
            x0 = self.field.read(self._call(x, t, given), x, t, layout, self.trained.target)
        else:
            seen, parts = self.field.show(x, t, layout, edm.sigma_data)
            x0 = self.field.read(edm.sign * self._call(seen, t, given), x, t, layout, "v", parts)
        return Prediction(x0, x_t, t, self.process)

    def _condition(self, cond: Condition, x: Tensor) -> dict[str, Any]:
        known = (*self.call.needs, *self.call.takes)
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
        step = trained.step(t).to(x.device, torch.float32).expand(len(x))
        packing = call.packing(self.config) if call.packing else None
        value = x.to(self._dtype(x))
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
                f"the network returned shape {tuple(out.shape)} for a field {tuple(x.shape)}; a network that gets more "
                "channels than it denoises (inpainting, image to video) has to be wrapped"
            )
        return out if call.sign > 0 else -out


def from_autoencoder(vae: nn.Module) -> Codec:
    """An autoencoder of theirs as a codec, with the affine map of its latent that its pipelines apply.

    That is a scaling and a shift (Stable Diffusion, FLUX), or a mean and a standard deviation per channel (Wan,
    Qwen-Image, LTX), read from its configuration or its weights. Images are (B, 3, H, W) in [-1, 1], videos
    (B, 3, T, H, W), sounds (B, channels, T). Raises ``ValueError`` for a module that is no autoencoder of theirs.
    """
    config = getattr(vae, "config", None)
    if config is None or not hasattr(vae, "encode") or not hasattr(vae, "decode"):
        raise ValueError(
            f"vae must be an autoencoder of diffusers with encode and decode, got {type(vae).__name__}"
        )
    return _Autoencoder(vae, config)


@final
class _Autoencoder(Codec):
    """An autoencoder of theirs."""

    def __init__(self, vae: nn.Module, config: Any) -> None:
        names = ("latent_channels", "z_dim", "decoder_input_channels")
        channels = next((int(n) for n in map(config.get, names) if n), 0)
        if channels < 1:
            raise ValueError(
                f"vae is a {type(vae).__name__}, whose configuration does not tell its latent channels"
            )
        super().__init__(channels)
        self.vae, self.config = vae, config
        self.still = type(vae).__name__ == "AutoencoderKLQwenImage"  # images as films of one frame
        mean, std = (
            config.get(name) if config.get(name) is not None else getattr(vae, name, None)
            for name in ("latents_mean", "latents_std")
        )
        scale = float(config.get("scaling_factor") or 1.0)
        ones = torch.ones(channels)
        mean = ones * float(config.get("shift_factor") or 0.0) if mean is None else mean
        self.affine = Affine(
            mean, (ones if std is None else torch.as_tensor(std).flatten()) / scale
        )

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.vae.encode(x[:, :, None] if self.still else x)  # type: ignore[operator]
        if hasattr(out, "latent_dist"):
            parts = (out.latent_dist.mean, out.latent_dist.std)
            mean, std = (p[:, :, 0] if self.still else p for p in parts)
            return mean, std
        return (out.latent if hasattr(out, "latent") else out.latents), None

    def reconstruct(self, z: Tensor) -> Tensor:
        extra = {}
        if self.config.get(
            "timestep_conditioning"
        ):  # a decoder that may denoise: from no noise here
            extra["temb"] = z.new_zeros(len(z))
        out: Tensor = self.vae.decode(z[:, :, None] if self.still else z, **extra).sample  # type: ignore[operator]
        return out[:, :, 0] if self.still else out
