"""What ships with the domain, by name: trained models, judges, and recipes."""

from pathlib import Path

from sciffusion.shelf import Shelf

__all__ = ["SHELF"]

SHELF = Shelf(Path(__file__).parent)
