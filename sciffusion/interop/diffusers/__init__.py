"""diffusers, both ways: their networks, autoencoders and schedulers here, our models and solvers there.

* :func:`from_model` makes a network of theirs a denoiser, :func:`from_experts` the two of Wan 2.2 one of both,
  :func:`from_scheduler` a scheduler a sampler, :func:`from_autoencoder` an autoencoder a codec; :class:`Training` is
  what a scheduler says of its training.
* :class:`Network` makes a denoiser of ours a model for their pipelines and loops, :class:`Scheduler` a solver of ours a
  scheduler for them.

``pip install "sciffusion[diffusers]"`` brings the library, which is imported when it is first needed.
"""

from sciffusion.interop.diffusers.autoencoder import from_autoencoder
from sciffusion.interop.diffusers.calls import CALLS, Call
from sciffusion.interop.diffusers.dropin import Network, Scheduler
from sciffusion.interop.diffusers.model import from_experts, from_model
from sciffusion.interop.diffusers.packing import FramesFirst, Packing, Patches, Singles
from sciffusion.interop.diffusers.sampling import from_scheduler
from sciffusion.interop.diffusers.solvers import DPMSolver2M, UniPCB
from sciffusion.interop.diffusers.training import EDM, Training

__all__ = [
    "CALLS",
    "EDM",
    "Call",
    "DPMSolver2M",
    "FramesFirst",
    "Network",
    "Packing",
    "Patches",
    "Scheduler",
    "Singles",
    "Training",
    "UniPCB",
    "from_autoencoder",
    "from_experts",
    "from_model",
    "from_scheduler",
]
