# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which frames are kept: labels in force, keyframes, quota, disk floor; and the status of it all. Needs no ROS."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deal_ros.datasets.keyframes import KeyframeSelector
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import StoreError
from deal_ros.images import decode_depth
from deal_ros.labels import NOTHING, label_text, parse_labels
from deal_ros.pairing import Pair
from deal_ros.ros.convert import decode_color
from deal_ros.sample import Sample

_DISK_CHECK_S = 1.0
_MAX_NAMED = 3


class CollectionError(ValueError):
    """A capture that cannot be; the message says why and what to do."""


class Labelled(NamedTuple):
    """A pair of messages with what was in view when it came."""

    pair: Pair
    labels: frozenset[str] | None
    sequence: str

    def to_sample(
        self, matrix_for: Callable[[int, int], NDArray[np.float64] | None], max_depth_m: float, source: str
    ) -> Sample:
        """Decode both images; farther depth than ``max_depth_m`` becomes 0, no return.

        Args:
            matrix_for: gives the camera matrix for images of a height and width.
            max_depth_m: depth beyond it is not trusted.
            source: where the frame came from.

        Raises:
            ImageError: if a message cannot be decoded.
            ValueError: if the two differ in size.
        """
        depth_m = decode_depth(self.pair.depth)
        depth_m[depth_m > max_depth_m] = 0
        rgb = decode_color(self.pair.rgb)
        return Sample(
            rgb=rgb,
            depth_m=depth_m,
            labels=self.labels,
            camera_matrix=matrix_for(*rgb.shape[:2]),
            stamp_ns=self.pair.stamp_ns,
            frame_id=self.pair.rgb.header.frame_id,
            source=source,
        )


@dataclass(frozen=True)
class Limits:
    """When gathering stops by itself.

    Args:
        quota_per_class: samples per class; 0 is no limit.
        min_disk_free_gb: least space that must stay free on the store's disk, in 10⁹ bytes.
    """

    quota_per_class: int = 0
    min_disk_free_gb: float = 0.0


