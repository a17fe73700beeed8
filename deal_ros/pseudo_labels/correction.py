# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Correct the label map of an image with what a segmenter learnt from other images than its like."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deal_ros.sample import IGNORE_ID

_LEAST_PART = 1e-3
"""Share of an image below which a part cannot be the surest: a few pixels are sure by chance."""
_LEAST_BELIEF = 0.1
"""A segmenter that believes less in every part knows nothing of the class."""


def background_only(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the map with everything but background unlabelled.

    Args:
        labels: uint8 (H, W): 0 background, 1..K classes, 255 unlabelled.

    Example:
        >>> background_only(np.uint8([[0, 1, 2, 255]])).tolist()
        [[0, 255, 255, 255]]
    """
    return np.where(labels == 0, np.uint8(0), np.uint8(IGNORE_ID))


def corrected_map(
    labels: NDArray[np.uint8], probabilities: Tensor, present: Any, confidence: float, background_confidence: float
) -> NDArray[np.uint8]:
    """Let a segmenter that is told which classes are in view name the objects of a label map.

    Background stays: activation that depth has aligned seldom misses an object. Every other pixel, also one that was
    unlabelled, becomes what is most probable among the classes in view and background, or 255 where that is not
    probable enough.

    Source: restricting a network's own prediction to the image labels is the second step of STC (Wei et al., arXiv
    1509.03150); keeping the background of the first map is ours.

    Args:
        labels: uint8 (H, W): 0 background, 1..K classes, 255 unlabelled.
        probabilities: float (K+1, H, W), background first.
        present: (K,), true for classes in view.
        confidence: least probability of a class, 0..1, after those of absent classes are taken out.
        background_confidence: the same of background.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: if the shapes do not fit.
    """
    likely, chosen = _fitting(probabilities, labels), np.append(True, np.asarray(present) > 0)
    if len(chosen) != len(likely):
        raise ValueError(f"present must be ({len(likely) - 1},), got ({len(chosen) - 1},)")
    likely = likely * chosen[:, None, None]
    best = likely.argmax(0)
    share = np.take_along_axis(likely, best[None], 0)[0] / np.maximum(likely.sum(0), 1e-9)
    sure = share >= np.where(best > 0, confidence, background_confidence)
    return np.where(labels == 0, 0, np.where(sure, best, IGNORE_ID)).astype(np.uint8)


def likely_parts(labels: NDArray[np.uint8], probabilities: Tensor, class_id: int, share: float) -> NDArray[np.uint8]:
    """Keep those connected parts of a class that a segmenter believes in; the others become background.

    Where one class is in view again and again, whatever always lies beside the object is learnt with it: it takes
    part in every image of that label, and it stands out in depth. A segmenter that knows the class from other images
    is less sure of it than of the object. Parts are compared with the surest of the same image, so that it matters
    little how well it knows the class; where it hardly believes in any, the map stays as it is.

    Source: ours.

    Args:
        labels: uint8 (H, W): 0 background, 1..K classes, 255 unlabelled.
        probabilities: float (K+1, H, W), background first.
        class_id: the class in view, 1..K.
        share: a part stays if the mean probability of the class, against background alone, is at least this share of
            that of the surest part, 0..1.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: if the shapes do not fit.
    """
    background, of_class = _fitting(probabilities, labels)[[0, class_id]]
    sure = of_class / np.maximum(of_class + background, 1e-9)
    count, parts = cv2.connectedComponents((labels == class_id).astype(np.uint8), connectivity=8)
    sizes = np.bincount(parts.ravel(), minlength=count)
    means = np.bincount(parts.ravel(), sure.ravel(), minlength=count) / np.maximum(sizes, 1)
    large = sizes >= _LEAST_PART * labels.size
    best = means[1:][large[1:]].max(initial=0.0)
    dropped = (means < share * best) & (best >= _LEAST_BELIEF)
    dropped[0] = False  # what is not of the class
    return np.where(dropped[parts], np.uint8(0), labels)


def _fitting(probabilities: Tensor, labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return probabilities (K+1, H, W) as an array; refuse those of another size than the map's (H, W)."""
    if probabilities.shape[1:] != labels.shape:
        raise ValueError(f"probabilities must be (K+1, {labels.shape}), got {tuple(probabilities.shape)}")
    return np.asarray(probabilities.float().cpu().numpy(), np.float32)
