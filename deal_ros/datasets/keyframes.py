# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes: which of a camera's thirty frames a second are worth keeping. The same choice live and from a bag.

A frame is kept when some time has passed, the view has changed since the last one kept, it is not blurred beside the
frames before it, and depth came with it. New labels are worth a frame at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.sample import Sample

REASONS = ("first", "new_labels", "view_changed", "too_soon", "unchanged", "blurred", "no_depth")
"""The first three accept a frame, the others pass it over."""
_THUMBNAIL = (32, 24)
_SHARPNESS_WIDTH = 320
_CONTRAST_FLOOR = 8.0
_HISTORY = 9


@dataclass(frozen=True)
class KeyframeConfig:
    """How picky to be. A value of 0 switches its test off.

    Args:
        min_interval_s: least time between two keyframes, in seconds of the camera's stamps.
        min_view_change: least mean absolute difference to the last keyframe, between thumbnails of zero mean and unit
            contrast. Sensor noise makes about 0.02, a turn by one degree about 0.1, another scene about 1.
        min_sharpness: least sharpness (variance of the Laplacian) as a fraction of the median of the frames looked
            at before.
        min_depth: least fraction of pixels with a depth.

    Raises:
        ValueError: if a value is out of range.
    """

    min_interval_s: float = 0.5
    min_view_change: float = 0.1
    min_sharpness: float = 0.5
    min_depth: float = 0.02

    def __post_init__(self) -> None:
        """Check ranges."""
        limits = {"min_interval_s": 3600.0, "min_view_change": 2.0, "min_sharpness": 1.0, "min_depth": 1.0}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} must be in 0..{limit:g}, got {getattr(self, name)}")


@dataclass(frozen=True)
class KeyframeDecision:
    """Whether to keep a frame, and which of :data:`REASONS` decided it."""

    accepted: bool
    reason: str


@dataclass(frozen=True)
class FrameTraits:
    """What decides about a frame, measured from its pixels.

    Args:
        thumbnail: float32 (24, 32), grey, zero mean, unit contrast.
        sharpness: variance of the Laplacian of the grey image at 320 columns.
        depth_fraction: fraction of pixels with a depth.
    """

    thumbnail: NDArray[np.float32]
    sharpness: float
    depth_fraction: float


def measure(sample: Sample) -> FrameTraits:
    """Measure a frame; depends on nothing else, so frames may be measured in parallel."""
    grey = _shrink(sample.rgb)
    thumbnail = _normalise(cv2.resize(grey, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32))
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return FrameTraits(thumbnail, sharpness, float(np.count_nonzero(sample.depth_m != 0)) / sample.depth_m.size)


class KeyframeSelector:
    """Decides frame by frame, in the order of their stamps. Not thread-safe.

    Example:
        >>> selector = KeyframeSelector(KeyframeConfig(min_interval_s=1.0))
        >>> frame = Sample(np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.float32), stamp_ns=1)
        >>> selector.decide(frame), selector.decide(frame)
        (KeyframeDecision(accepted=True, reason='first'), KeyframeDecision(accepted=False, reason='too_soon'))
    """

    def __init__(self, config: KeyframeConfig = KeyframeConfig()) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next frame is a first one."""
        self._stamp_ns: int | None = None
        self._labels: frozenset[str] | None = None
        self._thumbnail: NDArray[np.float32] | None = None
        self._sharpness: deque[float] = deque(maxlen=_HISTORY)

    def due(self, stamp_ns: int, labels: frozenset[str] | None) -> bool:
        """Whether a frame could be a keyframe, judged without its pixels: spares decoding most of them.

        A frame that is not due is exactly one for which :meth:`decide` answers ``too_soon``.
        """
        if self._stamp_ns is None or labels != self._labels:
            return True
        passed_s = (stamp_ns - self._stamp_ns) * 1e-9
        return passed_s < 0 or passed_s >= self.config.min_interval_s  # time went back: the clock was set

    def decide(self, sample: Sample, traits: FrameTraits | None = None) -> KeyframeDecision:
        """Decide about one frame; an accepted one becomes what the next are compared with.

        Args:
            sample: the frame.
            traits: of this frame, where :func:`measure` was called before (in another thread, say).
        """
        config = self.config
        if not self.due(sample.stamp_ns, sample.labels):
            return KeyframeDecision(False, "too_soon")
        traits = traits or measure(sample)
        if config.min_depth > 0 and traits.depth_fraction < config.min_depth:
            return KeyframeDecision(False, "no_depth")
        blurred, thumbnail = self._blurred(traits.sharpness), traits.thumbnail
        if self._thumbnail is None:
            reason = "first"
        elif blurred:
            return KeyframeDecision(False, "blurred")
        elif sample.labels != self._labels:
            reason = "new_labels"
        elif float(np.abs(thumbnail - self._thumbnail).mean()) < config.min_view_change:
            return KeyframeDecision(False, "unchanged")
        else:
            reason = "view_changed"
        self._stamp_ns, self._labels, self._thumbnail = sample.stamp_ns, sample.labels, thumbnail
        return KeyframeDecision(True, reason)

    def _blurred(self, sharpness: float) -> bool:
        usual = median(self._sharpness) if self._sharpness else sharpness
        self._sharpness.append(sharpness)
        return sharpness < self.config.min_sharpness * usual


def _shrink(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    if width > _SHARPNESS_WIDTH:
        size = (_SHARPNESS_WIDTH, max(1, round(height * _SHARPNESS_WIDTH / width)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def _normalise(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((image - image.mean()) / max(float(image.std()), _CONTRAST_FLOOR), np.float32)
