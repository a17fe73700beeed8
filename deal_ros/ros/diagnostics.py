# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One diagnostic status per node, and the small statistics that go into it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass
class Status:
    """What a node says of itself: the worst level reported, the messages that led to it, and figures by name."""

    level: bytes = OK
    messages: list[str] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)

    def report(self, level: bytes, message: str) -> None:
        """Add a message; the level only rises."""
        self.level = max(self.level, level)
        self.messages.append(message)

    def add(self, values: Mapping[str, object]) -> None:
        """Add figures."""
        self.values.update(values)


class DiagnosticsPublisher:
    """Publishes a :class:`Status` as the one entry of a ``/diagnostics`` message."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._name = node.get_fully_qualified_name().lstrip("/")
        # The aggregator and every viewer listen to the absolute name (REP 107).
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish(self, status: Status) -> None:
        """Send ``status`` now."""
        entry = DiagnosticStatus(
            level=status.level,
            name=f"{self._name}: status",
            message="; ".join(status.messages) or "fine",
            hardware_id="deal_ros",
            values=[KeyValue(key=key, value=_text(value)) for key, value in status.values.items()],
        )
        message = DiagnosticArray(status=[entry])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


class Window:
    """The newest values of a figure, for percentiles; safe to fill from another thread."""

    def __init__(self, size: int = 300) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        """Append one value."""
        with self._lock:
            self._values.append(value)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()

    def percentiles(self, *ranks: float) -> tuple[float | None, ...]:
        """Percentiles 0..100 of the window, ``None`` each while it is empty."""
        with self._lock:
            values = list(self._values)
        if not values:
            return (None,) * len(ranks)
        return tuple(float(value) for value in np.percentile(values, ranks))


class Rate:
    """Events per second over the last ``window_s`` seconds; safe to count from another thread."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque()
        self._began = 0.0
        self._lock = threading.Lock()

    def count(self) -> None:
        """One more event, now."""
        with self._lock:
            self._trim()
            if not self._times:
                self._began = time.monotonic()
            self._times.append(time.monotonic())

    def per_second(self) -> float:
        """Return the rate; 0 when nothing happened within the window."""
        with self._lock:
            self._trim()
            span_s = min(self._window_s, max(1.0, time.monotonic() - self._began)) if self._began else self._window_s
            return len(self._times) / span_s

    def _trim(self) -> None:
        oldest = time.monotonic() - self._window_s
        while self._times and self._times[0] < oldest:
            self._times.popleft()


def process_figures() -> dict[str, object]:
    """Resident memory, threads and open descriptors of this process (Linux; empty elsewhere)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
            resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    except (OSError, ValueError, IndexError):
        return {}
    return {"memory MB": resident / 1e6, "threads": threading.active_count(), "descriptors": descriptors}


def _text(value: object) -> str:
    if value is None:
        return "none yet"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(_text(item) for item in value) or "none"
    return str(value)
