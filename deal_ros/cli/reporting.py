# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How verbs show progress and results: bars on stderr for people, one JSON object per line on stdout for programs."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from typing import Any

from deal_ros.engine.progress import Progress, ProgressCallback, ignore_progress
from deal_ros.files import json_ready


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--progress bar|json|none``, the same for every long verb."""
    parser.add_argument(
        "--progress",
        choices=("bar", "json", "none"),
        default="bar",
        help="bar: for people, on stderr; json: one object per line on stdout, for programs; default: %(default)s",
    )


def progress_reporter(kind: str) -> ProgressCallback:
    """Return what to hand to a stage as ``on_progress`` for the chosen ``--progress``."""
    reporters: dict[str, ProgressCallback] = {"bar": ProgressBars(), "json": report_json, "none": ignore_progress}
    return reporters[kind]


def report_json(progress: Progress) -> None:
    """Print ``{"stage", "done", "total", "metrics"}`` on one line of stdout."""
    print_json(
        {"stage": progress.stage, "done": progress.done, "total": progress.total, "metrics": progress.metrics},
    )


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout, at once. NaN and infinities, which JSON lacks, become null."""
    print(json.dumps(json_ready(value), allow_nan=False), flush=True)


def print_result(result: dict[str, Any], kind: str) -> None:
    """Print a verb's result: ``{"result": …}`` on one line for programs, indented JSON for people."""
    if kind == "json":
        print_json({"result": result})
    else:
        print(json.dumps(json_ready(result), indent=2, allow_nan=False), flush=True)


class ProgressBars:
    """One tqdm bar per stage on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        """Move the bar of ``progress.stage``; a new stage gets a new bar."""
        from tqdm import tqdm

        if self._bar is None or self._stage != progress.stage or progress.done < self._bar.n:
            if self._bar is not None:
                self._bar.close()
            self._stage = progress.stage
            self._bar = tqdm(
                total=progress.total,
                desc=progress.stage,
                file=sys.stderr,
                initial=progress.done,
                mininterval=0.1 if sys.stderr.isatty() else 5,
            )
        shown = {name: f"{value:.3g}" for name, value in progress.metrics.items()}
        if shown:
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(progress.done - self._bar.n)
        if progress.done >= progress.total:
            self._bar.close()


class StopOnInterrupt:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop, so that a stage can write its checkpoint first.

    A second one interrupts at once. Used as ``with StopOnInterrupt() as should_stop:`` around a stage.
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether somebody asked to stop."""
        return self._asked

    def __enter__(self) -> StopOnInterrupt:
        """Listen to both signals; elsewhere than in the main thread nothing can be done and nothing is."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *exception: object) -> None:
        """Put the handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        print("stopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr, flush=True)
