# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The segmenter node from stamp to mask: sizes, rates, listeners, transports, reliability, raw and compressed.

    python benchmarks/segmenter_node.py [--quick] [--json FILE]

Light student (network input 240×320) on the CPU, over real DDS, camera and listener in another process than the node.
The bare forward pass that bounds it is measured in the same run: back to back; and in the node's place, by a node that
is sent the same frames by the same camera, runs nothing but the network for each, on a constant image, and times that
alone. There it finds cores that have slept and caches that have cooled, as ours does. Needs rclpy and psutil.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
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


def bare_forward(bundle: Path) -> Callable[[], Any]:
    """The network alone on a constant image, on the backend that the node chooses, warm."""
    import torch

    from deal_ros.students import Predictor, PredictorConfig

    predictor = Predictor(bundle, PredictorConfig(device="cpu"))
    predictor.warm_up(VGA)
    image = torch.zeros(1, 3, 240, 320)

    @torch.inference_mode()
    def forward() -> Any:
        return predictor._backend._forward(image)  # type: ignore[attr-defined]

    return forward


def forward_node(bundle: str, times: str, arguments: list[str]) -> None:
    """A node that runs the bare forward pass for every image and appends what it took, in ms, to the file ``times``."""
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    rclpy.init(args=arguments)
    node, forward = rclpy.create_node("bare_forward"), bare_forward(Path(bundle))
    publisher = node.create_publisher(Image, "segmentation/mask", QoSProfile(depth=1))
    with Path(times).open("w", buffering=1) as output:

        def on_image(message: Any) -> None:
            began = time.perf_counter()
            forward()
            output.write(f"{1e3 * (time.perf_counter() - began)}\n")
            publisher.publish(Image(header=message.header))

        node.create_subscription(Image, "rgb/image", on_image, QoSProfile(depth=1))
        rclpy.spin(node)


def forward_in_session_ms(bundle: Path, case: Case, transports: str) -> float:
    """Median of the bare forward pass in the place of the node, under one case."""
    times = bundle.with_name("forward_ms.txt")
    run_session([sys.executable, __file__, "--node", str(bundle), str(times)], [case], transports)
    measured = [float(line) for line in times.read_text().splitlines()]
    return statistics.median(measured[int(case.rate_hz) :])  # without the first second


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
        hot = time_calls({"forward": bare_forward(bundle)}, repeats=15 if quick else 60)["forward"]
        bounds: dict[str, float] = {}
        for transports, kind, cases in sessions(quick):
            if transports in CARRYING and transports not in bounds:
                bounds[transports] = forward_in_session_ms(bundle, cases[0], transports)
            command = [sys.executable, "-m", "deal_ros.ros.nodes.segmenter", "--ros-args"]
            command += ["-p", f"model:={bundle}", "-p", "device:=cpu", "-p", f"rgb_transport:={kind}"]
            for figures in run_session(command, cases, transports):
                results.append({"transports": transports, "images": kind, **figures})
    rows = [row(QUESTION, "bare forward 240×320, back to back", 1e3 * hot.median_s, "ms")]
    for transports, forward_ms in bounds.items():
        rows.append(row(QUESTION, f"bare forward 240×320 in the node's place, {transports}, 30 Hz", forward_ms, "ms"))
    for figures in results:
        rows += _rows(figures, bounds.get(figures["transports"]))
    header = ["transports", "images", "case, reliable unless said", *COLUMNS.values()]
    lines = [[f["transports"], f["images"], f["case"], *(_cell(f.get(key)) for key in COLUMNS)] for f in results]
    return Report(
        rows,
        {
            "bare_forward": hot.summary(),
            "bare_forward_in_session_ms": bounds,
            "cases": results,
            "table": [header, *lines],
        },
    )


def _rows(figures: dict[str, Any], forward_ms: float | None) -> list[Row]:
    """Median and losses of every case; bounds where the transports carry the images."""
    name = f"{figures['transports']}, {figures['images']}, {figures['case']}"
    median, carried = figures.get("p50_ms"), figures["transports"] in CARRYING
    rows = [
        row(QUESTION, f"{name}: p50, stamp to mask", median, "ms"),
        row(QUESTION, f"{name}: frames dropped", figures["dropped_percent"], "%", at_most=0 if carried else None),
    ]
    if figures["case"] == "640×480, 30 Hz" and carried and figures["images"] == "raw":
        beyond = None if median is None or forward_ms is None else median - 1.15 * forward_ms
        ratio = None if median is None else figures["p95_ms"] / median
        rows.append(row(QUESTION, f"{name}: p50 beyond 1.15 × the bare forward", beyond, "ms", at_most=5))
        rows.append(row(QUESTION, f"{name}: p95 over p50", ratio, "×", at_most=1.5))
    return rows


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:.0f}"


if __name__ == "__main__" and "--node" in sys.argv:
    at = sys.argv.index("--node")
    forward_node(sys.argv[at + 1], sys.argv[at + 2], sys.argv[at + 3 :])
else:
    main(__name__, run)
