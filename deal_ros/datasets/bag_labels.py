# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is in view at a moment of a recording: from its labels topic, from a YAML of intervals, or one set for all.

The YAML gives seconds since the first message of the recording::

    labels:
      - {from: 0, to: 12.5, labels: milk}
      - {from: 14, labels: "milk, ketchup"}      # until the end

For several recordings, the name of each (its folder's) takes the place of ``labels``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deal_ros.config import ConfigError, load_yaml
from deal_ros.labels import exposed_before, parse_labels

MAX_INTERVALS = 100_000


class LabelSource(Protocol):
    """Says which labels hold; ``None`` where a frame is not to be gathered, empty where no class is in view."""

    def at(self, log_ns: int) -> frozenset[str] | None:
        """Labels at a log time in nanoseconds."""
        ...


@dataclass(frozen=True)
class ConstantLabels:
    """One set of labels for the whole recording."""

    labels: frozenset[str]

    def at(self, log_ns: int) -> frozenset[str] | None:
        """Return the labels, always."""
        return self.labels


class TopicLabels:
    """Labels of the ``labels`` topic: each message holds from its log time until the next."""

    def __init__(self) -> None:
        self._labels: frozenset[str] | None = None
        self._changed_ns = 0

    def hear(self, text: str, log_ns: int) -> frozenset[str] | None:
        """Take the text of a message. After one that cannot be used, nothing is labelled until the next.

        Raises:
            LabelError: if the text cannot be used.
        """
        before, self._labels = self._labels, None
        self._labels = parse_labels(text)
        if self._labels != before:
            self._changed_ns = log_ns
        return self._labels

    def precedes(self, stamp_ns: int) -> bool:
        """Whether a frame was exposed shortly before the newest labels came, and so shows what was in view before."""
        return exposed_before(stamp_ns, self._changed_ns)

    def at(self, log_ns: int) -> frozenset[str] | None:
        """Return the labels of the newest message heard."""
        return self._labels


class IntervalLabels:
    """Labels of a list of intervals, in seconds since ``start_ns``.

    Args:
        intervals: mappings with ``from`` (default 0), ``to`` (default: the end) and ``labels`` (a text or a list).
        start_ns: log time of the first message.
        where: the file, for messages.

    Raises:
        ConfigError: if an interval is not like that, ends before it begins, or overlaps another.
        LabelError: if a name is unusable.
    """

    def __init__(self, intervals: Sequence[Mapping[str, Any]], start_ns: int = 0, where: str = "labels") -> None:
        if not isinstance(intervals, list) or len(intervals) > MAX_INTERVALS:
            raise ConfigError(f"{where}: must be a list of at most {MAX_INTERVALS} intervals, got {intervals!r:.80}")
        parsed = [_interval(values, f"{where}[{number}]") for number, values in enumerate(intervals)]
        self._intervals = sorted(parsed, key=lambda interval: interval[0])
        for (_, end, _), (start, _, _) in zip(self._intervals, self._intervals[1:]):
            if start < end:
                raise ConfigError(
                    f"{where}: intervals must not overlap: one ends at {end:g} s, one begins at {start:g}"
                )
        self._start_ns = start_ns

    def at(self, log_ns: int) -> frozenset[str] | None:
        """Labels of the interval that contains the moment."""
        from bisect import bisect_right

        seconds = (log_ns - self._start_ns) * 1e-9
        number = bisect_right(self._intervals, seconds, key=lambda interval: interval[0]) - 1
        if number < 0 or seconds >= self._intervals[number][1]:
            return None
        return self._intervals[number][2]

    def names(self) -> set[str]:
        """All class names that occur."""
        return {name for _, _, labels in self._intervals for name in labels or ()}


def load_intervals(path: str | Path, bag_name: str, start_ns: int) -> IntervalLabels:
    """Read the intervals of one recording from a YAML file.

    Raises:
        ConfigError: if the file cannot be used or has nothing for this recording.
    """
    values = load_yaml(path)
    key = bag_name if bag_name in values else "labels"
    if key not in values:
        raise ConfigError(f"{path}: needs a list called 'labels' or {bag_name!r}, has {', '.join(values) or 'nothing'}")
    return IntervalLabels(values[key], start_ns, f"{path}: {key}")


def _interval(values: Any, where: str) -> tuple[float, float, frozenset[str] | None]:
    if not isinstance(values, dict) or not set(values) <= {"from", "to", "labels"} or "labels" not in values:
        raise ConfigError(f"{where}: must be like {{from: 0, to: 12.5, labels: milk}}, got {values!r:.80}")
    start, end, names = values.get("from", 0), values.get("to", math.inf), values["labels"]
    for name, seconds in (("from", start), ("to", end)):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
            raise ConfigError(f"{where}.{name}: must be a number of seconds, got {seconds!r:.80}")
    if end <= start:
        raise ConfigError(f"{where}: must end after it begins, got from {start:g} to {end:g}")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        names = ",".join(names)
    if not isinstance(names, str):
        raise ConfigError(f"{where}.labels: must be a text or a list of names, got {names!r:.80}")
    return float(start), float(end), parse_labels(names)
