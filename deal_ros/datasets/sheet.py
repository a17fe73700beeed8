# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A contact sheet of samples: one look tells whether depth is there, in range, and where colour says it should be."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.datasets.registration import depth_step_edges
from deal_ros.sample import Sample
from deal_ros.visualization import colorize, colorize_depth, contact_sheet

TITLES = ("image and labels", "depth", "depth edges on image", "mask")


def sample_sheet(samples: Sequence[tuple[str, Sample]], tile_width: int = 260) -> NDArray[np.uint8]:
    """Rows of image, depth, depth edges over the image, and mask, RGB uint8.

    Args:
        samples: (id, sample), at least one.
        tile_width: of each picture, pixels.
    """
    first = samples[0][1].size
    rows = [[_fit(tile, first) for tile in _tiles(name, sample)] for name, sample in samples]
    return contact_sheet(rows, TITLES, tile_width)


def _tiles(name: str, sample: Sample) -> list[NDArray[np.uint8]]:
    edges = sample.rgb.copy()
    edges[depth_step_edges(sample.depth_m) > 0] = (255, 0, 0)
    mask = np.zeros_like(sample.rgb)
    if sample.mask is not None:
        mask = colorize(sample.mask, max(1, int(sample.mask[sample.mask < 255].max(initial=0))))
    picture = sample.rgb.copy()
    labels = "not labelled" if sample.labels is None else ", ".join(sorted(sample.labels)) or "nothing"
    scale = max(0.35, picture.shape[0] / 700)
    for row, text in enumerate((name, labels)):
        origin = (4, round((row + 1) * 32 * scale))
        for shift, tone in ((1, 0), (0, 255)):  # a shadow, not an outline: thicker strokes are wider in OpenCV 5
            at = (origin[0] + shift, origin[1] + shift)
            cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (tone, tone, tone), 1, cv2.LINE_AA)
    return [picture, colorize_depth(sample.depth_m), edges, mask]


def _fit(tile: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale into (height, width) and pad with black: data sets have pictures of many shapes."""
    height, width = size
    factor = min(height / tile.shape[0], width / tile.shape[1])
    small = (max(1, round(tile.shape[1] * factor)), max(1, round(tile.shape[0] * factor)))
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: small[1], : small[0]] = cv2.resize(tile, small, interpolation=cv2.INTER_AREA)
    return canvas
