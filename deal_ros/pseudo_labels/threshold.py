# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Threshold a CAM into a label map, and find the best threshold where pixel truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deal_ros.sample import IGNORE_ID

_MOST_BELOW = 0.6
SWEPT_THRESHOLDS: tuple[float, ...] = tuple(i / 100 for i in range(100))


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold and why it was chosen.

    Args:
        threshold: the chosen background score.
        score: its figure: mIoU for a sweep on truth, agreement of contours, NaN without any evidence.
        thresholds: all that were tried.
        scores: their figures.
    """

    threshold: float
    score: float
    thresholds: tuple[float, ...]
    scores: tuple[float, ...]


def label_map(
    cam: Tensor | NDArray[Any],
    present: Any = None,
    threshold: float = 0.5,
    band: float = 0.0,
    band_below: float | None = None,
) -> NDArray[np.uint8]:
    """Label each pixel with its strongest class, or background where none exceeds the threshold.

    ``argmax([t, cam])``; pixels whose strongest class lies strictly between t - band_below and t + band become 255.

    Args:
        cam: float (K, H, W) in [0, 1].
        present: (K,), true for classes in view; others are never used. ``None`` is all.
        threshold: background score t, 0..1.
        band: how far above the threshold pixels are left unlabelled, in units of ``cam``.
        band_below: the same below it, at most 60 % of the threshold, so that something stays background; ``None`` is
            ``band``.

    Returns:
        uint8 (H, W): 0 background, k + 1 for class k, 255 unlabelled.

    Raises:
        ValueError: if ``cam`` has another number of dimensions, or ``present`` another length.

    Example:
        >>> label_map(np.float32([[[0.1, 0.45, 0.9]], [[0.2, 0.3, 0.8]]]), threshold=0.5, band=0.1).tolist()
        [[0, 255, 1]]
    """
    scores, best = _strongest(cam, present)
    labels = np.where(scores > threshold, best, 0).astype(np.uint8)
    beyond = scores - threshold
    below = min(_MOST_BELOW * threshold, band if band_below is None else band_below)
    labels[(beyond > -below) & (beyond < band)] = IGNORE_ID
    return labels


class ThresholdSweep:
    """mIoU of CAM label maps at every threshold, in one pass and constant memory.

    Pixels are counted by truth, strongest class, and how many thresholds its score exceeds; every threshold's
    confusion matrix follows from these counts. IoU as PASCAL VOC defines it, truth 255 not counted.

    Args:
        num_classes: K, without background.
        thresholds: ascending background scores to try.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] = SWEPT_THRESHOLDS) -> None:
        if not thresholds or list(thresholds) != sorted(thresholds):
            raise ValueError(f"thresholds must be ascending and at least one, got {thresholds}")
        self.num_classes, self.thresholds = num_classes, tuple(thresholds)
        classes = num_classes + 1
        self.counts = np.zeros((classes, classes, len(self.thresholds) + 1), np.int64)
        """(truth, strongest class, thresholds exceeded): add up over processes to merge."""

    def update(self, cam: Tensor | NDArray[Any], truth: NDArray[Any], present: Any = None) -> None:
        """Count one image.

        Args:
            cam: float (K, H, W) in [0, 1].
            truth: uint8 (H, W), ids 0..K, 255 not counted.
            present: as for :func:`label_map`.

        Raises:
            ValueError: if shapes differ or the truth has another id.
        """
        scores, best = _strongest(cam, present)
        if truth.shape != scores.shape:
            raise ValueError(f"truth must be {scores.shape}, the size of cam, got {truth.shape}")
        counted = truth != IGNORE_ID
        true = truth[counted].astype(np.int64)
        if true.size and true.max() > self.num_classes:
            raise ValueError(f"truth must hold ids 0..{self.num_classes} or 255, got {true.max()}")
        # In the precision of the scores, so that equality falls as it does in label_map.
        exceeded = np.searchsorted(np.asarray(self.thresholds, np.float32), scores[counted], side="left")
        codes = np.ravel_multi_index((true, best[counted], exceeded), self.counts.shape)
        self.counts += np.bincount(codes, minlength=self.counts.size).reshape(self.counts.shape)

    def miou(self) -> NDArray[np.float64]:
        """float64 (thresholds,): mIoU over background and all classes that occur in truth or prediction."""
        # A pixel is foreground at threshold i if it exceeds more than i thresholds.
        foreground = self.counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
        true = self.counts.sum((1, 2))[:, None]
        hits = np.einsum("kki->ki", foreground).copy()
        predicted = foreground.sum(0)
        missed = self.counts.sum(-1)[..., None] - foreground
        hits[0] = missed[0].sum(0)
        predicted[0] = missed.sum((0, 1))
        union = true + predicted - hits
        iou = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
        return np.nanmean(iou, axis=0)

    def result(self) -> ThresholdChoice:
        """Return the threshold with the best mIoU.

        Raises:
            ValueError: if nothing was counted.
        """
        if not self.counts.any():
            raise ValueError("a threshold sweep needs at least one image with pixel truth, got none")
        scores = self.miou()
        best = int(scores.argmax())
        return ThresholdChoice(self.thresholds[best], float(scores[best]), self.thresholds, tuple(scores.tolist()))


def sweep_threshold(
    images: Iterable[tuple[Any, NDArray[Any], Any]],
    num_classes: int,
    thresholds: Sequence[float] = SWEPT_THRESHOLDS,
) -> ThresholdChoice:
    """Find the best threshold on pixel truth, for comparison with papers: it uses what weak supervision does not have.

    Args:
        images: (cam, truth, present) per image, as for :meth:`ThresholdSweep.update`.
        num_classes: K.
        thresholds: ascending background scores to try; papers try 0 to 0.59 in steps of 0.01.
    """
    sweep = ThresholdSweep(num_classes, thresholds)
    for cam, truth, present in images:
        sweep.update(cam, truth, present)
    return sweep.result()


def _strongest(cam: Tensor | NDArray[Any], present: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Score of the strongest class float32 (H, W) and its id 1..K, int64 (H, W)."""
    maps = (cam.detach().cpu().numpy() if isinstance(cam, Tensor) else np.asarray(cam)).astype(np.float32, copy=False)
    if maps.ndim != 3:
        raise ValueError(f"cam must be float (K, H, W), got {maps.shape}")
    if present is not None:
        chosen = np.asarray(present.cpu() if isinstance(present, Tensor) else present) > 0
        if chosen.shape != maps.shape[:1]:
            raise ValueError(f"present must be {maps.shape[:1]}, got {chosen.shape}")
        maps = np.where(chosen[:, None, None], maps, 0)
    best = maps.argmax(0)
    return np.take_along_axis(maps, best[None], 0)[0], best + 1
