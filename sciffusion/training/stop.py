"""Ending a run early without losing a step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType


class Stop:
    """Listens for SIGTERM, SIGINT and the time limit while its block runs.

    The first signal asks the loop to finish its step; the handlers are then as before, so a second
    one ends the process at once. Outside the main thread only the time limit works.
    """

    def __init__(self, max_seconds: float | None) -> None:
        self._deadline = time.monotonic() + max_seconds if max_seconds is not None else float("inf")
        self._max_seconds = max_seconds
        self._signal = ""
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @property
    def reason(self) -> str:
        """Why this process should stop now; empty while it should not."""
        if self._signal:
            return self._signal
        return f"time limit of {self._max_seconds:g} s" if time.monotonic() > self._deadline else ""
