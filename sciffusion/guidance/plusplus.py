"""Guidance that stays on the manifold."""

from __future__ import annotations

from typing import final

from torch import Tensor

from sciffusion.denoiser import Prediction
from sciffusion.guidance.base import Change, Guidance, Needs, edit_fields
from sciffusion.layout import Layout
from sciffusion.process import Gaussian, Process
from sciffusion.state import Value

__all__ = ["CFGPlusPlus", "with_noise_of"]


@final
class CFGPlusPlus(Change):
    r"""Denoise with the guided prediction, noise again with the noise of the weaker one.

    A step of DDIM becomes :math:`x_s = \alpha_s\hat x_0^\lambda + \sigma_s\hat\varepsilon^{weak}` with
    :math:`\hat x_0^\lambda = \hat x_0^{weak} + \lambda(\hat x_0^{strong} - \hat x_0^{weak})`. Written for every
    schedule and solver: the point is moved, :math:`x_t \leftarrow x_t + \alpha_t(\hat x_0^\lambda - \hat x_0^{weak})`,
    and samplers go on from there. The scale :math:`\lambda` lies in [0, 1], for it interpolates; 1 is as strong as CFG
    gets here, and at no scale is a call saved but at 0. Jump fields are guided as before.
    Source: Chung et al., CFG++: Manifold-constrained Classifier Free Guidance, 2024.

    Raises:
        ValueError: the guidance's scale is a number outside [0, 1].
    """

    def __init__(self, guidance: Guidance) -> None:
        super().__init__(guidance)
        if isinstance(self.scale, int | float) and not 0 <= self.scale <= 1:
            raise ValueError(
                f"scale must lie in [0, 1] for CFG++, which interpolates, got {self.scale}"
            )

    def needs(self, scale: float) -> Needs:
        return "weak" if self.guidance.needs(scale) == "weak" else "both"

    def mix(self, strong: Prediction, weak: Prediction, scale: float | Tensor) -> Prediction:
        out = self.guidance.mix(strong, weak, scale)
        return with_noise_of(out, weak.x0)


def with_noise_of(prediction: Prediction, reference: Value) -> Prediction:
    r"""The same prediction of x0, at the point :math:`x_t + \alpha_t(\hat x_0 - \hat x_0^{ref})`.

    There it implies the noise that ``reference``, another prediction of x0, implies at ``x_t``.
    """
    process: Process = prediction.process

    def move(field: Gaussian, layout: Layout, x: Tensor, x0: Tensor, ref: Tensor) -> Tensor:
        return x + layout.expand(field.schedule.alpha(prediction.t).to(x), x) * (x0 - ref)

    x_t = edit_fields(process, move, prediction.x_t, prediction.x0, reference, like=prediction.x_t)
    return Prediction(prediction.x0, x_t, prediction.t, process)
