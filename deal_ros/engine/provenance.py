# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where a figure comes from: commit, versions, machine. Read from files and libraries; nothing is executed."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import deal_ros


def provenance(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Plain values to put beside every result."""
    device = torch.device(device)
    return {
        "commit": commit(),
        "deal_ros": deal_ros.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": machine(device),
        "threads": torch.get_num_threads(),
    }


def commit(root: Path | None = None) -> str:
    """Return the commit of the checkout that this package runs from, 12 digits; ``unknown`` outside a checkout."""
    git = (root or Path(deal_ros.__file__).parents[1]) / ".git"
    try:
        if git.is_file():  # a linked work tree
            git = Path(git.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head[:12]
        name = head.removeprefix("ref: ")
        common = git / "commondir"
        shared = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
        for folder in (git, shared):
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8").strip()[:12]
        for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines():
            if line.endswith(f" {name}"):
                return line[:12]
    except (OSError, UnicodeDecodeError):
        pass
    return "unknown"


def machine(device: torch.device) -> str:
    """Processor or GPU in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"
