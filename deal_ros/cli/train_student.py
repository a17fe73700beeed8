# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal train-student --data ~/samples --labels runs/labels --out runs/student``: train the onboard segmenter.

It learns from label maps and is written as a model bundle, runs/student/bundle. With --true-masks it learns from the
true masks of the samples instead: the upper bound.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deal_ros.cli.options import add_data_arguments, add_stage_arguments, open_data, section_settings
from deal_ros.cli.reporting import StopOnInterrupt, print_result, progress_reporter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_data_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--labels", type=Path, metavar="DIR", help="folder of deal pseudo-label or correct-labels")
    source.add_argument("--true-masks", action="store_true", help="learn from the samples' true masks")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument("--student", metavar="NAME", help="light or mask_transformer; default: the recipe's")
    parser.add_argument("--steps", type=int, help="optimiser steps")
    parser.add_argument("--seed", type=int, help="of everything random")
    add_stage_arguments(parser, "train_student")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from deal_ros.config import from_mapping
    from deal_ros.engine.distributed import distributed
    from deal_ros.engine.progress import ignore_progress
    from deal_ros.engine.provenance import provenance
    from deal_ros.engine.train_student import TrainStudentConfig, train_student

    settings = section_settings(args.recipe, "train_student", args.set)
    for key, value in (("steps", args.steps), ("seed", args.seed)):
        if value is not None:
            settings.setdefault("optimization", {})[key] = value
    if args.student is not None:
        settings["student"] = args.student
    config = from_mapping(TrainStudentConfig, settings, "train_student")
    with distributed(args.device) as ranks, StopOnInterrupt() as should_stop:
        report = progress_reporter(args.progress) if ranks.first else ignore_progress
        result = train_student(
            open_data(args.data, args.split, args.option),
            args.labels,
            args.out,
            config,
            ranks=ranks,
            provenance={**provenance(ranks.device), "data": args.data.name},
            on_progress=report,
            should_stop=should_stop,
        )
        if ranks.first:
            figures = {"run": str(result.run), "bundle": str(result.bundle), "agreement": result.agreement}
            print_result({**figures, "metrics": result.metrics}, args.progress)
    return 0
