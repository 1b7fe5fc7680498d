"""Solvers and the loop that runs them.

============== ===== ============ ========== ==================================================================
solver         order denoiser     stochastic when to choose it
                     calls a step
============== ===== ============ ========== ==================================================================
DDIM(eta)      1     1            eta > 0    the plain reference; exact when the prediction does not change
Ancestral()    1     1            yes        many steps and an imperfect denoiser: fresh noise repairs errors
Heun(churn)    2     2, last: 1   churn > 0  accurate flows at moderate cost; churn repairs errors
Multistep(p)   p     1            eta > 0    few steps; the default for a well-trained denoiser
============== ===== ============ ========== ==================================================================

The order is that of the probability flow; with noise it is the weak order, and at most 2. Jump fields advance at first
order under every solver. Multistep(3) spends one more call on its first step, unless that starts from pure noise
(alpha = 0): then it is of order 2 as a whole.
"""

from sciffusion.samplers.ddim import DDIM, Ancestral
from sciffusion.samplers.heun import Heun
from sciffusion.samplers.multistep import Multistep
from sciffusion.samplers.sampler import Carry, Sampler, Solution

__all__ = ["DDIM", "Ancestral", "Carry", "Heun", "Multistep", "Sampler", "Solution"]
