# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Nodes and commands as child processes that all end when the demonstration ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rcl_interfaces.msg import Parameter
from rclpy.parameter import Parameter as RclpyParameter


class ProcessGroup:
    """Starts children in sessions of their own and ends them, grandchildren included, on leaving the ``with``.

    Args:
        logs: folder for one log file per child.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Run ``python -m module arguments`` with its output in ``<logs>/<name>.log``."""
        with (self._logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        self._children[name] = child
        return child

    def start_node(self, name: str, parameters: Mapping[str, object]) -> subprocess.Popen[bytes]:
        """Run a node of this package with parameters from ``parameters``."""
        arguments = ["--ros-args"]
        for key, value in parameters.items():
            arguments += ["-p", f"{key}:={_yaml(value)}"]
        return self.start(name, f"deal_ros.ros.nodes.{name}", *arguments)

    def stop_one(self, name: str, timeout_s: float = 5.0) -> None:
        """End one child."""
        child = self._children.pop(name)
        _signal_group(child, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout_s)
        _signal_group(child, signal.SIGKILL)
        child.wait()

    def check(self) -> None:
        """Raise ``RuntimeError`` with the end of its log if a child has died."""
        for name, child in self._children.items():
            if child.poll() not in (None, 0):
                raise RuntimeError(f"{name} ended with code {child.returncode}:\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a child's log."""
        text = (self._logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, timeout_s: float = 5.0) -> None:
        """Interrupt every child, wait, then kill what is left; safe to call twice."""
        alive = [child for child in self._children.values() if child.poll() is None]
        for child in alive:
            _signal_group(child, signal.SIGINT)
        deadline = time.monotonic() + timeout_s
        for child in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        for child in self._children.values():
            _signal_group(child, signal.SIGKILL)
            child.wait()
        self._children.clear()

    def __enter__(self) -> ProcessGroup:
        """Nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all children."""
        self.stop()


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # the whole group has ended already
        os.killpg(child.pid, number)


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return f"'{value}'" if isinstance(value, (str, Path)) else str(value)


def parameter_message(name: str, value: object) -> Parameter:
    """Make a parameter as the ``set_parameters`` service wants it."""
    return RclpyParameter(name, value=value).to_parameter_msg()
