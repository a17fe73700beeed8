# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal demo --quick --keep demo_output``: teach a simulated robot objects, show what it learnt.

A simulated robot is shown household objects, learns them from their names alone, and segments tables that it has never
seen. Simulator, collector, trainer and segmenter run as processes over DDS; every figure is computed in this run.

deal demo                               about eleven minutes on two cores, six objects
deal demo --model tabletop              no training: what a ready model makes of unseen tables
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from deal_ros.cli.porch import become
from deal_ros.installed import bundle_folder

_MODULE = "deal_ros.ros.demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--quick", action="store_true", help="the short form: four objects, three minutes")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep store, models, logs, report and pictures there")
    parser.add_argument("--model", type=bundle_folder, metavar="BUNDLE", help="show this one (tabletop: ours)")


def run(args: argparse.Namespace) -> NoReturn:
    """Become the demonstration.

    Raises:
        ImportError: if ROS is not installed or not sourced.
    """
    arguments = ["--quick"] if args.quick else []
    for name in ("keep", "model"):
        if (value := getattr(args, name)) is not None:
            arguments += [f"--{name}", str(value)]
    become(_MODULE, arguments)
