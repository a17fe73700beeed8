# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The segmenter node from stamp to mask: sizes, rates, listeners, transports, reliability, raw and compressed.

    python benchmarks/segmenter_node.py [--quick] [--json FILE]

Light student (network input 240×320) on the CPU, over real DDS, camera and listener in another process than the node.
The bare forward pass that bounds it is measured first, in the same run: back to back, and once for each frame of the
camera as in the node, where cores that have slept and caches that have cooled take their share. Needs rclpy and psutil.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Report, Row, main, row, time_calls
from node_session import OURS, Case, run_session

QUESTION = "segmenter node"
LARGE, DEFAULT = "LARGE_DATA", "DEFAULT"
CARRYING = (OURS, LARGE)
VGA, HD = (480, 640), (720, 1280)
COLUMNS = {
    "sent": "sent",
    "masks": "masks",
    "dropped_percent": "dropped %",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "cpu_percent": "CPU %",
    "rss_mib": "RSS MiB",
}


def write_model(folder: Path) -> Path:
    """A bundle of the light student; what it has learnt does not change what it costs."""
    import torch

    from deal_ros.students import BundleSpec, create_student, write_bundle

    torch.manual_seed(0)
    classes = tuple(f"class {number}" for number in range(14))
    student = create_student("light", len(classes), weights="none").eval()
    write_bundle(folder, student, BundleSpec(classes=classes, input_size=(240, 320)))
    return folder


def bare_forward_ms(bundle: Path, repeats: int) -> tuple[float, float]:
    """Medians of the network alone, on the backend that the node chooses: back to back, and at 30 Hz."""
    import torch

    from deal_ros.students import Predictor, PredictorConfig

    predictor = Predictor(bundle, PredictorConfig(device="cpu"))
    predictor.warm_up(VGA)
    forward = predictor._backend._forward  # type: ignore[attr-defined]
    image = torch.zeros(1, 3, 240, 320)
    with torch.inference_mode():
        times = time_calls({"forward": lambda: forward(image)}, repeats=repeats)
        paced = []
        for _ in range(2 * repeats):
            time.sleep(1 / 30)
            begin = time.perf_counter()
            forward(image)
            paced.append(time.perf_counter() - begin)
    predictor.close()
    return 1e3 * times["forward"].median_s, 1e3 * statistics.median(paced)


def sessions(quick: bool) -> list[tuple[str, str, list[Case]]]:
    """Transports, how images come, and the cases of one running node each."""
    seconds = 3.0 if quick else 15.0
    vga, hd = Case("640×480, 30 Hz", seconds), Case("1280×720, 30 Hz", seconds, HD)
    change = dataclasses.replace
    main_ones = [vga, hd, change(vga, name="640×480, 30 Hz, overlay and points", listen=("overlay", "points"))]
    best = [change(case, name=f"{case.name}, best effort", reliability="best_effort") for case in (vga, hd)]
    if quick:
        return [(OURS, "raw", main_ones), (DEFAULT, "raw", [vga, best[1]])]
    more = [
        change(vga, name="640×480, 15 Hz", rate_hz=15.0),
        change(hd, name="1280×720, 15 Hz", rate_hz=15.0),
        change(vga, name="640×480, 30 Hz, overlay", listen=("overlay",)),
        change(vga, name="640×480, 30 Hz, points", listen=("points",)),
        change(hd, name="1280×720, 30 Hz, overlay and points", listen=("overlay", "points")),
    ]
    compressed = [change(case, compressed=True) for case in (vga, hd)]
    return [
        (OURS, "raw", [*main_ones, *more, *best]),
        (LARGE, "raw", [vga, hd, *best]),
        (DEFAULT, "raw", [vga, hd, *best]),
        (OURS, "compressed", compressed),
        (DEFAULT, "compressed", compressed),
    ]


def run(quick: bool) -> Report:
    """Bare forward first, then every session."""
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="deal_ros_bench_") as folder:
        bundle = write_model(Path(folder) / "model")
        hot_ms, forward_ms = bare_forward_ms(bundle, 15 if quick else 60)
        for transports, kind, cases in sessions(quick):
            command = [sys.executable, "-m", "deal_ros.ros.nodes.segmenter", "--ros-args"]
            command += ["-p", f"model:={bundle}", "-p", "device:=cpu", "-p", f"rgb_transport:={kind}"]
            for figures in run_session(command, cases, transports):
                results.append({"transports": transports, "images": kind, **figures})
    rows = [
        row(QUESTION, "bare forward 240×320, back to back", hot_ms, "ms"),
        row(QUESTION, "bare forward 240×320, at 30 Hz", forward_ms, "ms"),
    ]
    for figures in results:
        rows += _rows(figures, forward_ms)
    header = ["transports", "images", "case, reliable unless said", *COLUMNS.values()]
    lines = [[f["transports"], f["images"], f["case"], *(_cell(f.get(key)) for key in COLUMNS)] for f in results]
    return Report(
        rows,
        {
            "bare_forward_ms": hot_ms,
            "bare_forward_at_30_hz_ms": forward_ms,
            "cases": results,
            "table": [header, *lines],
        },
    )


def _rows(figures: dict[str, Any], forward_ms: float) -> list[Row]:
    """Median and losses of every case; bounds where the transports carry the images."""
    name = f"{figures['transports']}, {figures['images']}, {figures['case']}"
    median, carried = figures.get("p50_ms"), figures["transports"] in CARRYING
    rows = [
        row(QUESTION, f"{name}: p50, stamp to mask", median, "ms"),
        row(QUESTION, f"{name}: frames dropped", figures["dropped_percent"], "%", at_most=0 if carried else None),
    ]
    if figures["case"] == "640×480, 30 Hz" and carried and figures["images"] == "raw":
        beyond = None if median is None else median - 1.15 * forward_ms
        ratio = None if median is None else figures["p95_ms"] / median
        rows.append(row(QUESTION, f"{name}: p50 beyond 1.15 × the bare forward at 30 Hz", beyond, "ms", at_most=5))
        rows.append(row(QUESTION, f"{name}: p95 over p50", ratio, "×", at_most=1.5))
    return rows


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:.0f}"


main(__name__, run)
