# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal pseudo-label --data ~/samples --cam runs/cam --out runs/labels``: turn activations into label maps.

A label map is a PNG per sample with class ids, 0 for background and 255 for "not sure". The background threshold is
chosen without true masks unless told otherwise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deal_ros.cli.options import add_data_arguments, add_stage_arguments, open_data, section_settings
from deal_ros.cli.reporting import StopOnInterrupt, print_result, progress_reporter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--cam", type=Path, required=True, metavar="RUN", help="run folder of deal train-cam")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of label maps")
    parser.add_argument("--threshold", type=float, metavar="T", help="fixed background threshold, 0..1")
    parser.add_argument("--refine", choices=("none", "rgb", "rgbd", "crf"), help="default: the recipe's, else rgbd")
    add_stage_arguments(parser, "pseudo_label", "labels.band=0.05")


def run(args: argparse.Namespace) -> int:
    """Label."""
    from deal_ros.config import from_mapping
    from deal_ros.engine.distributed import distributed
    from deal_ros.engine.progress import ignore_progress
    from deal_ros.engine.pseudo_label import PseudoLabelStageConfig, pseudo_label

    settings = section_settings(args.recipe, "pseudo_label", args.set)
    if args.threshold is not None:
        settings.setdefault("labels", {}).update(mode="fixed", threshold=args.threshold)
    if args.refine is not None:
        settings.setdefault("labels", {})["refine"] = args.refine
    config = from_mapping(PseudoLabelStageConfig, settings, "pseudo_label")
    with distributed(args.device) as ranks, StopOnInterrupt() as should_stop:
        report = progress_reporter(args.progress) if ranks.first else ignore_progress
        result = pseudo_label(
            open_data(args.data, args.split, args.option),
            args.cam,
            args.out,
            config,
            ranks=ranks,
            on_progress=report,
            should_stop=should_stop,
        )
        if ranks.first:
            figures = {"labels": str(result.folder), "threshold": result.threshold, "labelled": result.labelled}
            print_result({**figures, "fractions": result.fractions}, args.progress)
    return 0
