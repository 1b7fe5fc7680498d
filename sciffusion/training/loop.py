"""The training loop.

The law that it keeps: the weights after k steps are a function of task, settings and k, however
often the run was interrupted. So data order, noise keys and learning rate are pure functions of the
step, and everything else is in the checkpoint.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch

from .checkpoint import Checkpoints, settings
from .config import TrainConfig
from .distributed import World, join
from .logs import Log
from .meter import Meter
from .optim import learning_rate
from .order import Order
from .snapshots import Snapshots
from .state import TrainState
from .stop import Stop
from .task import Task


class Diverged(RuntimeError):
    """The loss or its gradient stopped being finite."""


def train(
    task: Task, config: TrainConfig, directory: str | Path, *, resume: bool = True
) -> TrainState:
    """Train ``task`` in ``directory``, continuing the run found there, and return the last state.

    Start it in one process, or in many with ``torchrun``; see :mod:`.distributed`. SIGTERM, SIGINT
    and ``max_seconds`` end it after the present step with a checkpoint; ``state.stopped`` then says
    why.

    Raises:
        ValueError: the directory holds a run with other settings, or any run if not ``resume``.
        Diverged: the loss became infinite or NaN; the last checkpoint is from before that.
    """
    directory = Path(directory)
    with Stop(config.max_seconds) as stop:
        world = join(config)
        directory.mkdir(parents=True, exist_ok=True)
        order = task.order(config)
        checkpoints = Checkpoints(directory / "checkpoints", config.keep, settings(task, config))
        if not resume and checkpoints.latest() is not None:
            raise ValueError(
                f"{directory} already holds a run: pass resume=True or another directory"
            )
        snapshots = Snapshots(directory / "snapshots")
        state = TrainState.start(task, config, world)
        continued = checkpoints.resume(state, world)
        meter = Meter(world, state.logged)
        log = Log(directory, config, step=state.step, active=world.rank == 0)
        size = sum(p.numel() for p in state.optimizer.parameters)
        log.say(
            f"{'continuing' if continued else 'starting'} at step {state.step} in {directory}: "
            f"{size:,} parameters, {world.size} x {world.device.type}"
        )
        started = saved = time.monotonic()
        try:
            while state.step < config.steps and not state.stopped:
                samples = advance(task, state, order, config, world, meter)
                if log.tick(samples):
                    log.show(state.step, meter.recent_loss())
                if state.step % config.log_every == 0:
                    check(meter, directory)
                    row = {"step": state.step, "epoch": state.step / order.steps_per_epoch}
                    row |= {"lr": learning_rate(state.step - 1, config)} | meter.means()
                    log.record(row | {"seconds": round(time.monotonic() - started, 3)})
                if config.validate_every and state.step % config.validate_every == 0:
                    log.record({"step": state.step} | validate(task, state, config), "validation")
                if config.posthoc and (
                    state.step % config.posthoc.every == 0 or state.step == config.steps
                ):
                    check(meter, directory)
                    for ema in state.tracked.values():
                        snapshots.save(ema, write=world.rank == 0)
                late = 0 < config.checkpoint_seconds <= time.monotonic() - saved
                wish = world.max(2 if stop.reason else 1 if late and world.rank == 0 else 0)
                if wish == 2:
                    state.stopped = stop.reason or "another process was asked to stop"
                due = config.checkpoint_every and state.step % config.checkpoint_every == 0
                if wish or due or state.step == config.steps:
                    check(meter, directory)
                    log.sync()
                    state.logged = meter.totals()
                    checkpoints.save(state, state.step / order.steps_per_epoch, world)
                    saved = time.monotonic()
            end = f"stopped by {state.stopped}" if state.stopped else "finished"
            log.say(f"{end} at step {state.step} of {config.steps}")
        finally:
            log.close()
    return state


def advance(
    task: Task, state: TrainState, order: Order, config: TrainConfig, world: World, meter: Meter
) -> int:
    """Do one optimizer step on one global batch and return the number of its samples.

    Part s of the batch, of S = processes x accumulate, is ``indices[s::S]``; each part's mean loss
    is weighted by its share of the samples, so the gradient is that of the global mean.
    """
    model, device = state.model, world.device
    indices = order.batch(*divmod(state.step, order.steps_per_epoch))
    parts = world.size * config.accumulate
    for p in state.optimizer.parameters:
        p.grad = None
    for turn in range(config.accumulate):
        part = turn * world.size + world.rank
        mine = indices[part::parts]
        share = len(mine) / len(indices)
        if not len(mine):  # join the collective calls with a sample of weight zero
            mine = indices[:1]
        key = step_key(config.seed, state.step, part)
        torch.manual_seed(key)
        batch = task.batch(mine, key, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = task.loss(model, batch, key)
        (loss.mean * (share * world.loss_scale)).backward()
        meter.add(loss, share)
    world.sum_gradients(state.optimizer.parameters)
    limit = math.inf if config.grad_clip is None else config.grad_clip
    norm = torch.nn.utils.clip_grad_norm_(state.optimizer.parameters, limit)
    state.optimizer.step(learning_rate(state.step, config))
    state.average()
    state.step += 1
    meter.end_step(norm, state.step)
    return len(indices)


def step_key(seed: int, step: int, part: int) -> int:
    """Return the key of one part of one step: 63 well-mixed bits."""
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint64)[0] >> 1)


def validate(task: Task, state: TrainState, config: TrainConfig) -> dict[str, float]:
    """Validate the averaged weights, in evaluation mode, always with the same key."""
    state.model.eval()
    try:
        with torch.no_grad():
            if state.ema is None:
                return task.validate(state.model, config.seed)
            with state.ema.swapped(state.model):
                return task.validate(state.model, config.seed)
    finally:
        state.model.train()


def check(meter: Meter, directory: Path) -> None:
    """Raise if a step since the last check was not finite."""
    step = meter.first_bad_step()
    if step is not None:
        raise Diverged(
            f"the loss or its gradient was not finite at step {step}. The last checkpoint in "
            f"{directory} is from before it. Lower lr, lengthen warmup, or look for bad samples in "
            "the batch of that step."
        )
