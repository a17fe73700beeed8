# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal run robot --data ~/samples --out runs/first``: a whole experiment from one recipe.

Train the CAM network, make label maps, train the student, measure, write OUT/report.md with table, curves and pictures.
Started again with the same --out, it goes on where it stopped.

deal run voc_weaktr --data VOCdevkit --losses isl,fsl,deal --out runs/voc
deal run hope_seam --losses deal --smoke      a minute, on miniature data that it makes itself
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deal_ros.cli import UsageError
from deal_ros.cli.options import add_device_argument, add_set_argument, apply_changes
from deal_ros.cli.reporting import StopOnInterrupt, add_progress_argument, print_result, progress_reporter
from deal_ros.installed import recipe_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("recipe", type=recipe_file, help="a file, or one of ours by name: robot, voc_weaktr")
    parser.add_argument("--data", type=Path, metavar="PATH", help="data set of the recipe's layout")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/RECIPE-LOSSES")
    parser.add_argument(
        "--losses",
        metavar="LIST",
        help="none | isl,fsl | deal | isl,fsl,deal: the row of the table; default: the recipe's",
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="repeat with each; default: the recipe's")
    parser.add_argument(
        "--smoke", action="store_true", help="miniature sizes, and miniature data if there is no --data"
    )
    add_set_argument(parser, "train_cam.optimization.steps=500")
    add_device_argument(parser)
    add_progress_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the recipe."""
    from deal_ros.engine.distributed import distributed
    from deal_ros.engine.pipeline import run_pipeline, summary
    from deal_ros.engine.progress import ignore_progress
    from deal_ros.engine.recipe import load_recipe

    changes: dict[str, Any] = {}
    apply_changes(changes, args.set)
    if args.losses is not None:
        apply_changes(changes, [f"train_cam.losses.terms={args.losses}"])
    if args.seeds is not None:
        changes["seeds"] = args.seeds
    recipe = load_recipe(args.recipe, smoke=args.smoke, changes=changes)
    terms = recipe.train_cam.losses.terms.replace(",", "-")
    out = args.out or Path("runs") / f"{recipe.name}-{terms}{'-smoke' if args.smoke else ''}"
    with distributed(args.device) as ranks, StopOnInterrupt() as should_stop:
        data = args.data
        if data is None:
            data = out / "data"
            if args.smoke and ranks.first:
                _miniature(recipe.data.layout, data)
            ranks.barrier()
            if not args.smoke:
                raise UsageError(_where(recipe.data.layout))
        report = progress_reporter(args.progress) if ranks.first else ignore_progress
        result = run_pipeline(recipe, data, out, ranks=ranks, on_progress=report, should_stop=should_stop)
        if ranks.first:
            print_result(summary(result), args.progress)
    return 0


def _miniature(layout: str, folder: Path) -> None:
    """Miniature data in the layout's real folders, made once."""
    from deal_ros.datasets import recognize
    from deal_ros.datasets.miniature import MINIATURES

    if not folder.is_dir() or recognize(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        MINIATURES[layout](folder)


def _where(layout: str) -> str:
    remedy = {
        "rendered": "make it with `deal render --out data/rendered`",
        "store": "collect it with the sample_collector node or `deal import`",
    }.get(layout, "see docs for where it comes from")
    return f"--data must name the {layout} data to run on; {remedy}; or add --smoke for a run on miniature data"
