"""Several processes through torchrun: who am I, and how do our results come together. One process needs no set-up."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous


def start(device: torch.device) -> torch.device:
    """Join the process group that torchrun's environment describes, if any; return the device of this process."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    store, own_rank, processes = next(rendezvous("env://"))
    # torchrun's restarts share a store, where the addresses of processes that died would be found again
    store = dist.PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=processes)
    return device


def stop() -> None:
    """Leave the process group, if any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    return rank() == 0


def wrap(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over processes; the model itself when there is one process."""
    return nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model


def average(values: Tensor) -> Tensor:
    """Mean of a tensor over processes."""
    if not dist.is_initialized():
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def largest(number: int, together: bool) -> int:
    """The largest of the numbers that the processes bring; with several processes 0 unless they ask ``together``."""
    if not dist.is_initialized():
        return number
    if not together:
        return 0
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the main one's buffers, such as BatchNorm's running statistics, which each gathers on its own."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def gather_rows(rows: Tensor | None, total: int) -> Tensor:
    """Put together rows that each process computed for every n-th image (:func:`util.data.loading.whole_batches`).

    Args:
        rows: ``[own images, ...]`` on the CPU; None of a process that has no image, as where there are more processes.
        total: number of images over all processes.

    Returns:
        ``[total, ...]`` in the order of the data set, on every process.
    """
    if not dist.is_initialized():
        assert rows is not None  # one process has all images
        return rows
    shards: list[Tensor | None] = [None] * world_size()
    dist.all_gather_object(shards, rows)
    held = [shard for shard in shards if shard is not None]  # of the first processes: only the last ones can lack images
    result = held[0].new_empty(total, *held[0].shape[1:])
    for process, shard in enumerate(held):
        result[process :: world_size()] = shard
    return result


def gather_dicts(mine: dict) -> dict:
    """What all processes found, on every process."""
    if not dist.is_initialized():
        return mine
    gathered: list = [None] * world_size()
    dist.all_gather_object(gathered, mine)
    return {name: value for each in gathered for name, value in each.items()}


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
