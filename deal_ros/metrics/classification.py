# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Average precision of image-level scores: whether the network knows what is in view."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_precision(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    r"""Average precision per class, ``AP = Σ_n (R_n − R_{n−1}) P_n`` over the distinct scores, without interpolation.

    Equal scores share one threshold, so that their order does not matter. This is the definition of
    ``sklearn.metrics.average_precision_score``; VOC's older 11-point figure is slightly larger.

    Args:
        scores: float (N, K), higher means more likely. Must be finite.
        labels: (N, K), > 0 where the class is in view.

    Returns:
        float64 (K,) in [0, 1]; NaN for a class without a positive.

    Raises:
        ValueError: if the shapes differ or are not (N, K), or a score is not finite.

    Example:
        >>> average_precision(np.array([[0.9], [0.8], [0.1]]), np.array([[1], [0], [1]])).round(4).tolist()
        [0.8333]
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels) > 0
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"scores and labels must both be (N, K), got {scores.shape} and {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, got NaN or Inf; the training has probably diverged")
    return np.array([_one_class(scores[:, k], labels[:, k]) for k in range(scores.shape[1])], np.float64)


def mean_average_precision(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean of :func:`average_precision` over the classes that have a positive; NaN if none has.

    Args:
        scores: float (N, K), higher means more likely.
        labels: (N, K), > 0 where the class is in view.

    Raises:
        ValueError: as :func:`average_precision`.
    """
    values = average_precision(scores, labels)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _one_class(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(positive[order])
    last_of_tie = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    hits_at, seen = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    gained = np.diff(hits_at, prepend=0)
    return float(np.sum(gained * hits_at / seen) / hits_at[-1])
