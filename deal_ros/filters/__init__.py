# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Operators on images and depth, one per file; nothing here knows about training."""

from deal_ros.filters.depth_edges import GATE_ZERO, PLANE_FREE, DepthEdgeConfig, depth_edges
from deal_ros.filters.pamr import PamrConfig, pamr
from deal_ros.filters.sobel import sobel_gradients, sobel_magnitude
from deal_ros.filters.validity import depth_validity, erode_validity, masked_resize

__all__ = [
    "GATE_ZERO",
    "PLANE_FREE",
    "DepthEdgeConfig",
    "PamrConfig",
    "depth_edges",
    "depth_validity",
    "erode_validity",
    "masked_resize",
    "pamr",
    "sobel_gradients",
    "sobel_magnitude",
]
