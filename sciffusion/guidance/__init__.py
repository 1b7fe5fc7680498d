"""Guidance: denoisers that wrap denoisers. Scale 1 is the conditional prediction, 0 the unconditional one."""

from sciffusion.guidance.cfg import CFG

__all__ = ["CFG"]
