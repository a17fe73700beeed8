# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all benchmarks share: timing, memory, the machine, rows with a target and a verdict, and raw JSON.

A benchmark is a module with ``QUESTION`` and ``run(quick: bool) -> Report``; its last line is ``main(__name__, run)``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler counts allocations here, silently
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "onnxruntime", "rclpy", "rosbags")


@dataclass(frozen=True)
class Row:
    """One figure and whether it reaches its target.

    Args:
        question: what is asked, the same in all rows of a benchmark.
        figure: what was measured, in words.
        value: the number, ``None`` where it was not measured.
        unit: of the number.
        target: what was to be reached, in words; "" where none was set.
        holds: whether it was; ``None`` where it was not measured or no target was set.
    """

    question: str
    figure: str
    value: float | None
    unit: str
    target: str = ""
    holds: bool | None = None


@dataclass
class Report:
    """Rows for the table and everything that was measured on the way."""

    rows: list[Row]
    raw: dict[str, Any] = field(default_factory=dict)


def row(
    question: str,
    figure: str,
    value: float | None,
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """A row whose verdict follows from its bound."""
    bounds = [(sign, bound) for sign, bound in (("≤", at_most), ("≥", at_least)) if bound is not None]
    holds = None
    if value is not None and bounds:
        holds = all(value <= bound if sign == "≤" else value >= bound for sign, bound in bounds)
    return Row(question, figure, value, unit, " and ".join(f"{sign} {bound:g}" for sign, bound in bounds), holds)


@dataclass
class Series:
    """Seconds of repeated calls, in order.

    Args:
        wall_s: by the clock on the wall.
        cpu_s: processor time of all threads; on a busy machine the fairer one for work that is done on the CPU.
    """

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """Median wall time."""
        return statistics.median(self.wall_s)

    def summary(self) -> dict[str, float | int]:
        """Median and quartiles, for the raw results."""
        lower, median, upper = quartiles(self.wall_s)
        return {
            "median_s": median,
            "lower_quartile_s": lower,
            "upper_quartile_s": upper,
            "cpu_median_s": statistics.median(self.cpu_s),
            "repeats": len(self.wall_s),
        }


def time_calls(calls: Mapping[str, Callable[[], Any]], *, warmup: int = 3, repeats: int = 15) -> dict[str, Series]:
    """Time alternatives in turn, so that whatever else the machine does meets all of them alike.

    Returns:
        A series per name; the n-th entries belong together, so ratios may be taken pairwise (:func:`median_ratio`).
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    series = {name: Series() for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            synchronize()
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            synchronize()
            series[name].cpu_s.append(time.process_time() - cpu)
            series[name].wall_s.append(time.perf_counter() - wall)
    return series


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4)
    return lower, median, upper


def median_ratio(over: Series, under: Series, device: str = "cpu") -> float:
    """Median of the pairwise ratios: of processor time for work on the CPU, of wall time for work on a GPU."""
    pairs = zip(over.cpu_s, under.cpu_s) if device == "cpu" else zip(over.wall_s, under.wall_s)
    return statistics.median(a / b for a, b in pairs)


def synchronize() -> None:
    """Wait for the GPU, where one is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory_bytes(call: Callable[[], Any], device: str = "cpu") -> int:
    """Most tensor memory that ``call`` holds at once beyond what was held before it.

    From the allocator's own counters on a GPU; on a CPU from its allocation events, one by one, so that neither Python
    nor the caches of the C library blur it.
    """
    import torch

    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def environment() -> dict[str, Any]:
    """Commit, versions and machine: without them a figure says nothing."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    result = {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "device": "cpu",
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        result["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            result["device"] = torch.cuda.get_device_name()
    return result


def save(name: str, report: Report, quick: bool = False) -> Path:
    """Keep rows, raw figures and machine in ``results/<name>.json``, one file per benchmark and kind of device.

    Quick figures go to ``results/quick``, so that they never replace thorough ones.
    """
    machine = {**environment(), "quick": quick}
    suffix = "" if machine["device"] == "cpu" else "_gpu"
    folder = RESULTS / "quick" if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{suffix}.json"
    content = {"environment": machine, "rows": [asdict(entry) for entry in report.rows], "raw": report.raw}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    verdicts = {True: "yes", False: "**no**", None: ""}
    lines = ["| question | figure | value | target | holds |", "|---|---|---|---|---|"]
    for entry in rows:
        value = "not measured" if entry.value is None else f"{entry.value:.4g} {entry.unit}"
        lines.append(f"| {entry.question} | {entry.figure} | {value} | {entry.target} | {verdicts[entry.holds]} |")
    return "\n".join(lines)


def main(name: str, run: Callable[[bool], Report]) -> None:
    """Run a benchmark from the command line: ``--quick`` for a short one, ``--json FILE`` for its rows."""
    if name != "__main__":
        return
    script = sys.modules["__main__"]
    parser = argparse.ArgumentParser(description=script.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    arguments = parser.parse_args()
    report = run(arguments.quick)
    print(table(report.rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(entry) for entry in report.rows], indent=1, ensure_ascii=False))
    path = save(Path(str(script.__file__)).stem, report, arguments.quick)
    print(f"raw figures: {path}", file=sys.stderr)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(RESULTS.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
