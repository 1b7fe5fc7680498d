"""The contracts of the core, as functions that an adapter's own tests call.

Each takes an object and raises ``AssertionError`` with the law that it broke::

    from sciffusion.testing import check_denoiser, check_schedule

    def test_my_schedule_is_one() -> None:
        check_schedule(MySchedule())

No check draws from a global generator, compares with stored numbers, or leaves anything behind.
"""

from sciffusion.testing.denoisers import Knows, check_denoiser, check_guidance
from sciffusion.testing.discovery import final_classes
from sciffusion.testing.layouts import check_layout, split, spoil
from sciffusion.testing.manifolds import check_geometry
from sciffusion.testing.objectives import (
    check_coupling,
    check_divergence,
    check_times,
    check_weight,
)
from sciffusion.testing.processes import check_process
from sciffusion.testing.schedules import check_grid, check_schedule
from sciffusion.testing.solvers import check_solver, gaussian_moments, measured_order
from sciffusion.testing.spaces import check_space

__all__ = [
    "Knows",
    "check_coupling",
    "check_denoiser",
    "check_divergence",
    "check_geometry",
    "check_grid",
    "check_guidance",
    "check_layout",
    "check_process",
    "check_schedule",
    "check_solver",
    "check_space",
    "check_times",
    "check_weight",
    "final_classes",
    "gaussian_moments",
    "measured_order",
    "split",
    "spoil",
]
