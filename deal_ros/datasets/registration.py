# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Is depth registered to colour? Where depth breaks, colour usually changes: their edges agree best unshifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_WIDTH = 320  # pictures are compared at this width
_REACH = 32  # shifts up to this many of its pixels, a tenth of the picture
_STEP = 0.03  # relative depth step that counts as an edge
_MIN_EDGE_PIXELS = 60
_HOLE_SHARE = 0.02  # holes up to this part of the width around a reading are closed


@dataclass(frozen=True)
class Agreement:
    """What the edges of many samples say together.

    Args:
        samples: that had enough depth edges to say anything.
        shift: (x, y) in pixels of a picture of ``width``, by which depth must be moved to fit colour best.
        width: of the pictures that the shift is given in.
        at_zero: how far the agreement without a shift stands out from chance, in standard deviations.
        at_best: the same at the best shift.
    """

    samples: int
    shift: tuple[float, float]
    width: int
    at_zero: float
    at_best: float


class EdgeAgreement:
    """Adds up the cross-correlation of colour and depth edges over all shifts, sample by sample, in constant memory."""

    def __init__(self) -> None:
        self._sum = np.zeros((2 * _REACH + 1, 2 * _REACH + 1))
        self._count = 0
        self._widths: list[int] = []

    def add(self, rgb: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> None:
        """Take in one sample: uint8 (H, W, 3), float32 (H, W) metres with 0 = no return."""
        factor = _WIDTH / rgb.shape[1]
        size = (_WIDTH, max(2 * _REACH + 2, round(rgb.shape[0] * factor)))
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        color = _color_edges(cv2.resize(rgb, size, interpolation=kind))
        depth = depth_step_edges(cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST))
        if (depth > 0).sum() < _MIN_EDGE_PIXELS:
            return
        color, depth = color - color.mean(), depth - depth.mean()
        scale = float(np.sqrt((color**2).sum() * (depth**2).sum()))
        if scale < 1e-9:
            return
        product = np.fft.rfft2(color) * np.conj(np.fft.rfft2(depth))
        correlation = np.fft.irfft2(product, s=color.shape) / scale  # [dy, dx]: depth moved by (dx, dy)
        rolled = np.roll(correlation, (_REACH, _REACH), axis=(0, 1))
        self._sum += rolled[: 2 * _REACH + 1, : 2 * _REACH + 1]
        self._count += 1
        self._widths.append(rgb.shape[1])

    def result(self) -> Agreement | None:
        """Return the agreement so far; ``None`` if no sample had edges."""
        if not self._count:
            return None
        surface = cv2.GaussianBlur(self._sum / self._count, (0, 0), 1.0)
        rows, columns = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1]
        row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
        away = (np.hypot(rows, columns) > 12) & (np.hypot(rows - rows[row, 0], columns - columns[0, column]) > 12)
        chance, spread = float(surface[away].mean()), float(surface[away].std()) + 1e-12
        width = int(np.median(self._widths))
        scale = width / _WIDTH
        return Agreement(
            samples=self._count,
            shift=(float(columns[0, column]) * scale, float(rows[row, 0]) * scale),
            width=width,
            at_zero=(float(surface[_REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2].max()) - chance) / spread,
            at_best=(float(surface[row, column]) - chance) / spread,
        )


def _color_edges(rgb: NDArray[Any]) -> NDArray[np.float32]:
    smooth = cv2.GaussianBlur(rgb, (0, 0), 1.0).astype(np.float32)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = np.sqrt((dx**2 + dy**2).sum(axis=2))
    return np.minimum(strength, np.percentile(strength, 97)).astype(np.float32)  # a few glints must not decide


def depth_step_edges(depth_m: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels beside a depth step: 1 or 0, float32 (H, W), from depth float32 (H, W) in metres, 0 = no return.

    Sensors lose their reading just where depth breaks, so holes are closed with the nearest reading first: the step
    then lies within the hole. Far from any reading there are no edges.
    """
    valid = depth_m > 0
    if not valid.any():
        return np.zeros(depth_m.shape, np.float32)
    distance, nearest = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    readings = np.zeros(int(nearest.max()) + 1, np.float32)
    readings[nearest[valid]] = depth_m[valid]
    # The median takes away specks of wrong depth and keeps steps.
    logarithm = cv2.medianBlur(np.log(np.maximum(readings[nearest], 1e-6)).astype(np.float32), 5)
    kernel = np.ones((3, 3), np.uint8)
    step = cv2.dilate(logarithm, kernel) - cv2.erode(logarithm, kernel)
    # A slanted plane has steps everywhere, an edge more than its surroundings.
    usual = cv2.blur(step, (15, 15))
    reach = max(2.0, _HOLE_SHARE * depth_m.shape[1])
    return ((step > _STEP) & (step > 2 * usual) & (distance < reach)).astype(np.float32)
