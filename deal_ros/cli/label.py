# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal label --ros-args -r __ns:=/robot1``: say what is in view by number keys, see counts and rates live.

The labels are published on ``labels``; classes, counts and rates come from the running sample collector. Needs a
terminal and ROS 2.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from deal_ros.cli.porch import become

_MODULE = "deal_ros.ros.label_terminal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--classes", default="", help="comma-separated; default: those of the running collector")
    parser.add_argument("--collector", default="sample_collector", help="node name, default: %(default)s")
    parser.add_argument("--ros-args", nargs=argparse.REMAINDER, default=[], help="handed on to ROS, must come last")


def run(args: argparse.Namespace) -> NoReturn:
    """Become the terminal.

    Raises:
        ImportError: if ROS is not installed or not sourced.
    """
    ros_arguments = ["--ros-args", *args.ros_args] if args.ros_args else []
    become(_MODULE, ["--classes", args.classes, "--collector", args.collector, *ros_arguments])
