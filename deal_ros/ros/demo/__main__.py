# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``deal demo`` runs: see :mod:`deal_ros.cli.demo`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deal_ros.cli.demo import add_arguments
from deal_ros.cli.reporting import ProgressBars
from deal_ros.datasets.store import SampleStore
from deal_ros.engine.progress import Progress
from deal_ros.engine.recipe import load_recipe
from deal_ros.installed import recipe_file
from deal_ros.ros.demo.judging import TruthfulDataset, Verdict, judge
from deal_ros.ros.demo.operator import Operator, Show
from deal_ros.ros.demo.processes import ProcessGroup
from deal_ros.ros.demo.report import example_indices, score_stages, show_sheet, table, training_sheet
from deal_ros.ros.demo.settings import FULL, QUICK, DemoSettings
from deal_ros.ros.demo.teaching import Lesson, curriculum, show_scene, teach
from deal_ros.ros.run import end_process
from deal_ros.ros.transports import large_image_environment
from deal_ros.students import read_bundle

JUDGED_SAMPLES = 60
TRAINING_TIMEOUT_S = 3600.0


class Demo:
    """One run of the demonstration.

    Args:
        settings: how much is shown.
        folder: where everything is kept.
        robot: the node processes.
    """

    def __init__(self, settings: DemoSettings, folder: Path, robot: ProcessGroup) -> None:
        self.settings, self.folder, self.robot = settings, folder, robot
        self.seconds: dict[str, float] = {}
        self.operator = Operator()

    def run(self, model: Path | None) -> dict[str, Any]:
        """Everything; returns the report."""
        report: dict[str, Any] = {"settings": asdict(self.settings)}
        with self._stage("start the robot"):
            self._start(model)
        if model is None:
            with self._stage("teach") as say:
                truths = self._teach(say)
            with self._stage("train"):
                status = self._train()
            report["training"] = status
        with self._stage("show unseen tables"):
            shows, verdict = self._show()
        report["collection"] = self.operator.status("collection/status")
        report["verdict"] = asdict(verdict)
        self.operator.close()
        self.robot.stop()
        with self._stage("judge and draw"):
            rows = self._rows(verdict)
            pictures = [show_sheet(shows, self.settings.objects, self.folder / "unseen_tables.png")]
            if model is None:
                run = Path(status["run"]) / "seed-0"
                recipe = load_recipe(recipe_file(self.settings.recipe))
                with SampleStore.open(self.folder / "store") as store:
                    dataset = TruthfulDataset(store, truths)
                    scores = score_stages(run, recipe, dataset, JUDGED_SAMPLES)
                    chosen = example_indices(dataset, 6)
                    pictures.append(training_sheet(run, recipe, dataset, chosen, self.folder / "training.png"))
                report["stages"] = asdict(scores)
                rows = [*self._training_rows(report), *rows]
        report["seconds"] = self.seconds
        report["pictures"] = [str(path) for path in pictures]
        report["table"] = rows
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return report

    def _start(self, model: Path | None) -> None:
        settings, store, models = self.settings, self.folder / "store", self.folder / "models"
        models.mkdir(parents=True, exist_ok=True)
        height, width = settings.size
        camera = {"objects": settings.objects, "width": width, "height": height, "rate_hz": settings.rate_hz}
        self._start_node("camera_simulator", {**camera, "objects_in_view": min(5, len(settings.objects))})
        self._start_node("segmenter", {"models_folder": models, "model": model or "", "threads": 1})
        if model is None:
            recipe = recipe_file(settings.recipe)
            # The demonstration is in a hurry and nothing else runs: no niceness, all cores, no yielding to inference.
            learning = {"store": store, "models_folder": models, "recipe": recipe, "threads": os.cpu_count() or 1}
            self._start_node("trainer", {**learning, "niceness": 0, "min_inference_rate_hz": 0.0})
            gathering = {"store": store, "classes": settings.objects, "min_interval_s": 0.0, "min_view_change": 0.0}
            self._start_collector(gathering)

    def _start_node(self, name: str, parameters: dict[str, Any]) -> None:
        """One after the other: many participants that look for each other at once may miss one another."""
        self.robot.start_node(name, parameters)
        self._await(f"{name} joining the graph", lambda: self.operator.sees(name), 60)

    def _start_collector(self, parameters: dict[str, Any], tries: int = 3) -> None:
        for remaining in reversed(range(tries)):
            self.operator.forget("collection/status")
            self._start_node("sample_collector", parameters)
            try:
                return self._await("the collector pairing images", self._pairs, 20)
            except TimeoutError:
                if not remaining:
                    raise
                print("   the collector has not found the camera; starting it once more", file=sys.stderr, flush=True)
                self.robot.stop_one("sample_collector")

    def _pairs(self) -> bool:
        return self.operator.status("collection/status").get("pair_rate_hz", 0.0) > 0

    def _teach(self, say: Any) -> dict[int, Any]:
        settings = self.settings
        truths = self.operator.gather_truths()
        for lesson in curriculum(settings.objects, settings.views, settings.tables, settings.table_views):
            total = teach(self.operator, lesson, self.robot.check)
            say(f"{lesson.title}: {total} samples")
        return dict(truths)

    def _train(self) -> dict[str, Any]:
        self.operator.call("trainer/start")
        bars = ProgressBars()

        def ended() -> bool:
            status = self.operator.status("training/status")
            if status.get("stage"):
                bars(Progress(status["stage"], status["done"], status["total"], _numbers(status["metrics"])))
            return status.get("state") in ("done", "failed", "cancelled")

        self._await("the end of the training", ended, TRAINING_TIMEOUT_S)
        status = self.operator.status("training/status")
        if status["state"] != "done":
            raise RuntimeError(f"training {status['state']}: {status['message']}")
        return status

    def _show(self) -> tuple[list[Show], Verdict]:
        shows = []
        for number in range(self.settings.shows):
            lesson = Lesson("tabletop", 5000 + number, views=24)
            show_scene(self.operator, lesson, "test", self.robot.check)
            self.operator.wait_for_mask(self.robot.check)
            show = self.operator.watch()
            time.sleep(self.settings.show_s)
            self.operator.stop_watching()
            shows.append(show)
        return shows, judge(shows, len(self.settings.objects))

    def _rows(self, verdict: Verdict) -> list[tuple[str, str]]:
        arrived = verdict.masked / max(verdict.offered, 1)
        return [
            ("student mIoU, unseen tables, masks over DDS", f"{100 * verdict.miou:.1f} %"),
            ("  everything background", f"{100 * verdict.background_miou:.1f} %"),
            ("  best constant class", f"{100 * verdict.constant_miou:.1f} %"),
            ("frames offered → masks received", f"{verdict.offered} → {verdict.masked} ({100 * arrived:.1f} %)"),
            (
                "latency stamp → mask, p50 / p95",
                f"{verdict.latency_p50_ms:.0f} / {verdict.latency_p95_ms:.0f} ms at {self.settings.rate_hz:g} Hz",
            ),
            *((f"time: {name}", f"{seconds:.0f} s") for name, seconds in self.seconds.items()),
        ]

    def _training_rows(self, report: dict[str, Any]) -> list[tuple[str, str]]:
        collection, stages = report["collection"], report["stages"]
        rows = [("samples gathered", f"{collection['total']} of {len(self.settings.objects)} classes")]
        rows.append(("pair rate while gathering", f"{collection['pair_rate_hz']:.1f} Hz of {self.settings.rate_hz:g}"))
        for name, miou in stages["cams"].items():
            rows.append((f"CAM seeds {name}, mIoU", f"{100 * miou:.1f} %  (mAP {100 * stages['maps'][name]:.1f} %)"))
        return [*rows, *((f"{name}, mIoU", f"{100 * miou:.1f} %") for name, miou in stages["labels"].items())]

    def _await(self, what: str, condition: Any, timeout_s: float) -> None:
        self.operator.wait_for(what, condition, timeout_s, self.robot.check)

    @contextmanager
    def _stage(self, name: str) -> Iterator[Any]:
        start = time.monotonic()
        print(f"── {name}", file=sys.stderr, flush=True)
        yield lambda text: print(f"   {text}", file=sys.stderr, flush=True)
        self.seconds[name] = time.monotonic() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; 0 done, 1 it failed, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="deal demo")
    add_arguments(parser)
    args = parser.parse_args(argv)
    settings = QUICK if args.quick else FULL
    if args.model is not None:
        settings = replace(settings, objects=read_bundle(args.model)[1].classes)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way, no process stays behind
    os.environ.update(large_image_environment())  # before the first participant, for this process and its children
    with _folder(args.keep) as folder, ProcessGroup(folder / "logs") as robot:
        try:
            report = Demo(settings, folder, robot).run(args.model and args.model.absolute())
        except KeyboardInterrupt:
            print("deal demo: interrupted; all processes are ended", file=sys.stderr)
            return 130
        except (RuntimeError, TimeoutError, OSError, ValueError) as error:
            print(f"deal demo: {error}\nlogs: {folder / 'logs'}", file=sys.stderr)
            return 1
    print(table(report["table"]))
    if args.keep is not None:
        print("\n".join(["", "pictures:", *(f"  {path}" for path in report["pictures"])]))
    return 0


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="deal_demo_") as path:
            yield Path(path)
        return
    keep = keep.absolute()
    if keep.exists() and any(keep.iterdir()):
        raise SystemExit(f"deal demo: --keep must name an empty or new folder, got {keep}; remove it or choose another")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}


if __name__ == "__main__":
    end_process(main())
