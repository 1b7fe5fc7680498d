"""What the methods share that go on from the polynomial through their last predictions."""

from __future__ import annotations

from typing import ClassVar

from sciffusion.solver import Solver

__all__ = ["Adams"]


class Adams(Solver):
    """As many predictions as its ``order``, of which all but one are earlier ones.

    Raises ``ValueError`` for an order above ``highest`` or below 1.
    """

    highest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if not 1 <= self.order <= self.highest:
            others = ", ".join(map(str, range(1, self.highest)))
            raise ValueError(f"order must be {others} or {self.highest}, got {self.order}")

    @property
    def history(self) -> int:  # type: ignore[override]
        """How many earlier predictions it uses."""
        return self.order - 1

    @property
    def fewest(self) -> int:  # type: ignore[override]
        """As many steps as predictions in its polynomial."""
        return self.order
