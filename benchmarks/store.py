# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What does the sample store cost: opening a million samples, iterating, appending?

    python benchmarks/store.py [--quick] [--json FILE]

The million lines are written as ``SampleStore`` writes them; their images are not, opening does not look at them.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Report, main, row

from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_index import Entry
from deal_ros.sample import Sample

QUESTION = "store"
CLASSES = [f"object_{number:02d}" for number in range(28)]
OPEN = """
import sys, time
from deal_ros.datasets.store import SampleStore
def peak_kb():  # ru_maxrss would begin with the peak of the process that started this one
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
before = peak_kb()
begin = time.perf_counter()
store = SampleStore.open(sys.argv[1])
seconds = time.perf_counter() - begin
assert len(store) == int(sys.argv[2]) and sum(store.counts().values()) == len(store)
opened = peak_kb()
begin, seen = time.perf_counter(), 0
for index in range(0, len(store), max(1, len(store) // int(sys.argv[3]))):
    seen += store.labels(index) is not None and len(store.sample_id(index)) > 0
iterating = (time.perf_counter() - begin) / seen
grown = peak_kb() - opened
print(seconds, (opened - before) / 1024, iterating * 1e6, grown / 1024)
"""


def run(quick: bool) -> Report:
    """Measure; every opening is a fresh process."""
    size = 100_000 if quick else 1_000_000
    limit = 5.0 * size / 1_000_000
    rows, raw = [], {}
    with tempfile.TemporaryDirectory(prefix="deal_store_") as folder:
        path = Path(folder) / "large"
        _write_lines(path, size)
        first = _open(path, size)  # parses every line and writes the cache
        cached = sorted(_open(path, size) for _ in range(3))[1]
        raw["open"] = {
            "lines": size,
            "first": first,
            "cached": cached,
            "bytes": (path / "samples.jsonl").stat().st_size,
        }
        rows += [
            row(QUESTION, f"open {size:,} samples, index cached", cached[0], "s", at_most=limit),
            row(QUESTION, f"open {size:,} samples for the first time", first[0], "s"),
            row(QUESTION, f"memory for {size:,} samples", cached[1], "MiB", at_most=250 * size / 1_000_000 + 50),
            row(QUESTION, "id and labels of a sample", cached[2], "µs"),
            row(QUESTION, "memory growth while iterating", cached[3], "MiB", at_most=8),
        ]
        for name, shape, count in (("640 × 480", (480, 640), 20 if quick else 100), ("64 × 48", (48, 64), 100)):
            seconds, read = _append_and_read(Path(folder) / name.replace(" ", ""), shape, count)
            raw[name] = {"append_s": seconds, "read_s": read}
            rows += [
                row(QUESTION, f"append {name}, synced", 1e3 * float(np.median(seconds)), "ms"),
                row(QUESTION, f"append {name}, synced, 95th percentile", 1e3 * float(np.percentile(seconds, 95)), "ms"),
                row(QUESTION, f"decode {name}", 1e3 * float(np.median(read)), "ms"),
            ]
    return Report(rows, raw)


def _write_lines(path: Path, size: int) -> None:
    SampleStore.create(path, CLASSES).close()
    template = Entry(
        id="", stamp_ns=0, labels=(), camera_matrix=(612.3, 0.0, 321.4, 0.0, 611.9, 243.7, 0.0, 0.0, 1.0),
        frame_id="camera_color_optical_frame", source="/camera/camera/color/image_raw", sequence="", rgb="jpg",
        size=(480, 640), mask=False,
    )  # fmt: skip
    with (path / "samples.jsonl").open("wb") as file:
        for number in range(size):
            entry = dataclasses.replace(
                template,
                id=f"{number:08d}-{number * 2654435761 % 2**32:08x}",
                stamp_ns=1_700_000_000_000_000_000 + number * 500_000_000,
                labels=(CLASSES[number % len(CLASSES)],),
                sequence=f"run_{number // 1000:04d}",
            )
            file.write(entry.to_line())


def _open(path: Path, size: int) -> tuple[float, ...]:
    command = [sys.executable, "-c", OPEN, str(path), str(size), "20000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return tuple(float(word) for word in output.split())


def _append_and_read(path: Path, shape: tuple[int, int], count: int) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, shape[1])[None, :, None] + rng.normal(0, 6, (*shape, 3))
    depth = (np.linspace(0.5, 3, shape[0])[:, None] + rng.normal(0, 0.003, shape)).astype(np.float32)
    depth[rng.random(shape) < 0.1] = 0
    sample = Sample(np.clip(ramp, 0, 255).astype(np.uint8), depth, frozenset(CLASSES[:1]))
    appended, read = [], []
    with SampleStore.create(path, CLASSES) as store:
        for number in range(count):
            begin = time.perf_counter()
            store.append(dataclasses.replace(sample, stamp_ns=number + 1))
            appended.append(time.perf_counter() - begin)
        for index in range(count):
            begin = time.perf_counter()
            store[index]
            read.append(time.perf_counter() - begin)
    return appended, read


main(__name__, run)
