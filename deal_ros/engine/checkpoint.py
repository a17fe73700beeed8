# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file with everything a run needs to go on, written so that it is whole or absent.

Tensors (weights, optimiser moments) are the file's tensors, everything else (step, learning rates, loss weights) is
JSON in its header. There is no pickle. Random state is not stored: every step seeds its generators from the run's
seed and its own number (:func:`seed_step`), so a resumed run draws what an uninterrupted one draws.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from deal_ros.files import replacing

FORMAT = "deal_ros checkpoint 1"
INITIALIZATION = 0xFFFFFFFF
"""The 'step' whose seed initialises networks."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or belongs to another run; the message says which and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read from a file.

    Args:
        tensors: by group (``network``, ``optimizer``, …) and name.
        state: the JSON part.
    """

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(path: Path, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write groups of tensors and a JSON state to ``path``, replacing what is there in one move.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the file before stays whole.
    """
    tensors = {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
    # Tied weights share memory, which safetensors refuses: every tensor is stored by itself.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with replacing(path) as partial:
            save_file(tensors, str(partial), metadata={"format": FORMAT, "state": json.dumps(state)})
    except SafetensorError as error:
        raise OSError(f"{path}: checkpoint could not be written: {error}") from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: if the file is missing, torn or something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first")
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: must be a {FORMAT!r}, got {metadata.get('format')!r}")
            state = json.loads(metadata["state"])
            groups: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118 - not a dict
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint ({error}); remove it to start the stage anew") from error
    return Checkpoint(groups, state)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors by name and a JSON part."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            elif value is not None:
                scalars.setdefault(str(index), {})[name] = value
    return tensors, {"param_groups": state["param_groups"], "scalars": scalars}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> None:
    """Give an optimiser the state that :func:`optimizer_tensors` took apart.

    Raises:
        CheckpointError: if it has other parameter groups.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    for index, entry in scalars["scalars"].items():
        state.setdefault(int(index), {}).update(entry)
    groups = [dict(group) for group in scalars["param_groups"]]
    for group in groups:  # JSON made lists of the tuples, betas among them
        group.update({k: tuple(v) for k, v in group.items() if isinstance(v, list) and k != "params"})
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint holds the state of another optimiser: {error}") from error


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a complete state dict.

    Raises:
        CheckpointError: naming keys that are missing, unknown or of another shape.
    """
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{where}: holds another network: {error}") from error


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch (all devices), NumPy and Python for one step of one rank."""
    value = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)
