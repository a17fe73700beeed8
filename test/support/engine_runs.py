# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training runs stopped on purpose, and compared."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from deal_ros.engine.checkpoint import load_checkpoint
from deal_ros.engine.run_folder import read_metrics


class StopAfter:
    """Asks to stop once ``count`` steps are done."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def weights_of(run: Path, name: str = "last") -> dict[str, Tensor]:
    return load_checkpoint(run / f"{name}.safetensors").tensors["network"]


def assert_same_run(one: Path, two: Path) -> None:
    """Weights of both runs are equal bit by bit, and so are all figures but the times."""
    for name in ("last", "best"):
        first, second = weights_of(one, name), weights_of(two, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    times = {"seconds", "wait_seconds"}
    stripped = [[{k: v for k, v in r.items() if k not in times} for r in read_metrics(run)] for run in (one, two)]
    assert stripped[0] == stripped[1]
    assert len(stripped[0]) > 0
