"""Two processes that end apart, and while a collective call ends: ``leave.py FOLDER PARALLEL LATE``.

``LATE`` is the rank that ends later. The call ends a little after the last line of the program, and
Python takes its time to finalize, so that a thread of gloo's has to drop the call's tensor then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from toy import run


class Slow:
    """Takes long to delete."""

    def __del__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        sleep(0.5)


if __name__ == "__main__":
    folder, parallel, late = sys.argv[1:]
    state = run(Path(folder), f"parallel={parallel}", "steps=1")  # keeps the shards
    slow = Slow()
    call = dist.all_reduce(torch.ones(1), async_op=True)
    assert call is not None
    call.get_future().then(lambda _: time.sleep(0.2))
    if dist.get_rank() == int(late):
        time.sleep(2.0)
