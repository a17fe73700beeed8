# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the segmenter's worker does with one colour message: decode, predict, smooth, account for every frame."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deal_ros.images import ImageError, decode_depth, stamp_ns
from deal_ros.ros.convert import decode_color
from deal_ros.ros.diagnostics import Rate, Window
from deal_ros.ros.models import ModelSlot
from deal_ros.ros.outputs import Segmented
from deal_ros.ros.smoothing import TemporalVote, drop_uncertain
from deal_ros.students.predictor import Predictor, PredictorConfig

_WARM_SIZE = (480, 640)
_DEPTH_KEPT = 30
_DEPTH_PATIENCE_S = 0.05
"""Depth often comes a little after colour; longer than this it is not waited for."""


@dataclass(frozen=True)
class SegmentationSettings:
    """Live settings, replaced as a whole between two frames."""

    min_confidence: float = 0.0
    smoothing: float = 0.0
    slop_ms: float = 20.0


class Segmentation:
    """Holds the model and the frame's way through it. One worker thread calls :meth:`segment`.

    Args:
        config: how predictors are made.
        on_ready: called in the loading thread when a model waits to be swapped in.
        on_refused: called in the loading thread with the path and the reason; the old model runs on.
    """

    def __init__(
        self,
        config: PredictorConfig,
        on_ready: Callable[[Path, Any], None],
        on_refused: Callable[[Path, Exception], None],
    ) -> None:
        self.settings = SegmentationSettings()
        self.inference_ms = Window()
        self.masks = Rate()
        self.dropped: Counter[str] = Counter()
        self.received = self.masked = 0
        self._config = config
        self._size = _WARM_SIZE
        self._vote = TemporalVote()
        self._seen: Any = None
        self._depth: deque[tuple[int, Any]] = deque(maxlen=_DEPTH_KEPT)
        self._lock = threading.Lock()
        self.models = ModelSlot(self._load, on_ready, on_refused)

    def drop(self, reason: str) -> None:
        """Count a frame that gets no mask."""
        with self._lock:
            self.dropped[reason] += 1

    def remember_depth(self, message: Any) -> None:
        """Keep a depth message for the frame that it belongs to."""
        self._depth.append((stamp_ns(message.header), message))

    def forget_depth(self) -> None:
        """Nobody wants depth any more."""
        self._depth.clear()

    def segment(self, message: Any) -> tuple[Segmented, Any, bool] | None:
        """One frame.

        Returns:
            The result, the model that made it, and whether this is the model's first frame; ``None`` without a model.

        Raises:
            ImageError: if the message cannot be decoded.
        """
        model = self.models.take()
        if model is None:
            self.drop("no_model")
            return None
        swapped = model is not self._seen
        if swapped:
            self._seen = model
            self._vote.reset()
        try:
            rgb = decode_color(message)
        except ImageError:
            self.drop("bad_image")
            raise
        self._size = (rgb.shape[0], rgb.shape[1])
        began = time.perf_counter()
        try:
            prediction = model.predict(rgb)
        except Exception:
            self.drop("inference_failed")
            raise
        self.inference_ms.add(1e3 * (time.perf_counter() - began))
        settings, stamp = self.settings, stamp_ns(message.header)
        mask, confidence = self._vote.update(prediction.mask, prediction.confidence, stamp, settings.smoothing)
        mask = drop_uncertain(mask, confidence, settings.min_confidence)
        self.masks.count()
        self.masked += 1
        return Segmented(message.header, rgb, mask, confidence), model, swapped

    def figures(self, replaced: int) -> dict[str, object]:
        """For diagnostics; ``replaced`` frames were pushed out of the worker's slot by newer ones."""
        model = self.models.running
        median, p95 = self.inference_ms.percentiles(50, 95)
        return {
            **({f"model {key}": value for key, value in model.describe().items()} if model is not None else {}),
            "classes": model.classes if model is not None else "none",
            "masks per second": self.masks.per_second(),
            "frames received": self.received,
            "frames masked": self.masked,
            "frames dropped": {**self.dropped, "replaced": self.dropped["replaced"] + replaced},
            "inference p50 ms": median,
            "inference p95 ms": p95,
            "GPU memory MB": torch.cuda.memory_allocated() / 1e6 if torch.cuda.is_initialized() else 0,
        }

    def close(self) -> None:
        """Free all models."""
        self.models.close()
        self._seen = None

    def _load(self, path: Path) -> Predictor:
        predictor = Predictor(path, self._config)
        try:
            predictor.warm_up(self._size)
        except BaseException:
            predictor.close()
            raise
        return predictor

    def depth_of(self, frame: Segmented) -> NDArray[np.float32] | None:
        """Wait a moment for the depth that belongs to a frame; float32 (H, W) in metres, ``None`` if there is none."""
        stamp, slop_ns = stamp_ns(frame.header), 1e6 * self.settings.slop_ms
        patience = time.monotonic() + _DEPTH_PATIENCE_S
        while True:
            candidates = list(self._depth)
            nearest, message = min(candidates, key=lambda entry: abs(entry[0] - stamp), default=(0, None))
            if abs(nearest - stamp) <= slop_ns:
                return decode_depth(message)
            if time.monotonic() > patience or (candidates and candidates[-1][0] > stamp):
                return None
            time.sleep(0.002)
