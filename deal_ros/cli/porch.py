# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Verbs that need ROS become another program: the command line itself knows of no ROS."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by ``python -m module arguments``: its signals, terminal and exit code are then its own.

    Raises:
        ImportError: if ROS is not installed or not sourced.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise ImportError("ROS 2 is needed and rclpy was not found; source your ROS installation, or scripts/setup.sh")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
