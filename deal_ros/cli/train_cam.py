# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal train-cam --data ~/samples --out runs/cam --losses deal``: train a CAM network from image labels alone.

Started again with the same --out, it goes on where it stopped. Under torchrun it uses every process:

torchrun --nproc-per-node 4 -m deal_ros.cli train-cam --data ~/samples --out runs/cam
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deal_ros.cli.options import add_data_arguments, add_stage_arguments, open_data, section_settings
from deal_ros.cli.reporting import StopOnInterrupt, print_result, progress_reporter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument("--validation", type=Path, metavar="PATH", help="held-out samples with image labels, for mAP")
    parser.add_argument("--validation-split", metavar="NAME", help="their split")
    parser.add_argument(
        "--validation-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="their options, as --option; with the same PATH those of --option hold unless given here",
    )
    parser.add_argument("--losses", metavar="LIST", help="none, or isl,fsl,deal or any of them; default: the recipe's")
    parser.add_argument("--network", metavar="NAME", help="timm, weaktr or seam; default: the recipe's, else timm")
    parser.add_argument("--steps", type=int, help="optimiser steps")
    parser.add_argument("--seed", type=int, help="of everything random")
    add_stage_arguments(parser, "train_cam")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from deal_ros.config import from_mapping
    from deal_ros.engine.distributed import distributed
    from deal_ros.engine.progress import ignore_progress
    from deal_ros.engine.train_cam import TrainCamConfig, train_cam

    settings = section_settings(args.recipe, "train_cam", args.set)
    for group, key, value in (
        ("losses", "terms", args.losses),
        ("optimization", "steps", args.steps),
        ("optimization", "seed", args.seed),
    ):
        if value is not None:
            settings.setdefault(group, {})[key] = value
    if args.network is not None:
        settings["network"] = args.network
    config = from_mapping(TrainCamConfig, settings, "train_cam")
    dataset = open_data(args.data, args.split, args.option)
    validation = None
    if args.validation is not None:
        options = args.option if args.validation == args.data else []
        validation = open_data(args.validation, args.validation_split, [*options, *args.validation_option])
    with distributed(args.device) as ranks, StopOnInterrupt() as should_stop:
        report = progress_reporter(args.progress) if ranks.first else ignore_progress
        result = train_cam(
            dataset,
            args.out,
            config,
            validation=validation,
            ranks=ranks,
            on_progress=report,
            should_stop=should_stop,
        )
        if ranks.first:
            figures = {"run": str(result.run), "map": result.map, "step": result.step, "metrics": result.metrics}
            print_result(figures, args.progress)
    return 0