class Collection:
    """A store and the decision what goes into it. Methods may be called from several threads.

    Args:
        store: open for writing; closed by :meth:`close`.
        selector: decides which frames are new enough.
        limits: may be replaced at any time.
    """

    def __init__(self, store: SampleStore, selector: KeyframeSelector, limits: Limits) -> None:
        self.store = store
        self.selector = selector
        self.limits = limits
        self.enabled = True
        self.skipped: Counter[str] = Counter()
        self.stored = 0
        self.last_id = ""
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._labels: frozenset[str] | None = None
        self._sequence = ""
        self._disk: tuple[float, float] = (-_DISK_CHECK_S, 0.0)
        self._unwritten = self._gone = ""

    @property
    def labels(self) -> frozenset[str] | None:
        """Class names in view; ``None`` while nobody says."""
        return self._labels

    @property
    def sequence(self) -> str:
        """Return the recording that samples go to."""
        return self._sequence

    @property
    def problem(self) -> str:
        """Why samples cannot be written, with the remedy; empty while they can."""
        self.disk_free_gb()  # looks whether the store is there
        return self._gone or self._unwritten

    def set_labels(self, text: str, sequence: str = "") -> frozenset[str] | None:
        """Take the text of the ``labels`` topic.

        Args:
            text: see :func:`~deal_ros.labels.parse_labels`; an empty one stops gathering.
            sequence: name of the recording; empty makes one from time and labels whenever these change.

        Raises:
            LabelError: with the known names; nothing is gathered then, since the old labels may be wrong by now.
        """
        before, self._labels = self._labels, None
        labels = parse_labels(text, self.store.classes)
        # Said again, it is the same recording: frames of one must not come to lie on both sides of a held-out part.
        if labels is not None and (labels != before or sequence not in ("", self._sequence)):
            named = "+".join(sorted(labels)[:_MAX_NAMED]) or NOTHING
            self._sequence = sequence or f"{time.strftime('%Y%m%d-%H%M%S')}-{named}"
        self._labels = labels
        return labels

    def wanted(self) -> str:
        """Empty if a frame would be looked at now, else the reason why not."""
        if not self.enabled:
            return "disabled"
        if self._labels is None:
            return "no_labels"
        quota = self.limits.quota_per_class
        if quota and self._labels and all(self.store.counts()[name] >= quota for name in self._labels):
            return "quota"
        low = self.disk_free_gb() < self.limits.min_disk_free_gb
        return "write_failed" if self._gone else "disk_floor" if low else ""

    def skip(self, reason: str) -> None:
        """Count a frame that was not looked at or not kept."""
        with self._counting:
            self.skipped[reason] += 1

    def figures(self, replaced: int) -> dict[str, Any]:
        """For diagnostics; ``replaced`` pairs were pushed out of the worker's slot by newer ones."""
        with self._counting:
            skipped = {**self.skipped, "replaced": replaced}
        return {
            "gathering": self.state(),
            "labels": label_text(self._labels),
            "samples per class": self.store.counts(),
            "skipped": skipped,
            "disk free GB": self.disk_free_gb(),
        }

    def offer(self, sample: Sample, sequence: str) -> str:
        """Keep ``sample`` if it is a keyframe; returns its id or an empty text.

        Raises:
            StoreError: if it could not be written; nothing committed is lost.
        """
        with self._lock:
            decision = self.selector.decide(sample)
            if not decision.accepted:
                self.skip(decision.reason)
                return ""
            return self._append(sample, sequence)

    def capture(self, sample: Sample, sequence: str) -> str:
        """Keep ``sample`` whatever the selector thinks; returns its id.

        Raises:
            CollectionError: if nothing may be stored now.
            StoreError: if it could not be written.
        """
        if sample.labels is None:
            raise CollectionError("nobody says what is in view: publish class names on the labels topic first")
        if self.disk_free_gb() < self.limits.min_disk_free_gb:
            raise CollectionError(f"only {self.disk_free_gb():.2f} GB are free, see min_disk_free_gb")
        with self._lock:
            return self._append(sample, sequence)

    def undo(self, count: int) -> list[str]:
        """Remove the newest samples; returns their ids."""
        with self._lock:
            return self.store.undo(count)

    def disk_free_gb(self) -> float:
        """Free space on the store's disk in 10⁹ bytes, looked up once a second at most; 0 where it is gone."""
        checked_at, free = self._disk
        if time.monotonic() - checked_at >= _DISK_CHECK_S:
            try:
                free, self._gone = shutil.disk_usage(self.store.path).free / 1e9, ""
            except OSError as error:
                free = 0.0
                self._gone = f"{self.store.path}: the store is gone ({error.strerror}); mount it, then restart the node"
            self._disk = (time.monotonic(), free)
        return free

    def state(self) -> str:
        """One of gathering, disabled, no_labels, quota, disk_floor, write_failed."""
        return self.wanted() or ("write_failed" if self.problem else "gathering")

    def to_json(self, **more: Any) -> str:
        """Return what ``collection/status`` says, as one JSON object; ``more`` is added."""
        with self._counting:
            skipped = dict(self.skipped)
        values = {
            "state": self.state(),
            "labels": None if self._labels is None else sorted(self._labels),
            "sequence": self._sequence,
            "classes": list(self.store.classes),
            "counts": self.store.counts(),
            "total": len(self.store),
            "stored": self.stored,
            "skipped": skipped,
            "last": self.last_id,
            "disk_free_gb": round(self.disk_free_gb(), 2),
            "store": str(self.store.path),
            "message": self.problem,
        }
        return json.dumps({**values, **more})

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self.store.close()

    def _append(self, sample: Sample, sequence: str) -> str:
        try:
            self.last_id = self.store.append(sample, sequence)
        except StoreError as error:
            self._unwritten = str(error)
            self.skip("write_failed")
            raise
        self._unwritten = ""
        self.stored += 1
        return self.last_id
