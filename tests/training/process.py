"""Real processes to interrupt."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path


def start(program: Callable[[], object]) -> BaseProcess:
    """Run a function in a copy of this process (no import to wait for)."""
    process = multiprocessing.get_context("fork").Process(target=program, daemon=True)
    process.start()
    return process


def wait_for(path: Path, process: BaseProcess) -> None:
    """Wait until a file has content."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert process.is_alive() and time.monotonic() < deadline, f"no {path}"
        time.sleep(0.002)


def kill(process: BaseProcess, number: int = signal.SIGKILL) -> int:
    """Send a signal, wait, and return the exit code (negative: died of that signal)."""
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode
