"""Ending a run early without losing a step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import final


@final
class Stop:
    """Listens for SIGTERM, SIGINT and the time limit while its block runs.

    The first signal asks the loop to finish its step. One that comes two seconds later or more acts
    as if this class were not there, and so ends the process; earlier ones are echoes, which
    launchers send. Outside the main thread only the time limit works.
    """

    def __init__(self, max_seconds: float | None) -> None:
        self._deadline = time.monotonic() + max_seconds if max_seconds is not None else float("inf")
        self._max_seconds = max_seconds
        self._signal, self._heard = "", 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._signal:
            self._signal, self._heard = signal.Signals(number).name, now
        elif now - self._heard >= 2.0:
            self._restore()
            signal.raise_signal(number)

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
