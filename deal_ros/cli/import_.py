# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal import monday_kitchen/ --out samples --label milk``: turn ROS 2 bags into a sample store.

Needs no ROS. Reads MCAP and sqlite3, split, compressed, cut short.

What is in view comes from the recording's labels topic, or from --label for whole recordings, or from a YAML of
intervals (--labels), in seconds since the recording's first message:

    labels:
      - {from: 0, to: 12.5, labels: milk}
      - {from: 14, labels: "milk, ketchup"}

Topics that are not given are found by type and name, and printed. Run again after an interruption: nothing comes twice.
Under torchrun each process imports its share into OUT/shard-R-of-N; `deal store merge` joins them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from deal_ros.cli.reporting import add_progress_argument, print_json
from deal_ros.datasets.bag import ProgressOfBag, find_bags, import_bags
from deal_ros.datasets.bag_fleet import shard
from deal_ros.datasets.bag_report import ImportConfig, ImportReport
from deal_ros.datasets.bag_topics import BagTopics
from deal_ros.datasets.keyframes import KeyframeConfig
from deal_ros.datasets.store import SampleStore
from deal_ros.labels import NOTHING, parse_labels
from deal_ros.pairing import PairingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``deal import``."""
    keyframes, pairing = KeyframeConfig(), PairingConfig()
    parser.add_argument("bags", nargs="+", metavar="BAG", help="bag folder, .mcap or .db3 file, or a folder of bags")
    parser.add_argument("--out", required=True, metavar="STORE", help="sample store to make or to add to")
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--label", metavar="NAME[,NAME]", default="", help=f"what is in view all the time; {NOTHING}: no class"
    )
    who.add_argument("--labels", metavar="FILE.yaml", default="", help="what is in view when: intervals in seconds")
    parser.add_argument("--classes", metavar="NAME[,NAME]", default="", help="class names in the order of their ids")
    topics = parser.add_argument_group("topics (found by type and name where not given)")
    topics.add_argument("--rgb", metavar="TOPIC", default="", help="colour images, raw or compressed")
    topics.add_argument("--depth", metavar="TOPIC", default="", help="depth registered to colour, raw or compressed")
    topics.add_argument("--camera-info", metavar="TOPIC", default="", help="calibration of the colour camera")
    topics.add_argument("--labels-topic", metavar="TOPIC", default="", help="std_msgs/String with names in view")
    choice = parser.add_argument_group("which frames")
    for name, default, text in (
        ("--slop-ms", pairing.slop_ms, "largest stamp difference of colour and depth"),
        ("--min-interval-s", keyframes.min_interval_s, "least time between two samples"),
        ("--min-view-change", keyframes.min_view_change, "least change of the view; 0 takes all"),
        ("--min-sharpness", keyframes.min_sharpness, "least sharpness beside the frames before; 0 takes all"),
        ("--min-depth", keyframes.min_depth, "least fraction of pixels with depth; 0 takes all"),
    ):
        choice.add_argument(name, type=float, default=default, metavar="X", help=f"{text}; default: %(default)s")
    choice.add_argument("--max-samples", type=int, default=0, metavar="N", help="per bag; default: all")
    parser.add_argument(
        "--image-format", choices=("jpg", "png"), default="jpg", help="of a new store; png is lossless and larger"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="bags read at once; default: all cores")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_progress_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Import and report. 0 done, 1 if a bag is damaged, unreadable or gave no sample."""
    paths = [str(path) for argument in args.bags for path in find_bags(argument)]
    mine, name = shard(paths)
    out = Path(args.out) / name if name else Path(args.out)
    labels = parse_labels(args.label)
    config = ImportConfig(
        topics=BagTopics(args.rgb, args.depth, args.camera_info, args.labels_topic),
        label=None if labels is None else tuple(sorted(labels)),
        labels_file=args.labels,
        pairing=PairingConfig(slop_ms=args.slop_ms),
        keyframes=KeyframeConfig(args.min_interval_s, args.min_view_change, args.min_sharpness, args.min_depth),
        max_samples=args.max_samples,
    )
    classes = [part.strip() for part in args.classes.split(",")] if args.classes else []
    with SampleStore.open_or_create(out, classes, image_format=args.image_format) as store:
        progress = _progress(args.progress)
        try:
            reports, failed = import_bags(mine, store, config, workers=args.workers, on_progress=progress)
        finally:
            if isinstance(progress, _Bars):
                progress.close()
        counts, total = store.counts(), len(store)
    if args.json:
        bags = [report.to_mapping() for report in reports]
        print_json({"store": str(out), "samples": total, "classes": counts, "bags": bags, "failed": failed})
    else:
        print("\n\n".join(describe(report) for report in reports))
        print(f"\n{out}: {total} samples; " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for why in failed.values():
        print(f"deal import: {why}", file=sys.stderr)
    healthy = not failed and all(report.samples and not report.damage for report in reports)
    return 0 if healthy else 1


def describe(report: ImportReport) -> str:
    """Return the report of one recording, for people."""
    lines = [f"{report.bag} → {report.sequence}: {report.samples} samples in {report.seconds:.1f} s"]
    lines += [f"  {role:<12} {topic or 'none'}" for role, topic in report.topics.items()]
    for stream, count in report.received.items():
        lost = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in report.dropped[stream].items() if n)
        lines.append(f"  {stream:<12} {count} frames, {report.paired} paired" + (f", dropped: {lost}" if lost else ""))
    what = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(report.frames.items()))
    lines.append(f"  {'pairs':<12} {what or 'none'}")
    lines.append(f"  {'offset':<12} {_histogram(report)}")
    lines += [f"  {name:<12} {count} samples" for name, count in sorted(report.samples_per_class.items())]
    lines += [f"  PROBLEM      {kind.replace('_', ' ')}: {text}" for kind, text in report.problems.items()]
    lines += [f"  DAMAGED      {where}; imported up to there" for where in report.damage]
    return "\n".join(lines + _advice(report))


def _histogram(report: ImportReport) -> str:
    """Stamp offsets as a row of bars between the edges of the slop."""
    if not any(report.offset_counts):
        return "no pairs"
    most = max(report.offset_counts)
    bars = "".join("▁▂▃▄▅▆▇█"[min(7, -(-8 * n // most) - 1)] if n else "·" for n in report.offset_counts)
    return f"{report.offsets_ms[0]:+g} ms {bars} {report.offsets_ms[-1]:+g} ms (depth minus colour)"


def _advice(report: ImportReport) -> list[str]:
    if report.paired == 0 and all(report.received.get(stream) for stream in ("rgb", "depth")):
        missed = f"{report.missed_by_ms:+.1f} ms" if report.missed_by_ms is not None else "unknown"
        return [
            f"  NO PAIRS     nearest stamps are {missed} apart; raise --slop-ms, or let the driver synchronise"
            " (RealSense: enable_sync:=true)"
        ]
    if report.frames["not_labelled"] and not report.samples:
        return ["  NO LABELS    nothing was labelled while frames came; use --label or --labels"]
    return []


class _Bars:
    """One bar over the bytes of all recordings, on stderr."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._bar: Any = None

    def __call__(self, name: str, done: int, size: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(desc="import", unit="B", unit_scale=True, file=sys.stderr, total=0)
        self._done[name], self._sizes[name] = done, size
        self._bar.total = sum(self._sizes.values())
        self._bar.n = sum(self._done.values())
        self._bar.set_postfix_str(name, refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _progress(kind: str) -> ProgressOfBag | None:
    if kind == "json":
        return lambda name, done, size: print_json({"stage": "import", "bag": name, "done": done, "total": size})
    return _Bars() if kind == "bar" else None
