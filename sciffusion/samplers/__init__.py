"""Solvers and the loop that runs them.

========================= ===== ============== ========== =============================================================
solver                    order calls a step   stochastic when to choose it
========================= ===== ============== ========== =============================================================
DDIM(eta)                 1     1              eta > 0    the plain reference; exact when the prediction does not change
Ancestral(sigma_data)     1     1              yes        many steps and an imperfect denoiser: noise repairs errors
EulerMaruyama(eta)        1     1              eta > 0    to compare with others' SDE samplers; unstable in long steps
Heun(churn)               2     2, last: 1     churn > 0  accurate flows at moderate cost; churn repairs errors
Multistep(p, eta)         p     1              eta > 0    few steps; the default for a well-trained denoiser
Singlestep(p, eta)        p     p, last: 1     eta > 0    predictions that jump from step to step; SEEDS at eta = 1
UniPC(p)                  p + 1 1              no         5 to 10 steps; order 3 at most
DEIS(p)                   p     1              no         5 to 10 steps, unguided; interpolates the noise
LMS(p)                    p     1              no         tight tolerances: fourth order at one call a step
SASolver(p, c, eta)       min+1 1              eta > 0    noise and a corrector at one call a step; order 3 at most
ERSDE(p, scale)           p     1              yes        few steps with noise, little of it near the data
Langevin(corrections)     1     1 + c, last: 1 yes        guided or composed scores that no reverse process follows
BDIA(gamma)               1     1              no         editing: every step can be undone exactly (``invert``)
========================= ===== ============== ========== =============================================================

The order is that of the probability flow; with noise it is the weak order, and at most 2. Jump fields advance at first
order under every solver. Multistep(3), DEIS and LMS spend one more call on their first step at order 3 and two at order
4, unless that step starts from pure noise (alpha = 0): then they are of order 2 as a whole, as is all that follows any
first-order step. ``Sampler(..., restarts=(Restart(low, high),))`` sends a run of any solver back up on its way.

Beside the solvers: ``Adaptive(rtol, atol)`` follows the flow to a tolerance, ``Parallel(sampler)`` runs all times of a
sampler at once, ``FirstHitting()`` unmasks classes event by event, and ``invert`` takes data to their noise.
"""

from sciffusion.samplers.adaptive import Adaptive
from sciffusion.samplers.ancestral import Ancestral
from sciffusion.samplers.bdia import BDIA
from sciffusion.samplers.ddim import DDIM
from sciffusion.samplers.deis import DEIS, LMS
from sciffusion.samplers.ersde import ERSDE
from sciffusion.samplers.first_hitting import FirstHitting
from sciffusion.samplers.heun import Heun
from sciffusion.samplers.inversion import invert, revert
from sciffusion.samplers.langevin import Langevin
from sciffusion.samplers.maruyama import EulerMaruyama
from sciffusion.samplers.multistep import Multistep
from sciffusion.samplers.parallel import Parallel, Rounds
from sciffusion.samplers.restart import Restart
from sciffusion.samplers.sa import SASolver
from sciffusion.samplers.sampler import Carry, Sampler, Solution
from sciffusion.samplers.singlestep import Singlestep
from sciffusion.samplers.unipc import UniPC

__all__ = [
    "BDIA",
    "DDIM",
    "DEIS",
    "ERSDE",
    "LMS",
    "Adaptive",
    "Ancestral",
    "Carry",
    "EulerMaruyama",
    "FirstHitting",
    "Heun",
    "Langevin",
    "Multistep",
    "Parallel",
    "Restart",
    "Rounds",
    "SASolver",
    "Sampler",
    "Singlestep",
    "Solution",
    "UniPC",
    "invert",
    "revert",
]
