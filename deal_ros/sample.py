# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sample: one registered RGB-D frame with what is known about it. Every room of the package passes it on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BACKGROUND_ID = 0
IGNORE_ID = 255
MAX_CLASSES = 254
"""Class ids are 1..254: 0 is background and 255 is 'unlabelled' in every mask of this package."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One colour image with its registered depth and, where known, its labels or its true mask.

    Args:
        rgb: uint8 (H, W, 3), RGB order.
        depth_m: float32 (H, W), metres along the optical axis, registered to ``rgb``; 0 means no return.
            NaN, ±Inf and negative values must be turned into 0 before (see ``filters.validity``).
        labels: names of the classes in view; ``None`` when nobody said. An empty set says "none of them".
        mask: uint8 (H, W), class ids, 0 background, 255 ignored; ``None`` when there is no truth.
        camera_matrix: float64 (3, 3) pinhole matrix in pixels, or ``None``.
        stamp_ns: capture time in nanoseconds since the epoch of the camera's clock.
        frame_id: name of the optical frame (REP 103).
        source: where the frame came from: a topic, a bag, a file.

    Raises:
        ValueError: if a shape or dtype differs from the above.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    labels: frozenset[str] | None = None
    mask: NDArray[np.uint8] | None = None
    camera_matrix: NDArray[np.float64] | None = None
    stamp_ns: int = 0
    frame_id: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what would only fail later, far from its cause."""
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise ValueError(f"rgb must be uint8 (H, W, 3), got {_describe(self.rgb)}")
        if self.depth_m.dtype != np.float32 or self.depth_m.shape != self.rgb.shape[:2]:
            raise ValueError(
                f"depth_m must be float32 {self.rgb.shape[:2]}, the size of rgb, got {_describe(self.depth_m)};"
                " register depth to colour (RealSense: align_depth.enable:=true)"
            )
        if self.mask is not None and (self.mask.dtype != np.uint8 or self.mask.shape != self.rgb.shape[:2]):
            raise ValueError(f"mask must be uint8 {self.rgb.shape[:2]}, the size of rgb, got {_describe(self.mask)}")
        if self.camera_matrix is not None and self.camera_matrix.shape != (3, 3):
            raise ValueError(f"camera_matrix must be (3, 3), got {_describe(self.camera_matrix)}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
