# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal evidence config/evidence_reduced.yaml --out runs/evidence``: run every experiment of an evidence file.

It renders the benchmark, tries settings, trains and measures all cells on the validation split. Started again with the
same --out, it goes on where it stopped. Then, once and at the end:

deal evidence config/evidence_reduced.yaml --out runs/evidence --table     measure the table's cells on the test split
deal evidence config/evidence_reduced.yaml --out runs/evidence --docs docs     raw records, tables and plots into docs/
deal evidence --docs docs                     tables and plots anew from the raw records in docs/evidence
deal evidence config/evidence.yaml --list     what would be run
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deal_ros.cli import UsageError
from deal_ros.cli.options import add_device_argument
from deal_ros.cli.reporting import StopOnInterrupt, add_progress_argument, print_result, progress_reporter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "config", type=Path, nargs="?", help="evidence file: config/evidence.yaml, evidence_reduced.yaml"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/NAME of the file")
    parser.add_argument("--data", type=Path, metavar="PATH", help="rendered data; default: rendered into the folder")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells by name: 'seam--deal--clean--*'")
    parser.add_argument("--list", action="store_true", help="print the cells and stop")
    parser.add_argument("--table", action="store_true", help="measure the table's cells on the test split")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write results.json, results.md and plots there")
    add_device_argument(parser)
    add_progress_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run, measure or publish."""
    from deal_ros.engine.evidence import load_evidence
    from deal_ros.engine.evidence_results import publish, write_results
    from deal_ros.engine.evidence_run import EvidenceRun

    if args.config is None:
        if args.docs is None or args.table or args.list:
            raise UsageError("an evidence file must be given; only --docs DIR works without one")
        print_result({"results": str(write_results(args.docs))}, args.progress)
        return 0
    evidence = load_evidence(args.config)
    if args.list:
        cells, trials = evidence.cells(), evidence.trials()
        print_result({"trials": [c.name for c in trials], "cells": [c.name for c in cells]}, args.progress)
        return 0
    out = args.out or Path("runs") / args.config.stem
    report = progress_reporter(args.progress)
    with StopOnInterrupt() as should_stop:
        work = EvidenceRun(evidence, out, args.data, device=args.device, on_progress=report, should_stop=should_stop)
        if args.docs is not None and not args.table:
            print_result({"results": str(publish(work, args.docs))}, args.progress)
            return 0
        failed = work.measure_table() if args.table else work.run(args.only)
        result = {"out": str(out), "failed": failed}
        if args.docs is not None:
            result["results"] = str(publish(work, args.docs))
        print_result(result, args.progress)
    return 1 if failed else 0
