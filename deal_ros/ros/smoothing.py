# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A confidence vote over time: a pixel changes its class only when the new one outweighs what is left of the old."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deal_ros.sample import IGNORE_ID


class TemporalVote:
    """Holds one class and its weight per pixel.

    With w the weight of the past and c the new confidence: the same class gives w·v + (1 − w)·c; another class takes
    over when (1 − w)·c > w·v, and then starts with (1 − w)·c, else v becomes w·v. The camera must move little between
    frames; a jump in time or size starts anew.

    Args:
        max_gap_ns: a longer gap between two frames, or time going back, forgets the past.
    """

    def __init__(self, max_gap_ns: int = 1_000_000_000) -> None:
        self._max_gap_ns = max_gap_ns
        self._stamp = 0
        self._mask: NDArray[np.uint8] | None = None
        self._weight: NDArray[np.float32] | None = None

    def reset(self) -> None:
        """Forget the past, for example after a model swap."""
        self._mask = None

    def update(
        self, mask: NDArray[np.uint8], confidence: NDArray[np.uint8], stamp_ns: int, past: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Vote once.

        Args:
            mask: uint8 (H, W), ids.
            confidence: uint8 (H, W), 0..255.
            stamp_ns: of the frame.
            past: weight w of the past, 0 to below 1; 0 returns the inputs.

        Returns:
            Smoothed mask and confidence, both uint8 (H, W).
        """
        if past <= 0:
            self.reset()
            return mask, confidence
        continuous = 0 < stamp_ns - self._stamp <= self._max_gap_ns
        self._stamp = stamp_ns
        if self._mask is None or self._weight is None or not continuous or self._mask.shape != mask.shape:
            self._mask, self._weight = mask.copy(), confidence.astype(np.float32)
            return mask, confidence
        old = past * self._weight
        new = (1 - past) * confidence
        same = mask == self._mask
        takes = ~same & (new > old)
        self._mask = np.where(takes, mask, self._mask)
        self._weight = np.where(same, old + new, np.where(takes, new, old)).astype(np.float32)
        return self._mask, np.minimum(self._weight, 255).astype(np.uint8)


def drop_uncertain(mask: NDArray[np.uint8], confidence: NDArray[np.uint8], min_confidence: float) -> NDArray[np.uint8]:
    """Mask with 255 (unlabelled) where the confidence is below ``min_confidence`` (0..1)."""
    if min_confidence <= 0:
        return mask
    return np.where(confidence < 255 * min_confidence, np.uint8(IGNORE_ID), mask)
