# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal evaluate --data ~/samples --bundle runs/student/bundle``: compare masks with the true ones of a data set.

The masks are a segmenter's (--bundle), those of activation maps (--cam), or label maps (--labels). mIoU is
VOC's: one confusion matrix over all images, background included, 255 left out. The result is JSON on stdout.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deal_ros.cli.options import (
    add_data_arguments,
    add_device_argument,
    add_set_argument,
    apply_changes,
    open_data,
)
from deal_ros.cli.reporting import StopOnInterrupt, add_progress_argument, print_result, progress_reporter
from deal_ros.installed import bundle_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_data_arguments(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bundle", type=bundle_folder, metavar="DIR", help="model bundle; tabletop: ours")
    what.add_argument("--cam", type=Path, metavar="RUN", help="run folder of deal train-cam")
    what.add_argument("--labels", type=Path, metavar="DIR", help="folder of deal pseudo-label")
    parser.add_argument("--refine", choices=("none", "rgb", "rgbd", "crf"), default="none", help="for --cam")
    parser.add_argument("--samples", type=int, default=0, help="most samples, evenly spread; default: all")
    add_set_argument(parser, "inference.flip=true")
    add_device_argument(parser)
    add_progress_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Measure."""
    from deal_ros.config import from_mapping
    from deal_ros.datasets.base import need_classes
    from deal_ros.engine.distributed import distributed
    from deal_ros.engine.evaluate import EvaluateConfig, evaluate_cam, evaluate_labels, evaluate_student
    from deal_ros.engine.progress import ignore_progress
    from deal_ros.engine.pseudo_label import PseudoLabelStageConfig
    from deal_ros.engine.train_cam import load_cam
    from deal_ros.pseudo_labels import PseudoLabelConfig
    from deal_ros.students import read_bundle

    settings: dict[str, Any] = {"samples": args.samples}
    apply_changes(settings, args.set)
    config = from_mapping(EvaluateConfig, settings, "evaluate")
    dataset = open_data(args.data, args.split, args.option)
    with distributed(args.device) as ranks, StopOnInterrupt() as should_stop:
        reports: dict[str, Any] = {"ranks": ranks, "should_stop": should_stop}
        reports["on_progress"] = progress_reporter(args.progress) if ranks.first else ignore_progress
        if args.bundle is not None:
            student, spec = read_bundle(args.bundle)
            need_classes(dataset, spec.classes, str(args.bundle))
            figures = evaluate_student(dataset, student, config, input_size=spec.input_size, **reports)
        elif args.labels is not None:
            figures = evaluate_labels(dataset, args.labels, config, **reports)
        else:
            network, classes, trained = load_cam(args.cam, ranks.device)
            need_classes(dataset, classes, str(args.cam))
            seeds = PseudoLabelStageConfig(labels=PseudoLabelConfig(refine=args.refine))
            refined = args.refine != "none"
            figures = evaluate_cam(dataset, network, seeds, trained.loader.size, config, refined=refined, **reports)
        if ranks.first:
            print_result(figures, args.progress)
    return 0
