# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Dataset-level segmentation figures as PASCAL VOC defines them: one confusion matrix over the pixels of all images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deal_ros.sample import IGNORE_ID, MAX_CLASSES


class SegmentationMetrics:
    r"""Confusion counts of a whole data set and what follows from them.

    For class ``c``, with ``TP`` the pixels that are ``c`` in both, ``T`` those that are ``c`` in the truth and ``P``
    those that are ``c`` in the prediction, ``IoU_c = TP / (T + P - TP)``. Pixels whose *truth* is 255 count in neither
    ``T`` nor ``P``. Source: Everingham et al., *The PASCAL VOC Challenge*, IJCV 2010, section 4.2; averaging the IoU of
    single images gives another figure.

    A *predicted* 255 ("unlabelled", as pseudo-labels have) misses the truth: it counts in ``T`` and in no ``P``. With
    ``skip_unlabelled`` such pixels are left out altogether and :meth:`labelled_fraction` says how many were kept.

    Args:
        num_classes: K, without background; ids run from 0 (background) to K.
        skip_unlabelled: leave predicted 255 out of all counts.

    Raises:
        ValueError: if ``num_classes`` is not in 1..254.

    Example:
        >>> metrics = SegmentationMetrics(num_classes=1)
        >>> metrics.update(np.uint8([[0, 1, 1, 1]]), np.uint8([[0, 0, 1, 255]]))
        >>> metrics.iou_per_class().tolist(), metrics.miou()
        ([0.5, 0.5], 0.5)
    """

    def __init__(self, num_classes: int, *, skip_unlabelled: bool = False) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be in 1..{MAX_CLASSES}, got {num_classes}")
        self.num_classes = num_classes
        self.skip_unlabelled = skip_unlabelled
        # Rows: truth 0..K. Columns: prediction 0..K, and a last one for predictions of 255.
        self.confusion: NDArray[np.int64] = np.zeros((num_classes + 1, num_classes + 2), np.int64)

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count one image or a batch.

        Args:
            prediction: integers of any shape, ids 0..K or 255.
            truth: integers of the same shape, ids 0..K or 255 for "do not count".

        Raises:
            ValueError: if the shapes differ, the values are no integers, or an id is outside 0..K and not 255.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction and truth must have one shape, got {prediction.shape} and {truth.shape}")
        size = self.num_classes + 1
        predicted, true = self._codes(prediction, "prediction"), self._codes(truth, "truth")
        # One histogram over joint codes; ignored truth goes to a row that is cut off.
        codes = true * (size + 1) + predicted
        counts = np.bincount(codes.ravel(), minlength=(size + 1) ** 2).reshape(size + 1, size + 1)
        self.confusion += counts[:size]

    def merge(self, other: SegmentationMetrics) -> None:
        """Add the counts of another process or shard.

        Raises:
            ValueError: if the other one counts other classes or treats predicted 255 differently.
        """
        if (other.num_classes, other.skip_unlabelled) != (self.num_classes, self.skip_unlabelled):
            raise ValueError(
                f"metrics must agree to be merged, got {self.num_classes} and {other.num_classes} classes,"
                f" skip_unlabelled {self.skip_unlabelled} and {other.skip_unlabelled}"
            )
        self.confusion += other.confusion

    def all_reduce(self) -> None:
        """Sum the counts over all ranks of ``torch.distributed``; does nothing where it is not initialised."""
        import torch
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return
        device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
        counts = torch.from_numpy(self.confusion).to(device)
        distributed.all_reduce(counts)
        self.confusion = counts.cpu().numpy()

    def iou_per_class(self) -> NDArray[np.float64]:
        """Return IoU float64 (K+1,), background first; NaN for a class that neither truth nor prediction has."""
        counts = self._counts()
        hits = np.diag(counts).astype(np.float64)
        union = counts.sum(1) + counts[:, :-1].sum(0) - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)

    def miou(self) -> float:
        """Mean IoU over background and the classes that occur, in [0, 1]; NaN before the first labelled pixel."""
        iou = self.iou_per_class()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of counted pixels that are right, in [0, 1]; NaN before the first one."""
        counts = self._counts()
        return float(np.trace(counts) / counts.sum()) if counts.sum() else float("nan")

    def labelled_fraction(self) -> float:
        """Share of the pixels with known truth whose prediction is not 255; NaN before the first one."""
        total = self.confusion.sum()
        return float(self.confusion[:, :-1].sum() / total) if total else float("nan")

    def _counts(self) -> NDArray[np.int64]:
        if not self.skip_unlabelled:
            return self.confusion
        counts = self.confusion.copy()
        counts[:, -1] = 0
        return counts

    def _codes(self, array: NDArray[Any], name: str) -> NDArray[np.int64]:
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must hold integers, got {array.dtype}")
        ignored = array == IGNORE_ID
        bad = ~ignored & ((array < 0) | (array > self.num_classes))
        if bad.any():
            raise ValueError(f"{name} must hold ids 0..{self.num_classes} or {IGNORE_ID}, got {array[bad].flat[0]}")
        return np.where(ignored, self.num_classes + 1, array).astype(np.int64)
