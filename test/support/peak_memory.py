# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The most memory that this process has had in RAM."""

from pathlib import Path


def peak_mb(begin: bool = False) -> float:
    """Peak of the resident memory since the last ``begin``. ``ru_maxrss`` would begin with that of the parent."""
    if begin:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
