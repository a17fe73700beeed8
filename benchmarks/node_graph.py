# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Do the nodes keep up with a camera: pairs, masks, latency, a swap of the model, inference while training?

    python benchmarks/node_graph.py [--quick] [--json FILE]

A camera of 640×480 (colour and depth) over real DDS; collector, segmenter (EfficientNet-Lite0 student at 240×320) and
trainer in processes of their own, as on a robot. Needs rclpy. The machine should be idle: on a busy one the figures
tell of the machine.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Report, main, row
from node_session import Pace

ROOT = Path(__file__).resolve().parents[1]
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(ROOT / "config" / "fastdds.xml")
os.environ.setdefault("ROS_DOMAIN_ID", str(2 + os.getpid() % 96))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
QUESTION = "nodes keep up with the camera"
RATE_HZ, SIZE, CLASSES = 30.0, (480, 640), tuple(f"class {number}" for number in range(14))


def write_models(folder: Path) -> None:
    """Two bundles of the real student that each say one class only, so that a mask tells who made it."""
    import torch

    from deal_ros.students import BundleSpec, create_student, write_bundle

    for class_id in (1, 2):
        student = create_student("light", len(CLASSES)).eval()
        with torch.no_grad():
            student.classify.weight.zero_()
            student.classify.bias.zero_()
            student.classify.bias[class_id] = 6.0
        write_bundle(folder / f"m{class_id}", student, BundleSpec(classes=CLASSES, input_size=(240, 320)))


class Stream:
    """Sends frames on time from a thread and notes what comes back."""

    def __init__(self, module: Any, graph: Any) -> None:
        import numpy as np
        from sensor_msgs.msg import Image

        self._convert, self._camera = module.convert, module.Camera(graph, size=SIZE)
        header = self._convert.make_header(0, "camera")
        noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        self._rgb = self._convert.image_message(noise, "rgb8", header)
        self._depth = self._convert.image_message(np.full(SIZE, 1000, np.uint16), "16UC1", header)
        self.masks: list[tuple[float, float, int]] = []
        """Time of arrival, stamp, both in seconds, and the class that the model says."""
        graph.node.create_subscription(Image, "segmentation/mask", self._on_mask, 30)
        self.sent = 0
        self.stop = Pace(RATE_HZ, self._publish).stop

    def watch(self, seconds: float) -> dict[str, float]:
        """Rate and latency of the masks of the next ``seconds``."""
        sent = self.sent
        self.masks.clear()
        time.sleep(seconds)
        masks = list(self.masks)
        latencies = sorted(1e3 * (arrived - stamp) for arrived, stamp, _ in masks)
        if not latencies:
            return {"masks_hz": 0.0, "sent_hz": (self.sent - sent) / seconds}
        return {
            "masks_hz": len(masks) / seconds,
            "sent_hz": (self.sent - sent) / seconds,
            "latency_p50_ms": statistics.median(latencies),
            "latency_p95_ms": latencies[int(0.95 * len(latencies))],
        }

    def _publish(self) -> None:
        self._rgb.header = self._depth.header = self._convert.make_header(time.time_ns(), "camera")
        self._camera.rgb.publish(self._rgb)
        self._camera.depth.publish(self._depth)
        self.sent += 1

    def _on_mask(self, message: Any) -> None:
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        self.masks.append((time.time(), stamp, int(message.data[0])))


def swap_gaps(stream: Stream, graph: Any, swaps: int) -> list[float]:
    """For each swap, the time between the stamps of the old model's last mask and the new one's first, in ms."""
    from std_msgs.msg import String

    announce = graph.latched("model")
    gaps = []
    for number in range(swaps):
        wanted = 2 - number % 2
        stream.masks.clear()
        announce.publish(String(data=f"m{wanted}"))
        graph.wait(lambda wanted=wanted: stream.masks and stream.masks[-1][2] == wanted, "a swap", 60)
        masks = list(stream.masks)
        first = next(index for index, mask in enumerate(masks) if mask[2] == wanted)
        assert all(mask[2] == wanted for mask in masks[first:]), "a mask of the old model after the swap"
        if first:
            gaps.append(1e3 * (masks[first][1] - masks[first - 1][1]))
        time.sleep(1.0)
    return gaps


def run(quick: bool) -> Report:
    """Measure."""
    sys.path.append(str(ROOT / "test" / "support"))
    module = importlib.import_module("ros_graph")
    from std_msgs.msg import String

    from deal_ros.datasets.miniature import MINIATURES

    seconds, swaps = (5.0, 2) if quick else (20.0, 6)
    folder = Path(tempfile.mkdtemp(prefix="deal_ros_bench_"))
    write_models(folder / "models")
    training_store = MINIATURES["store"](folder / "training")
    with module.Graph(folder) as graph:
        models = {"model": str(folder / "models" / "m1"), "models_folder": str(folder / "models")}
        segmenter = graph.start("segmenter", wait="", device="cpu", **models)
        graph.wait_state(segmenter, "active", 240)
        stream = Stream(module, graph)
        graph.wait(lambda: len(stream.masks) > 30, "masks", 60)
        alone = stream.watch(seconds)
        gaps = swap_gaps(stream, graph, swaps)
        collector = graph.start("sample_collector", store=str(folder / "store"), classes=list(CLASSES))
        graph.latched("labels").publish(String(data=CLASSES[0]))
        time.sleep(2.0)
        status = graph.json_of("collection/status")
        both = stream.watch(seconds)
        pair_rate = float(graph.wait(lambda: status().get("pair_rate_hz"), "pairs"))
        collector.stop()
        recipe = str(ROOT / "config" / "recipes" / "robot.yaml")
        options = ["--set", "train_cam.optimization.steps=100000"]
        paths = {"store": str(training_store), "models_folder": str(folder / "runs"), "recipe": recipe}
        trainer = graph.start("trainer", options=options, min_samples_per_class=1, **paths)
        training = graph.json_of("training/status")
        assert graph.trigger("trainer/start").success
        graph.wait(lambda: training().get("stage") == "train-cam", "training", 300)
        beside = stream.watch(seconds)
        steps = training()["done"]
        stream.stop()
        figures = graph.status(segmenter)["values"]
        trainer.stop()
    period = 1e3 / RATE_HZ
    late = max(gaps) / period - 1 if gaps else None
    raw = {"alone": alone, "with the collector": both, "while training": beside, "swap gaps ms": gaps}
    share = beside["masks_hz"] / alone["masks_hz"] if alone["masks_hz"] else None
    return Report(
        [
            row(
                QUESTION, f"masks per second of {RATE_HZ:.0f} frames", alone["masks_hz"], "Hz", at_least=0.95 * RATE_HZ
            ),
            row(QUESTION, "latency p50, stamp to mask received", alone.get("latency_p50_ms"), "ms"),
            row(QUESTION, "latency p95, stamp to mask received", alone.get("latency_p95_ms"), "ms", at_most=100),
            row(QUESTION, "frames late at the worst of the swaps", late, "frames", at_most=1.1),
            row(QUESTION, "pairs per pair sent", pair_rate / both["sent_hz"], "", at_least=0.95),
            row(QUESTION, "masks while training, part of those alone", share, "", at_least=0.9),
            row(QUESTION, "latency p95 while training", beside.get("latency_p95_ms"), "ms"),
        ],
        {**raw, "training steps": steps, "segmenter": figures},
    )


main(__name__, run)
