# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training views of a frame: one affine map moves colour, depth and mask together, then colours are changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.sample import IGNORE_ID

FILL_RGB = (124, 116, 104)
"""Colour outside the image: the ImageNet mean, close to zero after normalisation."""


@dataclass(frozen=True)
class Frame:
    """What training needs of one sample.

    Args:
        rgb: uint8 (H, W, 3).
        depth_m: float32 (H, W), metres, 0 = no return.
        labels: float32 (K,), 1 where the class is in view, or may be, because nobody said what is.
        target: uint8 (H, W) label map with 255 ignored, or ``None`` in training from image labels.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    labels: NDArray[np.float32]
    target: NDArray[np.uint8] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes."""
        return sum(a.nbytes for a in (self.rgb, self.depth_m, self.labels, self.target) if a is not None)


@dataclass(frozen=True)
class AugmentationConfig:
    """How far a training view may differ from its frame.

    Args:
        fit: how a frame that has another shape than the training size is brought to it at zoom 1. ``cover``: the
            shorter side fits and the rest is cropped; ``contain``: the longer side fits and the rest is padded.
        flip: mirror half of the views.
        zoom: smallest and largest factor on the fitted size, drawn log-uniformly; above 1 crops, below 1 pads.
        rotate_deg: largest rotation either way, degrees.
        brightness, contrast, saturation: largest relative change either way, 0..1.
        hue_deg: largest hue shift either way, degrees.
        erase: probability of one rectangle of noise (random erasing; WeakTr uses .25).
        erase_area: smallest and largest share of the image that is erased.
    """

    fit: Literal["cover", "contain"] = "cover"
    flip: bool = True
    zoom: tuple[float, float] = (0.8, 1.25)
    rotate_deg: float = 0.0
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    hue_deg: float = 0.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.2)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom must be two positive factors in order, got {self.zoom}")
        for name in ("brightness", "contrast", "saturation", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 < self.erase_area[0] <= self.erase_area[1] < 1:
            raise ValueError(f"erase_area must be two shares in (0, 1) in order, got {self.erase_area}")


PLAIN = AugmentationConfig(flip=False, zoom=(1.0, 1.0), brightness=0, contrast=0, saturation=0)
"""No change but the fit."""


def augment(frame: Frame, size: tuple[int, int], config: AugmentationConfig, rng: np.random.Generator) -> Frame:
    """One random view of ``frame`` at ``size`` (H, W).

    Depth and target are sampled at the nearest pixel: a mean of two depths is a surface that is not there, and a
    mean of two ids another class. Outside the frame depth is 0 (no return) and the target 255 (ignored).
    """
    flip = bool(config.flip and rng.random() < 0.5)
    low, high = np.log(config.zoom)
    zoom = math.exp(rng.uniform(low, high))
    angle = math.radians(rng.uniform(-config.rotate_deg, config.rotate_deg))
    shift = rng.uniform(-1, 1, size=2)
    view = warp(frame, size, fit=config.fit, zoom=zoom, flip=flip, angle_rad=angle, shift=(shift[0], shift[1]))
    rgb = change_colors(view.rgb, config, rng)
    if config.erase and rng.random() < config.erase:
        rgb = _erase(rgb, config.erase_area, rng)
    return replace(view, rgb=rgb)


def mirrored(frame: Frame) -> Frame:
    """Return the frame seen in a mirror."""
    target = None if frame.target is None else np.ascontiguousarray(frame.target[:, ::-1])
    flipped = np.ascontiguousarray(frame.rgb[:, ::-1]), np.ascontiguousarray(frame.depth_m[:, ::-1])
    return Frame(*flipped, frame.labels, target)


def warp(
    frame: Frame,
    size: tuple[int, int],
    *,
    fit: str = "cover",
    zoom: float = 1.0,
    flip: bool = False,
    angle_rad: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Frame:
    """Move colour, depth and target by one affine map to ``size`` (H, W).

    Args:
        frame: the source.
        size: height and width of the view.
        fit: ``cover`` or ``contain``, see :class:`AugmentationConfig`.
        zoom: factor on the fitted size.
        flip: mirror left and right.
        angle_rad: rotation about the centre, counter-clockwise as seen.
        shift: place of the window, each in [-1, 1]: 0 is the centre, ±1 its furthest place at which it shows no more
            outside than it must.
    """
    (height, width), (rows, columns) = size, frame.rgb.shape[:2]
    ratios = height / rows, width / columns
    scale = zoom * (max(ratios) if fit == "cover" else min(ratios))
    if (rows, columns) == (height, width) and scale == 1 and angle_rad == 0:
        return mirrored(frame) if flip else frame
    room_y, room_x = abs(rows * scale - height) / 2, abs(columns * scale - width) / 2
    cos, sin = math.cos(angle_rad) / scale, math.sin(angle_rad) / scale
    mirror = -1.0 if flip else 1.0
    linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    center = np.array([(columns - 1) / 2 + shift[1] * room_x / scale, (rows - 1) / 2 + shift[0] * room_y / scale])
    offset = center - linear @ np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([linear, offset])  # destination pixel → source pixel, at pixel centres

    def sample(image: NDArray, interpolation: int, border: float | tuple[int, int, int]) -> NDArray:
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )

    target = None if frame.target is None else sample(frame.target, cv2.INTER_NEAREST, IGNORE_ID)
    rgb = sample(frame.rgb, cv2.INTER_LINEAR, FILL_RGB)
    return Frame(rgb, sample(frame.depth_m, cv2.INTER_NEAREST, 0.0), frame.labels, target)


def shrink(frame: Frame, size: tuple[int, int]) -> Frame:
    """Make a frame no larger than needed to cover ``size``; smaller ones stay as they are.

    Colour is averaged over areas; depth and target take the nearest pixel centre.
    """
    rows, columns = frame.rgb.shape[:2]
    scale = max(size[0] / rows, size[1] / columns)
    if scale >= 1:
        return frame
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    rgb = np.asarray(cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    target = None if frame.target is None else resize_nearest(frame.target, (height, width))
    return Frame(rgb, resize_nearest(frame.depth_m, (height, width)), frame.labels, target)


def resize_nearest(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Resize (H, W) by taking the pixel under each new pixel's centre (OpenCV's nearest takes its corner)."""
    rows = ((np.arange(size[0]) + 0.5) * image.shape[0] / size[0]).astype(np.intp)
    columns = ((np.arange(size[1]) + 0.5) * image.shape[1] / size[1]).astype(np.intp)
    return np.ascontiguousarray(image[rows[:, None], columns])


def change_colors(rgb: NDArray[np.uint8], config: AugmentationConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return uint8 (H, W, 3) in other light: brightness, contrast, saturation and hue as ``config`` allows."""
    brightness, contrast, saturation = (
        1 + rng.uniform(-amount, amount) for amount in (config.brightness, config.contrast, config.saturation)
    )
    hue = rng.uniform(-config.hue_deg, config.hue_deg)
    if brightness == contrast == saturation == 1 and hue == 0:
        return rgb
    image = rgb.astype(np.float32) * brightness
    image = (image - image.mean()) * contrast + image.mean()
    gray = image @ np.array([0.299, 0.587, 0.114], np.float32)
    image = gray[..., None] + (image - gray[..., None]) * saturation
    image = np.clip(image, 0, 255).astype(np.uint8)
    if hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # OpenCV's hue steps are two degrees
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(hue / 2)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image


def _erase(rgb: NDArray[np.uint8], area: tuple[float, float], rng: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = rgb.shape[:2]
    share, aspect = rng.uniform(*area), math.exp(rng.uniform(-1.2, 1.2))
    height = min(rows, max(1, round(math.sqrt(share * rows * columns * aspect))))
    width = min(columns, max(1, round(math.sqrt(share * rows * columns / aspect))))
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    rgb = rgb.copy()
    rgb[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb
