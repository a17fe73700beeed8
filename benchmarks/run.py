# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark that this machine can, one after the other, and write the table of docs/benchmarks.md.

    python benchmarks/run.py [--quick] [--json FILE] [--only NAME…]

Each script is a process of its own. What cannot run becomes a row without verdict that says why, and the exit code 1;
Ctrl-C keeps what was measured.
Raw figures with commit, versions and device stay in benchmarks/results (of quick runs in benchmarks/results/quick).
The page keeps the newest rows of scripts that were not run this time, and takes rows that need a GPU from results that
were measured on one. Nothing else should run meanwhile: how busy others kept the machine stands in the page.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common import RESULTS, Row, table

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
TIMEOUT_S = {True: 150.0, False: 2400.0}


def scripts() -> list[Path]:
    """Every file here that ends as a benchmark does, see common.py."""
    found = [path for path in HERE.glob("*.py") if "main(__name__, run)" in path.read_text().rstrip()[-40:]]
    return sorted(found)


def question(script: Path) -> str:
    """The script's ``QUESTION``, without running it."""
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "QUESTION":
            return str(ast.literal_eval(node.value))
    return script.stem


def measure(script: Path, quick: bool, timeout_s: float) -> tuple[list[Row], bool]:
    """Run one script.

    Returns:
        Its rows and whether it ran; if not, one row with the reason.
    """
    with tempfile.TemporaryDirectory(prefix="deal_ros_run_") as folder:
        output, log = Path(folder) / "rows.json", Path(folder) / "log"
        command = [sys.executable, str(script), "--json", str(output), *(["--quick"] if quick else [])]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _end(process)
                return [failure(question(script), f"stopped after {timeout_s:.0f} s")], False
            except BaseException:  # Ctrl-C too: children must not outlive the run
                _end(process)
                raise
        if code == 0 and output.exists():
            return [Row(**entry) for entry in json.loads(output.read_text(encoding="utf-8"))], True
        said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return [failure(question(script), said[-1] if said else f"exit code {code}")], False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask first, so that the script ends its own children."""
    for number, patience_s in ((signal.SIGINT, 15.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return


def failure(asked: str, reason: str) -> Row:
    """The row of a script that did not run."""
    return Row(asked, f"did not run: {' '.join(reason.split())[:200].replace('|', '/')}", None, "")


def merge(rows: Iterable[Row], elsewhere: Iterable[Row]) -> list[Row]:
    """Rows, where not measured taken from the same question and figure ``elsewhere``; in the order of ``rows``."""
    known = {(entry.question, entry.figure): entry for entry in elsewhere if entry.value is not None}
    merged = []
    for entry in rows:
        other = known.get((entry.question, entry.figure)) if entry.value is None else None
        merged.append(entry if other is None else replace(other, figure=f"{other.figure} (other machine)"))
    return merged


def stored(name: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Raw results of a script: thorough ones, else quick ones, else ``None``."""
    for path in (results / f"{name}.json", results / "quick" / f"{name}.json"):
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
    return None


def page_block(content: Sequence[tuple[str, dict[str, Any]]], results: Path = RESULTS) -> str:
    """What stands between the markers: one table of rows, wide tables, and how each was measured.

    Args:
        content: name of a script and its raw results as ``common.save`` keeps them; without ``environment`` where the
            script did not run.
        results: where results of GPUs lie.
    """
    rows: list[Row] = []
    wide, origins = (
        [],
        ["| script | commit | date (UTC) | kind | device, cores | busy with others |", "|---|---|---|---|---|---|"],
    )
    for name, raw in content:
        own = [Row(**entry) for entry in raw["rows"]]
        others: dict[str, Any] = {"rows": []}
        gpu = results / f"{name}_gpu.json"
        if gpu.exists() and raw.get("environment", {}).get("device", "cpu") == "cpu":
            others = json.loads(gpu.read_text(encoding="utf-8"))
        rows += merge(own, [Row(**entry) for entry in others["rows"]])
        origins += [_origin(name, raw["environment"])] if "environment" in raw else []
        origins += [_origin(f"{name}, GPU", others["environment"])] if "environment" in others else []
        if cells := raw.get("raw", {}).get("table"):
            head, *body = [f"| {' | '.join(str(cell) for cell in line)} |" for line in cells]
            wide.append("\n".join([f"### {own[0].question}", "", head, "|" + "---|" * len(cells[0]), *body]))
    versions = next((raw["environment"]["versions"] for _, raw in content if "environment" in raw), {})
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n\n".join([table(rows), *wide, "### How these were measured", "\n".join(origins), f"{said}."])


