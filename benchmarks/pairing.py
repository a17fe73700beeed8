# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What does pairing cost per message, and how many pairs does it find, beside message_filters' synchroniser?

    python benchmarks/pairing.py [--quick] [--json FILE]

Two 30 Hz streams with jittered stamps, lost frames and varying delays are fed in order of arrival to our
``StampPairer`` and to ``message_filters.ApproximateTimeSynchronizer`` (where it is installed), at several queue sizes.
"Possible" is the largest number of pairs within the slop that any algorithm could make, using each message once;
"right" are pairs of frames that were taken together.
"""

from __future__ import annotations

import random
import statistics
import time
from types import SimpleNamespace
from typing import Any

from common import Report, main, row

from deal_ros.images import stamp_ns
from deal_ros.pairing import DEPTH, RGB, PairingConfig, StampPairer

QUESTION = "pairing"
SLOP_MS = 20.0
SCENARIOS = {
    # stamp offset of depth, jitter of stamps, lost frames, varying delay; in milliseconds and fractions
    "jitter, 10 % lost": {"offset": 0.0, "jitter": 4.0, "lost": 0.1, "delay": 15.0},
    "offset 12 ms, 5 % lost": {"offset": 12.0, "jitter": 2.0, "lost": 0.05, "delay": 15.0},
    "offset 15 ms (next frame 18 ms away), 5 % lost": {"offset": 15.0, "jitter": 0.5, "lost": 0.05, "delay": 15.0},
    "equal stamps": {"offset": 0.0, "jitter": 0.0, "lost": 0.0, "delay": 5.0},
}


def streams(
    frames: int, offset: float, jitter: float, lost: float, delay: float, seed: int
) -> list[tuple[int, int, int]]:
    """(stream, stamp in ns, frame number) in order of arrival; each stream keeps its own order."""
    rng = random.Random(seed)
    arrivals = []
    for stream in (RGB, DEPTH):
        last = 0.0
        for number in range(frames):
            if rng.random() < lost:
                continue
            stamp = 1e6 + number * 1000 / 30 + (offset if stream == DEPTH else 0.0) + rng.uniform(-jitter, jitter)
            last = max(last + 1e-3, stamp + rng.uniform(0, delay))
            arrivals.append((last, stream, round(stamp * 1e6), number))
    return [tuple(arrival[1:]) for arrival in sorted(arrivals)]


def possible_pairs(messages: list[tuple[int, int, int]], slop_ns: int) -> int:
    """Size of the largest matching: greedy from the left is optimal on a line."""
    left = [sorted(stamp for stream, stamp, _ in messages if stream == wanted) for wanted in (RGB, DEPTH)]
    i = j = pairs = 0
    while i < len(left[0]) and j < len(left[1]):
        gap = left[1][j] - left[0][i]
        if abs(gap) <= slop_ns:
            i, j, pairs = i + 1, j + 1, pairs + 1
        elif gap > 0:
            i += 1
        else:
            j += 1
    return pairs


def message(stamp: int, number: int, time_type: Any) -> SimpleNamespace:
    """What both read: a header with a real stamp message."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    header = SimpleNamespace(stamp=time_type(sec=seconds, nanosec=nanoseconds))
    return SimpleNamespace(header=header, number=number)


def ours(messages: list[tuple[int, Any]], queue: int) -> tuple[float, int, int]:
    """CPU seconds, pairs, right pairs."""
    pairer = StampPairer(PairingConfig(slop_ms=SLOP_MS, queue_size=queue))
    found: list[Any] = []
    begin = time.process_time()
    for stream, item in messages:
        found.extend(pairer.add(stream, stamp_ns(item.header), item))
    seconds = time.process_time() - begin
    found.extend(pairer.flush())
    return seconds, len(found), sum(pair.rgb.number == pair.depth.number for pair in found)


def theirs(filters: Any, messages: list[tuple[int, Any]], queue: int) -> tuple[float, int, int]:
    """The same for message_filters."""
    inputs = [filters.SimpleFilter(), filters.SimpleFilter()]
    synchronizer = filters.ApproximateTimeSynchronizer(inputs, queue, SLOP_MS / 1000)
    found: list[tuple[Any, Any]] = []
    synchronizer.registerCallback(lambda *pair: found.append(pair))
    begin = time.process_time()
    for stream, item in messages:
        inputs[stream].signalMessage(item)
    seconds = time.process_time() - begin
    return seconds, len(found), sum(rgb.number == depth.number for rgb, depth in found)


def run(quick: bool) -> Report:
    """Measure all scenarios and queue sizes, ours and theirs in turn."""
    try:
        import message_filters
        from builtin_interfaces.msg import Time
    except ImportError:
        message_filters, Time = None, SimpleNamespace
    frames, repeats = (600, 3) if quick else (3000, 7)
    rows = []
    raw: dict[str, Any] = {"message_filters": bool(message_filters), "slop_ms": SLOP_MS, "frames": frames, "cases": []}
    for name, settings in SCENARIOS.items():
        plan = streams(frames, **settings, seed=1)
        messages = [(stream, message(stamp, number, Time)) for stream, stamp, number in plan]
        possible = possible_pairs(plan, round(SLOP_MS * 1e6))
        for queue in (10, 30, 100) if name == "jitter, 10 % lost" else (30,):
            mine, other = [], []
            for _ in range(repeats):
                mine.append(ours(messages, queue))
                if message_filters is not None:
                    other.append(theirs(message_filters, messages, queue))
            per_message = [1e6 * result[0] / len(messages) for result in mine]
            _, pairs, right = mine[0]
            entry = {"case": name, "queue": queue, "possible": possible, "us": per_message, "pairs": pairs}
            case = f"{name}, queue {queue}"
            rows.append(row(QUESTION, f"{case}: our cost per message", statistics.median(per_message), "µs"))
            rows.append(row(QUESTION, f"{case}: pairs found of those possible", 100 * pairs / possible, "%"))
            entry["right"] = right
            fewest = None if "18 ms away" in name else 0
            if not other:
                rows.append(row(QUESTION, f"{case}: times cheaper than message_filters", None, "×", at_least=5))
            else:
                ratio = statistics.median(b[0] / a[0] for a, b in zip(mine, other))
                entry["message_filters"] = {
                    "us": [1e6 * result[0] / len(messages) for result in other],
                    "pairs": other[0][1],
                    "right": other[0][2],
                }
                rows += [
                    row(QUESTION, f"{case}: times cheaper than message_filters", ratio, "×", at_least=5),
                    row(QUESTION, f"{case}: right pairs beyond message_filters'", right - other[0][2], "", at_least=0),
                    # where its surplus is of frames that do not belong together, fewer is better: no bound
                    row(QUESTION, f"{case}: pairs beyond its", pairs - other[0][1], "", at_least=fewest),
                ]
            raw["cases"].append(entry)
    return Report(rows, raw)


main(__name__, run)
