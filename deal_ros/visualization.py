# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: coloured masks, overlays with a legend, depth and heat maps, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.labels import palette

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def colorize(mask: NDArray[np.uint8], num_classes: int) -> NDArray[np.uint8]:
    """Class ids uint8 (H, W) → RGB uint8 (H, W, 3)."""
    return palette(num_classes)[mask]


def overlay(
    rgb: NDArray[np.uint8], mask: NDArray[np.uint8], classes: Sequence[str], alpha: float = 0.55, legend: bool = True
) -> NDArray[np.uint8]:
    """Blend the coloured mask over the image; background stays as it is, 255 is shown white and faint.

    Args:
        rgb: uint8 (H, W, 3).
        mask: uint8 (H, W), ids 1..K into ``classes``.
        classes: K names, in id order.
        alpha: weight of the colour, 0..1.
        legend: draw the names of the classes that occur.

    Returns:
        uint8 (H, W, 3), a new array.
    """
    colors = palette(len(classes))
    strength = np.zeros(256, np.float32)
    strength[1 : len(classes) + 1] = alpha
    strength[255] = 0.35 * alpha
    # One table per channel: out = rgb·(1-s[id]) + color[id]·s[id], in integers scaled by 256.
    weight = (strength * 256).astype(np.uint16)
    tint = (colors.astype(np.float32) * strength[:, None] * 256).astype(np.uint16)
    blended = ((rgb * (256 - weight)[mask][..., None]).astype(np.uint16) + tint[mask]) >> 8
    picture = np.ascontiguousarray(blended.astype(np.uint8))
    if legend:
        present = (np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[1 : len(classes) + 1]) + 1).tolist()
        _draw_legend(picture, [(classes[i - 1], colors[i]) for i in present])
    return picture


def colorize_depth(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth float32 (H, W), 0 = no return → RGB uint8: near is bright, far is dark, holes are black."""
    valid = depth_m > 0
    if not valid.any():
        return np.zeros((*depth_m.shape, 3), np.uint8)
    near, far = np.percentile(depth_m[valid], (2, 98))
    scaled = np.clip((far - depth_m) / max(far - near, 1e-6), 0, 1)
    picture = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()
    picture[~valid] = 0
    return picture


def heatmap(cam: NDArray[np.float32], rgb: NDArray[np.uint8], alpha: float = 0.6) -> NDArray[np.uint8]:
    """Activation float (H, W) in [0, 1] over the image, RGB uint8 (H, W, 3)."""
    colors = cv2.applyColorMap((np.clip(cam, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.asarray(cv2.addWeighted(np.ascontiguousarray(colors), alpha, rgb, 1 - alpha, 0), np.uint8)


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]], titles: Sequence[str], tile_width: int = 200
) -> NDArray[np.uint8]:
    """Arrange RGB pictures in a grid with a title over each column; all tiles get the first tile's shape.

    Raises:
        ValueError: if there is no row, or a row's length differs from the number of titles.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError(f"rows must be non-empty and have {len(titles)} pictures each, got {[len(r) for r in rows]}")
    height, width = rows[0][0].shape[:2]
    size = (tile_width, max(1, round(tile_width * height / width)))
    banner = np.full((22, tile_width * len(titles), 3), 255, np.uint8)
    for column, title in enumerate(titles):
        cv2.putText(banner, title, (column * tile_width + 4, 16), _FONT, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    tiles = [np.hstack([cv2.resize(tile, size, interpolation=cv2.INTER_AREA) for tile in row]) for row in rows]
    return np.vstack([banner, *tiles])


def save_png(path: str | Path, rgb: NDArray[np.uint8]) -> Path:
    """Write an RGB picture as PNG, making its folder; returns the path.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1])):
        raise OSError(f"{path}: picture could not be written")
    return path


def _draw_legend(picture: NDArray[np.uint8], entries: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
    scale = max(0.35, picture.shape[0] / 1000)
    step = round(34 * scale)
    for row, (name, color) in enumerate(entries):
        y = (row + 1) * step
        if y > picture.shape[0]:
            return
        cv2.rectangle(picture, (4, y - round(step * 0.7)), (4 + round(step * 0.7), y), color.tolist(), -1)
        origin = (10 + round(step * 0.7), y - 1)
        shadow = (origin[0] + 1, origin[1] + 1)  # no outline: thicker strokes are wider in OpenCV 5
        cv2.putText(picture, name, shadow, _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
        cv2.putText(picture, name, origin, _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