def _origin(name: str, machine: dict[str, Any]) -> str:
    commit = machine["commit"] + (" + changes" if machine["uncommitted_changes"] else "")
    kind = "quick" if machine.get("quick") else "thorough"
    device = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    date = machine["date"][:16].replace("T", " ")
    others = machine.get("others_percent")
    busy = f"load average {machine['load_average_1min']}" if others is None else f"{others:.0f} %"
    return f"| {name} | {commit} | {date} | {kind} | {device}, {machine['cores']} | {busy} |"


def update_page(text: str, block: str) -> str:
    """The page with ``block`` between its markers.

    Raises:
        ValueError: if there is not exactly one pair of markers, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the page must hold {BEGIN} once and {END} once after it")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def main() -> int:
    """Command line."""
    known = {path.stem: path for path in scripts()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: all in less than five minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows of this run as a JSON list")
    parser.add_argument("--only", nargs="+", choices=known, default=list(known), metavar="NAME", help=", ".join(known))
    arguments = parser.parse_args()
    busy: dict[str, float | None] = {}
    rows: dict[str, list[Row]] = {}
    failed: list[str] = []
    began = time.monotonic()
    for name in arguments.only:
        print(f"{name} … ", end="", flush=True, file=sys.stderr)
        try:
            busy[name], start = others_percent(), time.monotonic()
            rows[name], ran = measure(known[name], arguments.quick, TIMEOUT_S[arguments.quick])
        except KeyboardInterrupt:
            failed.append(name)
            rows[name] = [failure(question(known[name]), "interrupted")]
            print("interrupted; what was measured is kept", file=sys.stderr)
            break
        failed += [] if ran else [name]
        print(f"{time.monotonic() - start:.0f} s" if ran else rows[name][0].figure, file=sys.stderr)
    print(table([entry for name in rows for entry in rows[name]]))
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    if arguments.json:
        entries = [asdict(entry) for name in rows for entry in rows[name]]
        arguments.json.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    content = [(name, raw) for name in known if (raw := _newest(name, rows, failed, arguments.quick, busy))]
    PAGE.write_text(update_page(PAGE.read_text(encoding="utf-8"), page_block(content)), encoding="utf-8")
    return 1 if failed else 0


def _newest(
    name: str, rows: dict[str, list[Row]], failed: list[str], quick: bool, busy: dict[str, float | None]
) -> dict[str, Any] | None:
    """Raw results for the page: of this run where there are some, else stored ones."""
    if name in failed:
        return {"rows": [asdict(entry) for entry in rows[name]]}
    if name not in rows:
        return stored(name)
    folder = RESULTS / "quick" if quick else RESULTS
    files = [path for path in (folder / f"{name}.json", folder / f"{name}_gpu.json") if path.exists()]
    path = max(files, key=lambda path: path.stat().st_mtime)  # the script knows whether it had a GPU
    raw = dict(json.loads(path.read_text(encoding="utf-8")))
    raw["environment"]["others_percent"] = busy[name]
    path.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return raw


def others_percent(seconds: float = 0.5) -> float | None:
    """How busy the processors are with other work, asked while no benchmark runs; ``None`` where Linux does not say."""
    try:
        before = _processor_times()
        time.sleep(seconds)
        after = _processor_times()
    except OSError:
        return None
    total = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4]
    return round(100 * (1 - idle / total), 1) if total else None


def _processor_times() -> list[int]:
    first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    return [int(word) for word in first.split()[1:9]]


if __name__ == "__main__":
    sys.exit(main())
