# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames for tests of the sample store: small, different from each other, with holes in depth."""

from __future__ import annotations

import numpy as np

from deal_ros.sample import Sample

CLASSES = ("milk", "ketchup", "butter")


def frame(number: int = 0, labels=frozenset({"milk"}), mask: bool = False, size=(24, 32)) -> Sample:
    rng = np.random.default_rng(number)
    depth = rng.integers(0, 5000, size).astype(np.float32) * np.float32(0.001)
    depth[rng.random(size) < 0.3] = 0
    return Sample(
        rgb=rng.integers(0, 256, (*size, 3)).astype(np.uint8),
        depth_m=depth,
        labels=labels,
        mask=rng.integers(0, 4, size).astype(np.uint8) if mask else None,
        camera_matrix=np.array([[500.0, 0, 16], [0, 500.0, 12], [0, 0, 1]]),
        stamp_ns=1_000_000_000 + number,
        frame_id="camera_color_optical_frame",
        source="/camera/color",
    )
