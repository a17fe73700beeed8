# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A thread behind a slot that holds one item: the newest wins, so that latency does not grow under load."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerCounts:
    """Where the offered items went: ``offered == done + failed + replaced + waiting + running``.

    Args:
        offered: items handed in.
        done: items worked on to the end.
        failed: items whose work raised.
        replaced: items that a newer one pushed out of the slot.
    """

    offered: int
    done: int
    failed: int
    replaced: int


class LatestWins(Generic[T]):
    """Runs ``work(item)`` in one daemon thread, always on the newest item offered.

    Args:
        work: called in the thread.
        name: of the thread, for debuggers and logs.
        on_error: called in the thread with what ``work`` raised; the thread goes on.

    Example:
        >>> results = []
        >>> worker = LatestWins(results.append, "doctest")
        >>> worker.offer(1)
        >>> worker.stop(finish=True)
        True
        >>> results
        [1]
    """

    def __init__(
        self, work: Callable[[T], None], name: str, on_error: Callable[[Exception], None] | None = None
    ) -> None:
        self._work = work
        self._on_error = on_error or (lambda error: _logger.error("%s: %s", name, error))
        self._condition = threading.Condition()
        self._slot: list[T] = []
        self._stopping = False
        self._started_at: float | None = None
        self._offered = self._done = self._failed = self._replaced = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def counts(self) -> WorkerCounts:
        """Totals since the start."""
        with self._condition:
            return WorkerCounts(self._offered, self._done, self._failed, self._replaced)

    @property
    def busy_s(self) -> float:
        """How long the item at work has taken so far; 0 when idle. The watchdog compares it with its limit."""
        started_at = self._started_at
        return 0.0 if started_at is None else time.monotonic() - started_at

    def offer(self, item: T) -> None:
        """Put ``item`` in the slot, pushing out one that still waits. Never blocks on the work."""
        with self._condition:
            self._offered += 1
            if self._slot:
                self._replaced += 1
                self._slot.clear()
            self._slot.append(item)
            self._condition.notify()

    def stop(self, timeout_s: float = 1.0, finish: bool = False) -> bool:
        """End the thread; a waiting item is dropped unless ``finish``. Returns whether it ended in time."""
        with self._condition:
            self._stopping = True
            if not finish and self._slot:
                self._replaced += 1
                self._slot.clear()
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._slot and not self._stopping:
                    self._condition.wait()
                if not self._slot:
                    return
                item = self._slot.pop()
                self._started_at = time.monotonic()
            try:
                self._work(item)
                succeeded = True
            except Exception as error:
                succeeded = False
                self._on_error(error)
            del item
            with self._condition:
                self._started_at = None
                self._done += succeeded
                self._failed += not succeeded
