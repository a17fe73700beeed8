# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal label --ros-args -r __ns:=/robot1``: say what is in view by number keys, see counts and rates live.

The labels are published on ``labels``; classes, counts and rates come from the running sample collector. Needs a
terminal and ROS 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

_MODULE = "deal_ros.ros.label_terminal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--classes", default="", help="comma-separated; default: those of the running collector")
    parser.add_argument("--collector", default="sample_collector", help="node name, default: %(default)s")
    parser.add_argument("--ros-args", nargs=argparse.REMAINDER, default=[], help="handed on to ROS, must come last")


def run(args: argparse.Namespace) -> int:
    """Start the terminal as a process of its own: the command line knows of no ROS.

    Raises:
        ImportError: if ROS is not installed or not sourced.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise ImportError("ROS 2 is needed and rclpy was not found; source your ROS installation, or scripts/setup.sh")
    command = [sys.executable, "-m", _MODULE, "--classes", args.classes, "--collector", args.collector]
    if args.ros_args:
        command += ["--ros-args", *args.ros_args]
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the terminal has sent Ctrl-C to the child too; wait for it to tidy up
