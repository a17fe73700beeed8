# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How fast is `deal import` beside a bare read of the same bag with rosbags, and does its memory stay constant?

    python benchmarks/import_bag.py [--quick] [--json FILE]

The bare read takes every message and deserializes it, no more. Both read from the page cache. Keyframes are chosen
with the default settings (every half second at most) from a recording at 30 Hz. The ratio of processor times is what
one busy core would give; threads make the ratio of wall times better where cores are free. Memory is the peak resident
size of a process of its own, at 1,000 and at 10,000 frames of 96 × 72.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from common import Report, main, row
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from deal_ros.datasets.bag import import_bag
from deal_ros.datasets.bag_report import ImportConfig
from deal_ros.datasets.keyframes import KeyframeConfig
from deal_ros.datasets.store import SampleStore

QUESTION = "import"
TYPES = get_typestore(Stores.ROS2_HUMBLE)
EVERY_FRAME = ImportConfig(label=("milk",), keyframes=KeyframeConfig(0, 0, 0, 0))
KEYFRAMES = ImportConfig(label=("milk",))
PEAK = """
import sys
from deal_ros.datasets.bag import import_bag
from deal_ros.datasets.bag_report import ImportConfig
from deal_ros.datasets.store import SampleStore
with SampleStore.create(sys.argv[2], []) as store:
    report = import_bag(sys.argv[1], store, ImportConfig(label=("milk",)))
assert report.paired == int(sys.argv[3])
with open("/proc/self/status") as status:  # ru_maxrss would give the peak of the process that started this one
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")))
"""


def scene(size: tuple[int, int], number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture that moves and compresses like one, and depth with noise and holes."""
    height, width = size
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin((x + 5 * number) / (9 + k) + y / (13 - k)) for k in range(3)]
    rgb = np.clip(120 + 60 * np.stack(waves, 2) + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)
    depth = 900 + y * 2 + 100 * (np.hypot(x - width / 2 - number % 50, y - height / 2) < height / 4)
    depth += rng.normal(0, 3, size)
    depth[rng.random(size) < 0.1] = 0
    return rgb, depth.astype(np.uint16)


def messages(size: tuple[int, int], frames: int, compressed: bool) -> Iterator[tuple[str, int, Any]]:
    """Colour and depth at 30 Hz; twenty different pictures in turn."""
    kinds = TYPES.types
    payloads = []
    for number in range(min(frames, 20)):
        rgb, depth = scene(size, number)
        if compressed:
            jpeg = cv2.imencode(".jpg", rgb[..., ::-1])[1].ravel()
            png = np.concatenate([np.zeros(12, np.uint8), cv2.imencode(".png", depth)[1].ravel()])
            payloads.append((("rgb8; jpeg compressed bgr8", jpeg), ("16UC1; compressedDepth png", png)))
        else:
            payloads.append((rgb, depth))
    for number in range(frames):
        stamp = 1_700_000_000_000_000_000 + number * 33_333_333
        time_ = kinds["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        header = kinds["std_msgs/msg/Header"](stamp=time_, frame_id="camera")
        names = ("/rgb/image", "/depth/image")
        for name, payload, encoding in zip(names, payloads[number % len(payloads)], ("rgb8", "16UC1")):
            if compressed:
                message = kinds["sensor_msgs/msg/CompressedImage"](header=header, format=payload[0], data=payload[1])
                name += "/compressed" if encoding == "rgb8" else "/compressedDepth"
            else:
                data = np.ascontiguousarray(payload).view(np.uint8).ravel()
                step = payload.strides[0]
                fields = SimpleNamespace(height=size[0], width=size[1], encoding=encoding, is_bigendian=0, step=step)
                message = kinds["sensor_msgs/msg/Image"](header=header, data=data, **vars(fields))
            yield name, stamp, message


def write(path: Path, size: tuple[int, int], frames: int, compressed: bool) -> Path:
    """An MCAP recording."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for topic, stamp, message in messages(size, frames, compressed):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=TYPES)
            data = TYPES.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], stamp, data)
    return path


def bare_read(bag: Path) -> None:
    """What the library alone takes."""
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)


def imported(bag: Path, store: Path, config: ImportConfig) -> int:
    """One import into a new store."""
    with SampleStore.create(store, []) as target:
        import_bag(bag, target, config)
        return len(target)


def run(quick: bool) -> Report:
    """Rates at 640 × 480, then memory."""
    frames, repeats = (90, 2) if quick else (300, 5)
    rows = []
    raw: dict[str, Any] = {"frames": frames}
    with tempfile.TemporaryDirectory(prefix="deal_import_") as name:
        folder = Path(name)
        for compressed in (False, True):
            kind = "JPEG and compressedDepth" if compressed else "raw"
            bag = write(folder / f"bag{compressed}", (480, 640), frames, compressed)
            seconds: dict[str, list[float]] = {"bare": [], "keyframes": [], "every": []}
            processor: dict[str, list[float]] = {"bare": [], "keyframes": [], "every": []}
            samples = {}
            for number in range(repeats):
                for what, config in (("bare", None), ("keyframes", KEYFRAMES), ("every", EVERY_FRAME)):
                    begin, worked = time.perf_counter(), time.process_time()
                    if config is None:
                        bare_read(bag)
                    else:
                        samples[what] = imported(bag, folder / f"{what}{compressed}{number}", config)
                    seconds[what].append(time.perf_counter() - begin)
                    processor[what].append(time.process_time() - worked)
            raw[kind] = {"seconds": seconds, "cpu_seconds": processor, "samples": samples}
            rates = {what: frames / statistics.median(values) for what, values in seconds.items()}
            rows.append(row(QUESTION, f"{kind} 640 × 480: bare rosbags read", rates["bare"], "frames/s"))
            for what, text in (("keyframes", "import of keyframes"), ("every", "import of every frame")):
                ratio = statistics.median(a / b for a, b in zip(seconds["bare"], seconds[what]))
                rows.append(row(QUESTION, f"{kind} 640 × 480: {text}", rates[what], "frames/s"))
                work = statistics.median(a / b for a, b in zip(processor["bare"], processor[what]))
                rows.append(row(QUESTION, f"{kind} 640 × 480: {text} / bare read, processor time", work, "×"))
                bound = 0.5 if what == "keyframes" else None
                rows.append(row(QUESTION, f"{kind} 640 × 480: {text} / bare read", ratio, "×", at_least=bound))
        peaks = {}
        for count in (200, 2000) if quick else (1000, 10_000):
            bag = write(folder / f"long{count}", (72, 96), count, compressed=False)
            command = [sys.executable, "-c", PEAK, str(bag), str(folder / f"store{count}"), str(count)]
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
            output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            peaks[count] = float(output)
            rows.append(row(QUESTION, f"peak memory at {count:,} frames", peaks[count], "MiB"))
        small, large = peaks.values()
        rows.append(row(QUESTION, "growth of peak memory, ten times the frames", large - small, "MiB", at_most=16))
        raw["peak_mib"] = peaks
    return Report(rows, raw)


main(__name__, run)
