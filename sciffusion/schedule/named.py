"""The schedules that configuration files choose from, by name."""

from __future__ import annotations

from collections.abc import Mapping

from sciffusion.schedule.base import Schedule
from sciffusion.schedule.exploding import VE
from sciffusion.schedule.flow import RectifiedFlow
from sciffusion.schedule.preserving import Cosine, Polynomial, TrigFlow

__all__ = ["SCHEDULES"]

SCHEDULES: Mapping[str, Schedule] = {
    "rectified-flow": RectifiedFlow(),
    "cosine": Cosine(),
    "polynomial": Polynomial(),
    "trig-flow": TrigFlow(),
    "edm": VE(sigma_min=0.002, sigma_max=80.0),
}
