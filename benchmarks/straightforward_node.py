# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A straightforward node beside ours: the same bundle, the same frames, more of them than it can take.

    python benchmarks/straightforward_node.py [--quick] [--json FILE]

The plain node does everything in the subscription's callback, as common examples do: message → array → eager fp32 torch
→ logits enlarged, softmax → mask published; queues of ten. Ours is the segmenter as it is delivered. Both in processes
of their own over real DDS (our transports), one after the other. Needs rclpy and psutil.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from common import Report, main, row
from node_session import OURS, Case, run_session
from segmenter_node import write_model

QUESTION = "beside a straightforward node"


def run(quick: bool) -> Report:
    """Both nodes under every load."""
    seconds = 5.0 if quick else 20.0
    cases = [Case("640×480, 120 Hz", seconds, rate_hz=120.0)]  # more than either can take
    if not quick:
        cases += [
            Case("640×480, 60 Hz", seconds, rate_hz=60.0),
            Case("640×480, 30 Hz", seconds),
            Case("640×480, 30 Hz, one core busy", seconds, busy=1),
        ]
    with tempfile.TemporaryDirectory(prefix="deal_ros_bench_") as folder:
        bundle = write_model(Path(folder) / "model")
        plain = run_session([sys.executable, __file__, "--node", str(bundle)], cases, OURS)
        command = [sys.executable, "-m", "deal_ros.ros.nodes.segmenter", "--ros-args"]
        ours = run_session([*command, "-p", f"model:={bundle}", "-p", "device:=cpu"], cases, OURS)
    rows = []
    for number, (theirs, mine) in enumerate(zip(plain, ours, strict=True)):
        name = mine["case"]
        ratio = mine["masks_hz"] / theirs["masks_hz"] if theirs["masks_hz"] else None
        rows += [
            row(QUESTION, f"{name}: masks per second, straightforward", theirs["masks_hz"], "Hz"),
            row(QUESTION, f"{name}: masks per second, ours", mine["masks_hz"], "Hz"),
            # where the camera itself is slower than twice the plain node, nobody can reach twice its rate
            row(QUESTION, f"{name}: ours over straightforward", ratio, "×", at_least=None if number else 2),
            row(QUESTION, f"{name}: latency p95, straightforward", theirs.get("p95_ms"), "ms"),
            row(QUESTION, f"{name}: latency p95, ours", mine.get("p95_ms"), "ms"),
            row(QUESTION, f"{name}: latency, last third over first, straightforward", _growth(theirs), "×"),
            row(QUESTION, f"{name}: latency, last third over first, ours", _growth(mine), "×", at_most=1.5),
        ]
    return Report(rows, {"straightforward": plain, "ours": ours})


def _growth(figures: dict[str, Any]) -> float | None:
    return figures["last_third_ms"] / figures["first_third_ms"] if "last_third_ms" in figures else None


def plain_node(bundle: str, arguments: list[str]) -> None:
    """The node as examples write it."""
    import numpy as np
    import rclpy
    from predictor import plain
    from rclpy.node import Node
    from sensor_msgs.msg import Image

    from deal_ros.students import read_bundle

    class PlainSegmenter(Node):
        def __init__(self) -> None:
            super().__init__("plain_segmenter")
            self._predict = plain(read_bundle(Path(bundle))[0].eval())
            self._publisher = self.create_publisher(Image, "segmentation/mask", 10)
            self.create_subscription(Image, "rgb/image", self._on_image, 10)

        def _on_image(self, message: Any) -> None:
            rgb = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
            mask = self._predict(rgb).mask
            answer = Image(header=message.header, height=mask.shape[0], width=mask.shape[1], encoding="mono8")
            answer.step = mask.shape[1]
            answer.data = mask.tobytes()
            self._publisher.publish(answer)

    rclpy.init(args=arguments)
    rclpy.spin(PlainSegmenter())


if __name__ == "__main__" and "--node" in sys.argv:
    at = sys.argv.index("--node")
    plain_node(sys.argv[at + 1], sys.argv[at + 2 :])
else:
    main(__name__, run)
