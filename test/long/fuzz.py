# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Mutated inputs for every parser and converter: ``python test/long/fuzz.py --inputs 100000 --json fuzz.json``.

Each target of ``fuzz_targets.py`` runs in a process of its own with limited memory. An input is good if it gives a
result or the target's own error, in time. Everything else is a fault: another exception, a crash, a hang, memory, a
file written or a program started elsewhere (seen by Python's audit events), an unpickled class, a connection. A fault
is told with its seed; ``--only TARGET --first N --inputs 1`` repeats input N of one target.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(ROOT)]

SECONDS_PER_INPUT = 10
SECONDS_HANGING = 60
MORE_MEMORY = 2 << 30
"""Bytes that a target may map beyond what it had after its first, undamaged input."""
SUBTLE = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "pickle.find_class")
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request")
CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


class Hang(BaseException):
    """An input took too long; no ``except Exception`` may hide it."""


class Watch:
    """Python's audit events while an input is at work; those that should not be are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen, self.on = str(folder.resolve()) + os.sep, [], False
        sys.addaudithook(self._event)

    def _event(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        if event in SUBTLE or event in NETWORK:
            self.seen.append(f"{event}{args!r:.120}")
        elif event in CHANGES or (event == "open" and self._writes(args)):
            for path in args[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                if isinstance(path, (str, bytes, os.PathLike)) and not self._inside(os.fsdecode(path)):
                    self.seen.append(f"{event} {os.fsdecode(path)!r:.120}")

    @staticmethod
    def _writes(args: tuple) -> bool:
        mode, flags = args[1], args[2]
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if mode is None else bool(set(mode) & set("wax+"))

    def _inside(self, path: str) -> bool:
        # A bare name is relative to a folder's descriptor, which was opened by its path before.
        return os.sep not in path or (os.path.realpath(Path(path).parent) + os.sep).startswith(self.folder)


def run_target(name: str, first: int, count: int, seed: int, folder: Path, report: Path) -> None:
    """In a process of its own: the inputs first..first+count-1 of one target; a line of JSON after each fault."""
    from fuzz_targets import TARGETS
    from peak_memory import peak_mb

    target = TARGETS[name](folder / "inside")
    target.run(target.make(random.Random(0), damaged=False))  # imports, caches; must work
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _hang)
    watch = Watch(folder / "inside")
    refused = 0
    with report.open("a", encoding="utf-8") as out:
        for number in range(first, first + count):
            item = target.make(random.Random(f"{seed} {name} {number}"), damaged=True)
            print(json.dumps({"at": number}), file=out, flush=True)
            fault = ""
            signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_INPUT)
            watch.on = True
            try:
                target.run(item)
            except target.errors:
                refused += 1
            except Hang:
                fault = f"took more than {SECONDS_PER_INPUT} s"
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                fault = f"{type(error).__name__}: {error!s:.200} ({Path(where.filename).name}:{where.lineno})"
            finally:
                watch.on = False
                signal.setitimer(signal.ITIMER_REAL, 0)
            if watch.seen:
                fault += f" did {watch.seen[:3]}"
                watch.seen.clear()
            if fault:
                print(json.dumps({"input": number, "fault": fault}), file=out, flush=True)
        print(json.dumps({"done": count, "refused": refused, "peak_mb": round(peak_mb())}), file=out, flush=True)


def _hang(*_) -> None:
    raise Hang


def fuzz_target(name: str, first: int, count: int, seed: int) -> dict:
    """Run one target, starting again behind an input that ended its process."""
    folder = Path(tempfile.mkdtemp(prefix="deal_ros_fuzz_"))
    report, faults, began = folder / "report", [], time.monotonic()
    totals = {"inputs": 0, "refused": 0, "peak_mb": 0}
    end = first + count
    try:
        while first < end:
            report.write_text("")
            options = ["--only", name, "--first", str(first), "--inputs", str(end - first), "--seed", str(seed)]
            command = [sys.executable, str(Path(__file__).resolve()), *options, "--child", str(folder)]
            environment = {**os.environ, "HOME": str(folder / "inside"), "XDG_CACHE_HOME": str(folder / "inside")}
            environment["TMPDIR"] = str(folder / "inside" / "tmp")
            (folder / "inside" / "tmp").mkdir(parents=True, exist_ok=True)
            with (folder / "said").open("wb") as said:
                child = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=folder)
                code = _wait(child, report)
            lines = [json.loads(line) for line in report.read_text().splitlines()]
            faults += [line for line in lines if "fault" in line]
            last = lines[-1] if lines else {}
            if "done" in last:
                totals["inputs"], totals["refused"] = (
                    totals["inputs"] + last["done"],
                    totals["refused"] + last["refused"],
                )
                totals["peak_mb"] = max(totals["peak_mb"], last["peak_mb"])
                break
            at = next((line["at"] for line in reversed(lines) if "at" in line), None)
            tail = (folder / "said").read_text(errors="replace")[-400:]
            faults.append({"input": at, "fault": f"the process ended with {code}: {tail}"})
            if at is None:
                break
            totals["inputs"] += at + 1 - first
            first = at + 1
        strangers = sorted(str(p) for p in folder.iterdir() if p.name not in ("inside", "report", "said"))
        if strangers:
            faults.append({"input": None, "fault": f"written outside its folder: {strangers[:3]}"})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"target": name, **totals, "seconds": round(time.monotonic() - began, 1), "faults": faults}


def _wait(child: subprocess.Popen, report: Path) -> int | str:
    """The exit code, or that it stood still and was killed."""
    size, since = -1, time.monotonic()
    while child.poll() is None:
        time.sleep(0.02)
        if (now := report.stat().st_size) != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > SECONDS_HANGING:
            child.kill()
            child.wait()
            return "a hang"
    return child.returncode


def main() -> int:
    from fuzz_targets import TARGETS
    from raw_result import conclude, origin

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, shared among the targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(TARGETS), help="this target, all inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_target(args.only, args.first, args.inputs, args.seed, args.child, args.child / "report")
        os._exit(0)  # with what is loaded by now, the interpreter's own end can take long
    chosen = [args.only] if args.only else list(TARGETS)
    weight = sum(TARGETS[name].share for name in chosen)
    results = []
    for name in chosen:
        count = max(1, round(args.inputs * TARGETS[name].share / weight))
        results.append(fuzz_target(name, args.first, count, args.seed))
        print(f"{name}: {results[-1]}", file=sys.stderr)
    whole = {
        "inputs": sum(result["inputs"] for result in results),
        "refused": sum(result["refused"] for result in results),
        "faults": sum(len(result["faults"]) for result in results),
        "seconds": round(sum(result["seconds"] for result in results), 1),
        "seed": args.seed,
        **origin(),
        "targets": results,
    }
    return conclude(whole, args.json)


if __name__ == "__main__":
    sys.exit(main())
