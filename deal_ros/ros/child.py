# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The training process: niced, in its own process group, reporting JSON lines, ended for sure. Needs no ROS."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
MAX_LINE = 1_000_000
"""Characters of one report; a longer line is not a report."""


class Child:
    """One run of ``command``, watched by two threads that end with it.

    Args:
        command: program and arguments; no shell is involved.
        log: everything that the process says on stderr, and what on stdout is not a report, goes there.
        on_report: called from a thread with each JSON object that the process prints on a line of its own.
        niceness: added to this process's own.
        threads: limit for the numerical libraries of the process.

    Raises:
        OSError: if the process cannot be started or the log cannot be written.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        on_report: Callable[[dict[str, Any]], None],
        niceness: int = 15,
        threads: int = 1,
    ) -> None:
        self.log = log
        self.heard_at = time.monotonic()
        self._on_report = on_report
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads)), "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
                preexec_fn=_prepare(niceness),
            )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="training", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, which is also that of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code once the process has ended and all it said has been handed on; ``None`` before."""
        code = self._process.poll()
        if code is None or not self._reader.is_alive():
            return code
        self.kill()  # a grandchild holds the pipe open
        return None

    @property
    def silent_s(self) -> float:
        """Time since the last report."""
        return time.monotonic() - self.heard_at

    def interrupt(self) -> None:
        """Ask the whole group to stop: the process saves a checkpoint and ends by itself."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End the whole group now. What it wrote is whole, because checkpoints and bundles are written atomically."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Halt the whole group."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a halted group go on."""
        self._signal(signal.SIGCONT)
        self.heard_at = time.monotonic()

    def stop(self, grace_s: float) -> int:
        """Interrupt, wait up to ``grace_s``, kill what is left; returns the exit code."""
        if self._process.poll() is None:
            self.interrupt()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()  # grandchildren may have outlived their parent
        code = self._process.wait()
        self._reader.join(1.0)
        return code

    def last_words(self, lines: int = 12) -> str:
        """Return the end of the log, for the status of a crash."""
        try:
            with self.log.open(encoding="utf-8", errors="replace") as text:
                return "".join(deque(text, maxlen=lines)).strip()
        except OSError as error:
            return f"(no log: {error})"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has ended
            os.killpg(self._process.pid, number)

    def _read(self, stdout: IO[bytes]) -> None:
        with stdout, self.log.open("ab", buffering=0) as log:
            while line := stdout.readline(MAX_LINE):
                self.heard_at = time.monotonic()
                report = _parse(line)
                if report is None:
                    with contextlib.suppress(OSError):  # the disk is full: reports still count
                        log.write(line)
                else:
                    self._on_report(report)


def training_command(recipe: Path, store: Path, out: Path, options: Sequence[str] = ()) -> list[str]:
    """Return the command line that does what ``deal run`` does by hand."""
    command = [sys.executable, "-m", "deal_ros.cli", "run", str(recipe), "--data", str(store), "--out", str(out)]
    return [*command, "--progress", "json", *options]


def missing_samples(counts: Mapping[str, int], least: int) -> dict[str, int]:
    """How many samples each class lacks.

    Example:
        >>> missing_samples({"milk": 3, "butter": 9}, least=8)
        {'milk': 5}
    """
    return {name: least - count for name, count in counts.items() if count < least}


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _prepare(niceness: int) -> Callable[[], None]:
    # Resolved before the fork: nothing may be imported or loaded between fork and exec.
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None

    def prepare() -> None:
        os.nice(niceness)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed node leaves no training behind

    return prepare
