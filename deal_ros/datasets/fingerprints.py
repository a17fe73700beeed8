# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures that are nearly the same: by their thumbnails, for thousands of pictures at once."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 16
_MAX_DIFFERENCE = 2.0
"""Mean absolute difference of the thumbnails, 0..255, below which two pictures count as the same."""
_BLOCK = 256


class Fingerprints:
    """Thumbnails with their ids and sequences, 770 bytes per picture."""

    def __init__(self) -> None:
        self._thumbnails: list[NDArray[np.uint8]] = []
        self.ids: list[str] = []
        self.sequence: list[str] = []

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.ids)

    def add(self, rgb: NDArray[np.uint8], sample_id: str, sequence: str) -> None:
        """Take in a picture uint8 (H, W, 3)."""
        small = cv2.resize(rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        self._thumbnails.append(np.asarray(small, np.uint8).reshape(-1))
        self.ids.append(sample_id)
        self.sequence.append(sequence)

    @property
    def sequences(self) -> set[str]:
        """Names of all sequences."""
        return set(self.sequence)

    def matrix(self) -> NDArray[np.float32]:
        """Thumbnails float32 (N, 768)."""
        if not self._thumbnails:
            return np.zeros((0, 3 * _SIDE * _SIDE), np.float32)
        return np.stack(self._thumbnails).astype(np.float32)


def near_duplicates(prints: Fingerprints) -> list[tuple[str, str]]:
    """Pairs (earlier, later) of pictures of one part that are nearly the same; one pair for each later picture."""
    found = []
    for first, second in _close(prints.matrix(), prints.matrix(), within=True):
        found.append((prints.ids[first], prints.ids[second]))
    return found


def shared_pictures(first: Fingerprints, second: Fingerprints) -> list[tuple[str, str]]:
    """Pairs of pictures, one of each part, that are nearly the same; one pair for each picture of ``second``."""
    return [(first.ids[i], second.ids[j]) for i, j in _close(first.matrix(), second.matrix(), within=False)]


def _close(a: NDArray[np.float32], b: NDArray[np.float32], within: bool) -> list[tuple[int, int]]:
    """For each row of ``b``, the nearest row of ``a`` (an earlier one if ``within``) that is close enough."""
    pairs: list[tuple[int, int]] = []
    if not len(a) or not len(b):
        return pairs
    squares_a = (a**2).sum(axis=1)
    for start in range(0, len(b), _BLOCK):
        block = b[start : start + _BLOCK]
        # Euclidean first, by one matrix product: |x|₁/n <= |x|₂/√n, so few pass that the exact test must look at.
        distance = squares_a[None] + (block**2).sum(axis=1)[:, None] - 2 * block @ a.T
        near = distance < (2 * _MAX_DIFFERENCE) ** 2 * a.shape[1]
        for row in np.flatnonzero(near.any(axis=1)):
            candidates = np.flatnonzero(near[row])
            if within:
                candidates = candidates[candidates < start + row]
            if not len(candidates):
                continue
            exact = np.abs(a[candidates] - block[row]).mean(axis=1)
            best = int(np.argmin(exact))
            if exact[best] < _MAX_DIFFERENCE:
                pairs.append((int(candidates[best]), start + int(row)))
    return pairs
