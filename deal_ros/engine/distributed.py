# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One process or many: ``torchrun --nproc-per-node N -m deal_ros.cli VERB …`` shares the work by torch.distributed.

Every rank sees the same folder. Rank 0 writes; pseudo-labels are written by all, each its own samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deal_ros.backbones import import_timm


@dataclass(frozen=True)
class Ranks:
    """This process among its peers.

    Args:
        rank: 0 .. world - 1.
        world: number of processes.
        device: where this process computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of ``count`` items are this rank's."""
        return range(self.rank, count, self.world)

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            dist.barrier()

    def total(self, tensor: Tensor) -> Tensor:
        """Sum of ``tensor`` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """Mean of each value over all ranks."""
        if self.world == 1 or not values:
            return dict(values)
        names = sorted(values)
        packed = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.device)
        if self.device.type == "mps":  # no float64 there
            packed = packed.float()
        return dict(zip(names, (self.total(packed) / self.world).tolist()))

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; all get the same answer."""
        if self.world == 1:
            return flag
        return bool(self.total(torch.tensor(float(flag), device=self.device)) > 0)


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """``auto`` takes a CUDA device if there is one; anything else is a torch device name. ``cuda`` is that of the rank.

    Raises:
        ValueError: if the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be auto, cpu or a device of this machine, got {name!r}: {error}") from error
    return device


@contextmanager
def distributed(device: str = "auto") -> Iterator[Ranks]:
    """Join the peers that ``torchrun`` started, or be alone; leaves the group at the end if it was joined here.

    The backend is NCCL for CUDA devices and gloo otherwise.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, choose_device(device))
        return
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    joined = not dist.is_initialized()
    if joined:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if joined:
            dist.destroy_process_group()


def alone(device: str = "auto") -> Ranks:
    """Return the ranks of a single process on ``device``."""
    return Ranks(0, 1, choose_device(device))


def parallel(module: nn.Module, ranks: Ranks) -> nn.Module:
    """Wrap ``module`` so that its gradients are averaged over all ranks; alone, it is returned as it is.

    On CUDA devices BatchNorm layers that are in training mode see the batches of all ranks.
    """
    if ranks.world == 1:
        return module
    if ranks.device.type == "cuda":  # timm's own: torch's would drop the activation in timm's BatchNorm
        module = import_timm().layers.convert_sync_batchnorm(module)
    return DistributedDataParallel(module, device_ids=[ranks.device] if ranks.device.type == "cuda" else None)
