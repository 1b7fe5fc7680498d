r"""How much data and how much noise there is at a time.

A schedule is a curve :math:`t \mapsto (\alpha_t, \sigma_t)` with :math:`x_t = \alpha_t x_0 + \sigma_t e`. Time runs
from 0 (data) to 1 (prior) and :math:`\lambda_t = \log(\alpha_t^2/\sigma_t^2)`, the log-SNR, falls strictly. All of it
is computed in float64, whatever the dtype of the data.

The forward process :math:`dx = f_t x\,dt + g_t\,dw` with the same marginals has
:math:`f = \dot\alpha/\alpha` and :math:`g^2 = 2\sigma\dot\sigma - 2f\sigma^2` (Kingma et al., VDM, 2021).
"""

from sciffusion.schedule.base import FromLogSNR, Schedule, Shifted, VariancePreserving
from sciffusion.schedule.beta import VP, FromRate, ScaledLinear, SubVP
from sciffusion.schedule.exploding import VE
from sciffusion.schedule.flow import Interpolant, RectifiedFlow
from sciffusion.schedule.learned import Learned
from sciffusion.schedule.preserving import Cosine, Laplace, Polynomial, SigmoidSchedule, TrigFlow
from sciffusion.schedule.resolution import resolution_shift, token_shift
from sciffusion.schedule.tabulated import Tabulated
from sciffusion.schedule.terminal import ZeroTerminalSNR

__all__ = [
    "VE",
    "VP",
    "Cosine",
    "FromLogSNR",
    "FromRate",
    "Interpolant",
    "Laplace",
    "Learned",
    "Polynomial",
    "RectifiedFlow",
    "Schedule",
    "ScaledLinear",
    "Shifted",
    "SigmoidSchedule",
    "SubVP",
    "Tabulated",
    "TrigFlow",
    "VariancePreserving",
    "ZeroTerminalSNR",
    "resolution_shift",
    "token_shift",
]
