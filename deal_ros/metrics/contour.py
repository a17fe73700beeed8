# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Contour F-score: whether the edges of the masks lie on the edges of the objects."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.sample import BACKGROUND_ID, IGNORE_ID

CONTOUR_BOUND = 0.008
"""Tolerance as a share of the image diagonal: 6.4, i.e. 7 pixels, at 640x480 (Perazzi et al. 2016)."""


def contour_f_score(prediction: NDArray[Any], truth: NDArray[Any], bound: float = CONTOUR_BOUND) -> float:
    r"""Mean over classes of the F-score between predicted and true contours, matched within a distance.

    With ``p`` the share of predicted contour pixels within ``r`` of a true one, and ``q`` the share of true contour
    pixels within ``r`` of a predicted one, ``F = 2pq / (p + q)``, ``r = ceil(bound · diagonal)``. A contour pixel
    differs from its right, lower or lower right neighbour. Source: contour accuracy F of Perazzi et al., *A Benchmark
    Dataset and Evaluation Methodology for Video Object Segmentation*, CVPR 2016, after Martin et al., PAMI 2004
    (matching by distance, not by bipartite assignment).

    Truth of 255 is filled from the nearest labelled pixel, so that a thin ignored border (VOC) has its contour in its
    middle; contour pixels deeper than ``r`` inside an ignored region are not counted. A predicted 255 is no class.

    Args:
        prediction: integers (H, W), class ids.
        truth: integers (H, W), class ids, 255 where unknown.
        bound: tolerance as a share of the diagonal (below 1) or in pixels (1 or more).

    Returns:
        F in [0, 1], the mean over the classes other than background that occur in either image; NaN if none does.
        A class that only one of the two has scores 0.

    Raises:
        ValueError: if the shapes differ or are not (H, W), or the bound is not positive.

    Example:
        >>> truth = np.zeros((40, 40), np.uint8); truth[10:20, 10:20] = 1
        >>> contour_f_score(truth, truth), contour_f_score(np.roll(truth, 9, axis=1), truth) < 0.5
        (1.0, True)
    """
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise ValueError(f"prediction and truth must both be (H, W), got {prediction.shape} and {truth.shape}")
    if not bound > 0:
        raise ValueError(f"bound must be above 0, got {bound}")
    radius = math.ceil(bound * math.hypot(*truth.shape)) if bound < 1 else math.ceil(bound)
    counted, filled = _fill_ignored(truth, radius)
    ids = np.union1d(np.unique(prediction[counted]), np.unique(filled[counted]))
    both = np.intersect1d(prediction[counted], filled[counted])
    scores = [
        _f_score(_contour(prediction == i) & counted, _contour(filled == i) & counted, radius) if i in both else 0.0
        for i in ids[(ids != BACKGROUND_ID) & (ids != IGNORE_ID)]
    ]
    return float(np.mean(scores)) if scores else float("nan")


def _contour(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that differ from their right, lower or lower right neighbour; the image's end is no contour."""
    contour = np.zeros_like(region)
    contour[:, :-1] |= region[:, :-1] != region[:, 1:]
    contour[:-1] |= region[:-1] != region[1:]
    contour[:-1, :-1] |= region[:-1, :-1] != region[1:, 1:]
    return contour


def _f_score(predicted: NDArray[np.bool_], true: NDArray[np.bool_], radius: int) -> float:
    if not predicted.any() or not true.any():
        return float(predicted.any() == true.any())  # A class that fills the image has no contour in both.
    precision = (_distance(true)[predicted] <= radius + 1e-3).mean()
    recall = (_distance(predicted)[true] <= radius + 1e-3).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _distance(target: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Euclidean distance float32 (H, W) in pixels to the nearest pixel of ``target``."""
    distance = cv2.distanceTransform((~target).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance, np.float32)


def _fill_ignored(truth: NDArray[Any], radius: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which pixels count, and the truth with its ignored pixels filled from the nearest labelled one."""
    known = truth != IGNORE_ID
    if known.all():
        return known, truth
    if not known.any():
        return known, truth
    source = (~known).astype(np.uint8)
    distance, nearest = cv2.distanceTransformWithLabels(
        source, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros(int(nearest.max()) + 1, truth.dtype)
    value_of[nearest[known]] = truth[known]  # Each labelled pixel has a label number of its own.
    return distance <= radius, value_of[nearest]
