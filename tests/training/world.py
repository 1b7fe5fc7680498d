"""The program that the tests start in two processes with torchrun: ``world.py FOLDER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from torch import Tensor, nn
from toy import Toy, run

from sciffusion.training import StepLoss


class Leaves(Toy):
    """The second process alone is asked to stop, at its third step."""

    calls = 0

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], key: int) -> StepLoss:
        self.calls += 1
        if self.calls == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(model, batch, key)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for parallel in ("ddp", "fsdp"):
        change = f"parallel={parallel}"
        run(folder / parallel, change, "steps=12", "validate_every=5")  # not at checkpoints
        run(folder / f"{parallel}-parts", change, "steps=12", "accumulate=2")
        run(folder / f"{parallel}-first", change, "steps=5")  # between two rows
        run(folder / f"{parallel}-second", change, "steps=12", "accumulate=1")
    state = run(folder / "stopped", task=Leaves())
    (folder / f"stopped-{os.environ['RANK']}").write_text(f"{state.step}:{state.stopped}")
