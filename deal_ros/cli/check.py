# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal check PATH``: find what is wrong with a data set before training does.

PATH is a sample store, a folder of them, rendered scenes, VOC 2012, COCO, BOP, or a ROS bag; several paths are taken as
splits of one data set, and leakage between them is looked for. Exit code 0: healthy, 1: faults found.

    deal check ~/samples --sheet samples.png       pictures: image, depth, labels, depth edges on the image
    deal check train_store val_store --json        for programs
    deal check VOC2012 --option depth_kind=inverse
"""

from __future__ import annotations

import argparse
from typing import Any

from deal_ros.cli import UsageError
from deal_ros.cli.options import apply_changes
from deal_ros.cli.reporting import add_progress_argument, print_json, progress_reporter
from deal_ros.engine.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``deal check``."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="data set or bag; several are splits of one")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("--sheet", metavar="FILE.png", help="write a contact sheet")
    parser.add_argument(
        "--samples",
        type=int,
        default=2000,
        metavar="N",
        help="samples looked at per part, 0: all (default: %(default)s)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the layout, for example split=val, depth_kind=inverse, depth_folder=/maps, side=up",
    )
    add_progress_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check; returns 1 if faults were found."""
    from deal_ros.datasets.doctor import CheckConfig, check
    from deal_ros.datasets.sheet import sample_sheet
    from deal_ros.visualization import save_png

    if args.samples < 0:
        raise UsageError(f"--samples must be 0 or more, got {args.samples}")
    report_progress = progress_reporter("none" if args.json else args.progress)

    def on_sample(done: int, total: int) -> None:
        report_progress(Progress("check", done, total))

    kept: list = []
    options: dict[str, Any] = {}
    apply_changes(options, args.option, "--option")
    report = check(
        args.paths,
        CheckConfig(max_samples=args.samples),
        options=options,
        on_sample=on_sample,
        keep=kept if args.sheet else None,
    )
    if args.sheet and kept:
        save_png(args.sheet, sample_sheet(kept))
    if args.json or args.progress == "json":
        print_json(report.to_mapping())
    else:
        print(report.to_text())
    return 0 if report.healthy else 1
