# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal correct-labels --data ~/samples --labels runs/labels --out runs/simple``: images correct each other's labels.

Without --teacher, label maps of images with several classes keep background alone: train a student on the result
(deal train-student), and give its bundle as --teacher together with the first maps: it names the objects anew.

With --images one, and --labels the maps that were corrected so, it is the other way round: a teacher learns from maps
in which images with one class keep background alone (deal train-student --set paste=null --set loss.absent=0), and
parts of these images' maps that it does not believe in become background.

A recipe with a section correct_labels does all of this in `deal run`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deal_ros.cli.options import add_data_arguments, add_stage_arguments, open_data, section_settings
from deal_ros.cli.reporting import StopOnInterrupt, print_result, progress_reporter

SECTION = "correct_labels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="folder of deal pseudo-label")
    parser.add_argument(
        "--images", choices=("several", "one"), default="several", help="to correct, by classes in view"
    )
    parser.add_argument("--teacher", type=Path, metavar="BUNDLE", help="who corrects; default: maps to train it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new label maps")
    add_stage_arguments(parser, SECTION, "confidence=0.8")


def run(args: argparse.Namespace) -> int:
    """Correct."""
    from deal_ros.config import from_mapping
    from deal_ros.engine.correct_labels import CorrectLabelsConfig, correct_labels
    from deal_ros.engine.distributed import distributed
    from deal_ros.engine.progress import ignore_progress

    config = from_mapping(CorrectLabelsConfig, section_settings(args.recipe, SECTION, args.set), SECTION)
    with distributed(args.device) as ranks, StopOnInterrupt() as should_stop:
        report = progress_reporter(args.progress) if ranks.first else ignore_progress
        result = correct_labels(
            open_data(args.data, args.split, args.option),
            args.labels,
            args.out,
            config,
            images=args.images,
            teacher=args.teacher,
            ranks=ranks,
            on_progress=report,
            should_stop=should_stop,
        )
        if ranks.first:
            figures = {"labels": str(result.folder), "taught": list(result.taught), "changed": result.changed}
            print_result({**figures, "fractions": result.fractions}, args.progress)
    return 0
