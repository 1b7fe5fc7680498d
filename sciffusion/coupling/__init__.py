"""Which noise meets which data in a training batch."""

from sciffusion.coupling.align import Align
from sciffusion.coupling.base import Coupling, Independent
from sciffusion.coupling.transport import Conditional, Permutation

__all__ = ["Align", "Conditional", "Coupling", "Independent", "Permutation"]
