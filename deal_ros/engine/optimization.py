# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How weights are moved: optimiser, schedule, precision, clipping. One config for CAM networks and students."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deal_ros.backbones.backbone import Backbone


@dataclass(frozen=True)
class OptimizationConfig:
    """Optimisation settings.

    Args:
        steps: optimiser steps in all.
        batch_size: samples per step over all ranks and accumulation rounds.
        accumulate: rounds of forward and backward per step; lowers memory.
        optimizer: ``adamw`` or ``sgd`` (momentum 0.9).
        lr: learning rate of the base group; networks multiply it for their groups as published.
        weight_decay: for both optimisers.
        momentum: for ``sgd``.
        schedule: ``cosine`` to zero, ``poly`` (1 - t)^power, or ``constant``.
        power: of ``poly``; .9 in SEAM and WeakTr's student.
        warmup_steps: linear rise from zero at the start.
        clip_norm: largest gradient norm over all parameters; ``None`` for no limit.
        precision: ``auto`` is bf16 on CUDA devices that have it, fp16 on others, and fp32 on the CPU, where lower
            precision was measured slower. DEAL, ISL and FSL are always computed in fp32, a network's own losses in
            that of its scores.
        batchnorm: ``frozen`` keeps the statistics that a backbone was trained with, as SEAM does; ``batch`` uses each
            batch's (over all ranks on CUDA).
        deterministic: on CUDA, choose kernels that repeat bit by bit (slower; the CPU always does). Where there is
            none torch warns; DEAL's ``resample: bicubic`` is such a case, ``bilinear`` is not.
        seed: of everything random.
    """

    steps: int = 300
    batch_size: int = 16
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    power: float = 0.9
    warmup_steps: int = 0
    clip_norm: float | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batchnorm: Literal["frozen", "batch"] = "frozen"
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size must be a multiple of accumulate, got {self.batch_size} / {self.accumulate}")
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


def learning_rate_factor(step: int, config: OptimizationConfig) -> float:
    """Return what the learning rates are multiplied by at ``step``.

    Example:
        >>> config = OptimizationConfig(steps=100, schedule="poly", power=1.0, warmup_steps=10)
        >>> [round(learning_rate_factor(step, config), 2) for step in (0, 9, 55, 99)]
        [0.1, 1.0, 0.5, 0.01]
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return (1 - done) ** config.power if config.schedule == "poly" else 1.0


def build_optimizer(groups: list[dict[str, Any]], config: OptimizationConfig) -> torch.optim.Optimizer:
    """Build the optimiser over a network's groups. Each keeps its full learning rate as ``initial_lr``."""
    groups = [group for group in groups if len(group["params"])]
    if not groups:
        raise ValueError("network has no parameters to train: unfreeze at least its head")
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def training_mode(network: nn.Module, config: OptimizationConfig) -> None:
    """Put a network into training mode, with its backbones' BatchNorm statistics kept where ``frozen``."""
    network.train()
    if config.batchnorm == "frozen":
        for backbone in (m for m in network.modules() if isinstance(m, Backbone)):
            for module in backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


class Stepper:
    """One optimiser step at a time, in the chosen precision.

    Args:
        optimizer: over the network's groups.
        config: schedule, precision, clipping.
        device: where the network is.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: OptimizationConfig, device: torch.device) -> None:
        self._optimizer, self._config, self._device = optimizer, config, device
        self.dtype = _autocast_dtype(config.precision, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        if config.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)

    def autocast(self) -> AbstractContextManager:
        """Return the context for forward passes."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self._device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``, already divided by the number of accumulation rounds."""
        self._scaler.scale(loss).backward()

    def step(self, step: int) -> float:
        """Move the weights with the learning rates of ``step``; returns the base learning rate."""
        factor = learning_rate_factor(step, self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if self._config.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self._config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return self._config.lr * factor

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready state of the loss scaler; empty unless fp16."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        if state:
            self._scaler.load_state_dict(state)


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision == "auto":
        if device.type != "cuda":
            return None
        # Older GPUs emulate bf16, which torch calls supported, without cuDNN. ROCm has it everywhere.
        fast = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if fast else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
