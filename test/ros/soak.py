# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole graph under load for as long as wanted: ``python test/ros/soak.py --minutes 30 --json soak.json``.

A camera at 30 Hz, the collector, the segmenter with a swap of its model every minute, training runs one after the
other. Measured each second: memory, threads, descriptors, latency; at the end, where every frame went.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
if __name__ == "__main__":  # what test/conftest.py does for the suite
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds.xml"))
    os.environ.setdefault("ROS_DOMAIN_ID", str(2 + os.getpid() % 96))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    sys.path[:0] = [str(ROOT), str(HERE.parent / "support")]

import torch  # noqa: E402
from raw_result import conclude, origin  # noqa: E402
from ros_graph import BEST_EFFORT, Camera, Graph  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from deal_ros.datasets.miniature import MINIATURES  # noqa: E402
from deal_ros.students import BundleSpec, create_student, write_bundle  # noqa: E402

WATCHED = ("sample_collector", "segmenter", "trainer")
GROWTH_MB = 20.0


def soak(
    folder: Path, seconds: float, rate_hz: float = 30.0, size=(240, 320), swap_every_s: float = 60.0, warm_up_s=30.0
) -> dict:
    """Run the graph and return what was measured; nothing is judged here."""
    models = folder / "models"
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        student = create_student("light", 2, weights="none", encoder="mobilenetv3_small_050", channels=16).eval()
        write_bundle(models / name, student, BundleSpec(classes=("milk", "ketchup"), input_size=(96, 128)))
    store = MINIATURES["store"](folder / "training_store")
    series = {name: [] for name in WATCHED}
    with Graph(folder) as graph:
        nodes = {
            "sample_collector": graph.start(
                "sample_collector", wait="", store=str(folder / "store"), classes=["milk", "ketchup"]
            ),
            "segmenter": graph.start(
                "segmenter", wait="", model=str(models / "a"), models_folder=str(models), device="cpu", threads=1
            ),
            "trainer": graph.start(
                "trainer",
                wait="",
                store=str(store),
                models_folder=str(folder / "runs"),  # its bundles are not swapped in: the swaps here are on time
                recipe=str(ROOT / "config" / "recipes" / "robot.yaml"),
                options=["--smoke"],
                min_samples_per_class=1,
            ),
        }
        for node in nodes.values():
            graph.wait_state(node, "active")
        masks, _ = graph.record(Image, "segmentation/mask", BEST_EFFORT)
        graph.latched("labels").publish(String(data="milk"))
        announce = graph.latched("model")
        training = graph.json_of("training/status")
        camera = Camera(graph, size=size).run(rate_hz)
        swaps = trainings = 0
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            time.sleep(1.0)
            masks.clear()
            if training().get("state") in ("idle", "done", "failed", "cancelled") and now > warm_up_s / 2:
                trainings += graph.trigger("trainer/start").success
            if now > (swaps + 1) * swap_every_s:
                swaps += 1
                announce.publish(String(data="b" if swaps % 2 else "a"))
            for name, node in nodes.items():
                values = graph.status(node)["values"]
                if values and now > warm_up_s:
                    series[name].append({"at_s": now, **{key: values.get(key) for key in KEYS if key in values}})
        camera.stop()
        time.sleep(2.5)
        final = graph.status(nodes["segmenter"])["values"]
        alive = all(node.process.poll() is None for node in nodes.values())
        ends = {name: node.stop() for name, node in nodes.items()}
    return {
        "seconds": seconds,
        "rate_hz": rate_hz,
        "size": list(size),
        "sent": camera.sent,
        "swaps": swaps,
        "trainings": trainings,
        "alive": alive,
        "ends": {name: {"code": code, "seconds": round(took, 2)} for name, (code, took) in ends.items()},
        "frames": frames(final),
        "growth": {name: growth(rows) for name, rows in series.items()},
        "latency_p95_ms": latency(series["segmenter"]),
        **origin(),
    }


KEYS = ("memory MB", "threads", "descriptors", "latency p95 ms", "masks per second", "pairs per second")


def frames(values: dict) -> dict:
    """Where each frame that the segmenter received went."""
    dropped = {}
    for part in filter(None, values["frames dropped"].split(", ")):
        reason, _, count = part.rpartition(": ")
        dropped[reason] = int(count)
    received, masked = int(values["frames received"]), int(values["frames masked"])
    return {
        "received": received,
        "masked": masked,
        "dropped": dropped,
        "lost": received - masked - sum(dropped.values()),
    }


def growth(rows: list) -> dict:
    """Last minus first figure after the warm-up, each the median of a tenth of the run."""
    tenth = max(1, len(rows) // 10)

    def change(key: str) -> float:
        figures = [float(row[key]) for row in rows if key in row]
        middle = sorted(figures[:tenth])[tenth // 2], sorted(figures[-tenth:])[tenth // 2]
        return round(middle[1] - middle[0], 2)

    return {key: change(key) for key in ("memory MB", "threads", "descriptors")} if rows else {}


def latency(rows: list) -> dict:
    """Median of the latency p95 in the first and in the last sixth of the run."""
    figures = [float(row["latency p95 ms"]) for row in rows if row.get("latency p95 ms", "none yet") != "none yet"]
    sixth = max(1, len(figures) // 6)
    if not figures:
        return {}
    return {"first": sorted(figures[:sixth])[sixth // 2], "last": sorted(figures[-sixth:])[sixth // 2]}


def faults(result: dict, growth_mb: float = GROWTH_MB, latency_ratio: float | None = 1.2) -> list:
    """What does not hold of the promises; empty where all do."""
    found = []
    if not result["alive"]:
        found.append("a node died")
    for name, figures in result["growth"].items():
        if figures.get("memory MB", 0) > growth_mb:
            found.append(f"{name} grew by {figures['memory MB']} MB")
        if figures.get("threads", 0) > 0 or figures.get("descriptors", 0) > 2:
            found.append(f"{name} leaks: {figures}")
    if abs(result["frames"]["lost"]) > 2:  # one may be at work and one may wait
        found.append(f"frames unaccounted for: {result['frames']}")
    for name, end in result["ends"].items():
        if end["code"] != 0 or end["seconds"] > 2.0:
            found.append(f"{name} ended with {end}")
    window = result["latency_p95_ms"]
    if latency_ratio and window and window["last"] > latency_ratio * window["first"]:
        found.append(f"latency p95 rose: {window}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="deal_ros_soak_"))
    try:
        result = soak(folder, 60 * args.minutes, args.rate, tuple(args.size), warm_up_s=min(120, 12 * args.minutes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result["faults"] = faults(result)
    return conclude(result, args.json)


if __name__ == "__main__":
    sys.exit(main())
