# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Verbs that need ROS run as processes of their own: the command line itself knows of no ROS."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence


def run_module(module: str, arguments: Sequence[str]) -> int:
    """Run ``python -m module arguments`` to its end and return its exit code; Ctrl-C reaches it too.

    Raises:
        ImportError: if ROS is not installed or not sourced.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise ImportError("ROS 2 is needed and rclpy was not found; source your ROS installation, or scripts/setup.sh")
    child = subprocess.Popen([sys.executable, "-m", module, *arguments])
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the terminal has sent Ctrl-C to the child too; wait for it to tidy up
