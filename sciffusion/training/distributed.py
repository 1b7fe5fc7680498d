"""One process or many, with the same loop.

Under ``torchrun`` (it sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``) a run uses all processes: gloo
on CPUs, nccl on GPUs. Two ways to share the work:

``ddp``   every process holds the whole model; gradients are summed after the last backward pass.
          The model is not wrapped: losses may call any of its methods, use forward-mode derivatives
          and leave parameters unused. The sum does not overlap with the backward pass.
``fsdp``  ``fully_shard``: each process holds a shard of parameters and optimizer state.

``auto`` is ``ddp`` for more than one process.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .config import TrainConfig

_BUCKET = 2**25  # elements per all-reduce: 128 MB of float32
_LINGER = 0.5  # seconds for gloo's threads to let go of their last tensors


@final
@dataclass(frozen=True)
class World:
    """This process's place among all."""

    rank: int
    size: int
    device: torch.device
    parallel: Literal["none", "ddp", "fsdp"]

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def max(self, value: int) -> int:
        """Return the largest value of all processes; a wait for all, but not for their GPUs."""
        if self.size == 1:
            return value
        largest = torch.tensor(value)  # on the CPU
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def prepare(self, model: nn.Module) -> None:
        """Give all processes the first one's weights; shard them under ``fsdp``."""
        if self.size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.detach(), src=0)
        if self.parallel == "fsdp":
            from torch.distributed.fsdp import fully_shard

            for module in list(model.modules()):
                if isinstance(module, nn.ModuleList):
                    for block in module:
                        fully_shard(block)
            # Sharded again after each forward pass: else a forward pass without a backward one
            # (validation) would leave the averaged weights in place for the next step.
            fully_shard(model, reshard_after_forward=True)
            model.register_forward_hook(_gather_before_backward)

    @property
    def loss_scale(self) -> int:
        """Factor that turns the average over processes taken by ``fsdp`` into a sum."""
        return self.size if self.parallel == "fsdp" else 1

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Sum gradients over processes; a parameter that the loss did not use gets zeros."""
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.size == 1 or self.parallel != "ddp":
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([g.reshape(-1) for g in bucket])
            dist.all_reduce(flat)
            parts = flat.split([g.numel() for g in bucket])
            torch._foreach_copy_(bucket, [s.view_as(g) for s, g in zip(parts, bucket, strict=True)])


def _gather_before_backward(model: nn.Module, args: object, output: object) -> None:
    """FSDP itself finds tensors in tuples, lists, dicts and dataclasses only, so not in a State."""
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            leaf.register_hook(lambda _: model.unshard())  # type: ignore[operator]


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Group gradients of one dtype, in their order, into messages of bounded size."""
    bucket: list[Tensor] = []
    for g in gradients:
        full = bucket and sum(b.numel() for b in bucket) + g.numel() > _BUCKET
        if bucket and (full or bucket[0].dtype != g.dtype):
            yield bucket
            bucket = []
        bucket.append(g)
    if bucket:
        yield bucket


def join(config: TrainConfig) -> World:
    """Join the processes that torchrun started, or stay alone.

    They stay joined until the program ends, so that it may train more than once.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    started = dist.is_available() and dist.is_initialized()
    size = dist.get_world_size() if started else int(os.environ.get("WORLD_SIZE", "1"))
    rank = dist.get_rank() if started else int(os.environ.get("RANK", "0"))
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda but torch sees no GPU: set device to cpu or auto")
    if config.parallel == "none" and size > 1:
        raise ValueError(f"parallel is none but there are {size} processes: use auto, ddp or fsdp")
    if config.parallel == "fsdp" and size == 1:
        raise ValueError(
            "parallel is fsdp but there is one process: start with torchrun, or use auto"
        )
    device = torch.device("cpu")
    if config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size > 1 and not started:
        # Before there is a group: this module takes the present one for a default argument, which
        # would keep its threads alive after destroy_process_group. Optimizers import it.
        import_module("torch.distributed.nn.functional")
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    shared: Literal["ddp", "fsdp"] = "fsdp" if config.parallel == "fsdp" else "ddp"
    return World(rank, size, device, shared if size > 1 else "none")


def _leave() -> None:
    """Leave the other processes at the end of the program.

    A thread of gloo's drops the tensors of a collective call after it has woken the caller, and
    needs Python's lock for that. If Python is being finalized by then, the thread is made to exit
    out of a destructor and the process aborts (SIGABRT), with all its work done. Destroying a group
    joins its threads, but sharded parameters and the caches of DTensor keep theirs alive, so the
    threads first get time in which nobody else holds the lock.
    """
    if dist.is_initialized():  # the program may have left already
        time.sleep(_LINGER)
        dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """Return a private CPU copy of a tensor, gathered from all processes if it is sharded."""
    gather = getattr(tensor, "full_tensor", None)
    full: Tensor = gather() if gather is not None else tensor
    return full.detach().to("cpu", copy=True).contiguous()


def like(value: Tensor, reference: Tensor) -> Tensor:
    """Return a full tensor on the device of ``reference``, and sharded in the same way."""
    value = value.to(reference.device)
    if not hasattr(reference, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(reference, DTensor)
    return distribute_tensor(value, reference.device_mesh, reference.placements)
