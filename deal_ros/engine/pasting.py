# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Cut objects out of images that show nothing else, and paste them into other training views."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.engine.augmentation import AugmentationConfig, Frame, change_colors

_LEAST_SHARE = 0.003
"""A cutout smaller than this share of the view is not pasted."""


@dataclass(frozen=True)
class PasteConfig:
    """How objects are pasted into the random views of a student's training images.

    Source: Dwibedi et al., arXiv 1708.01642, and Ghiasi et al., arXiv 2012.07177, who cut along true masks; here the
    cut follows label maps of images whose image labels name one class alone.

    Args:
        probability: share of random views that get any object, 0..1.
        most: most objects per view; a view gets 1 to this many.
        zoom: smallest and largest size of an object relative to its own image, drawn log-uniformly.
        rotate_deg: largest rotation either way, degrees.
    """

    probability: float = 0.8
    most: int = 3
    zoom: tuple[float, float] = (0.4, 1.2)
    rotate_deg: float = 15.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {self.probability}")
        if self.most < 1:
            raise ValueError(f"most must be at least 1, got {self.most}")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom must be two positive factors in order, got {self.zoom}")


class Paster:
    """Pastes cutouts into views.

    Args:
        config: how.
        sources: positions of frames whose image labels name exactly one class.
        size: height and width of the views.
        colors: how far colours of a cutout may change.
    """

    def __init__(
        self,
        config: PasteConfig,
        sources: Sequence[int],
        size: tuple[int, int],
        colors: AugmentationConfig,
    ) -> None:
        self._config, self._sources = config, list(sources)
        self._size, self._colors = size, colors

    def __call__(self, view: Frame, frame_at: Callable[[int], Frame], rng: np.random.Generator) -> Frame:
        """Return ``view`` with objects in it, or as it is. Its depth stays: a student does not see it.

        Args:
            view: with its target.
            frame_at: gives the frame of a position, with its target.
            rng: decides everything.
        """
        if not self._sources or rng.random() >= self._config.probability:
            return view
        assert view.target is not None
        rgb, target, labels = view.rgb.copy(), view.target.copy(), view.labels.copy()
        for _ in range(int(rng.integers(1, self._config.most + 1))):
            frame = frame_at(self._sources[int(rng.integers(len(self._sources)))])
            ident = int(frame.labels.argmax()) + 1
            object_rgb, alpha = self._cutout(frame, ident, rng)
            inside = alpha > 0.5
            if inside.mean() < _LEAST_SHARE:
                continue
            rgb = (rgb * (1 - alpha[..., None]) + object_rgb * alpha[..., None]).astype(np.uint8)
            target[inside] = ident
            labels[ident - 1] = 1
        return replace(view, rgb=rgb, target=target, labels=labels)

    def _cutout(
        self, frame: Frame, ident: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """One object somewhere in a view: colours uint8 (H, W, 3) and how opaque it is, float32 (H, W) in [0, 1]."""
        height, width = self._size
        assert frame.target is not None
        mask = (frame.target == ident).astype(np.float32)
        x, y, columns, rows = cv2.boundingRect(mask.astype(np.uint8))
        low, high = np.log(self._config.zoom)
        zoom = math.exp(rng.uniform(low, high)) * max(height / mask.shape[0], width / mask.shape[1])
        angle = rng.uniform(-self._config.rotate_deg, self._config.rotate_deg)
        place = rng.uniform((0, 0), (width, height))
        center = (x + columns / 2, y + rows / 2)
        matrix = np.asarray(cv2.getRotationMatrix2D(center, angle, zoom), np.float64)
        matrix[:, 2] += place - np.array(center)
        alpha = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_LINEAR)
        rgb = cv2.warpAffine(frame.rgb, matrix, (width, height), flags=cv2.INTER_LINEAR)
        rgb = change_colors(np.asarray(rgb, np.uint8), self._colors, rng)
        return rgb, np.asarray(cv2.GaussianBlur(alpha, (3, 3), 0), np.float32)
