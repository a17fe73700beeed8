# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Operators on images and depth, one per file; nothing here knows about training."""

from deal_ros.filters.depth_edges import (
    GATE_ZERO,
    PLANE_FREE,
    DepthEdgeConfig,
    depth_edges,
    depth_edges_with_sides,
    nearer_side,
)
from deal_ros.filters.noise import DepthNoiseConfig, add_depth_noise, realsense_like
from deal_ros.filters.pamr import PamrConfig, pamr
from deal_ros.filters.sobel import sobel_gradients, sobel_magnitude
from deal_ros.filters.validity import depth_validity, erode_validity, masked_resize

__all__ = [
    "GATE_ZERO",
    "PLANE_FREE",
    "DepthEdgeConfig",
    "DepthNoiseConfig",
    "PamrConfig",
    "add_depth_noise",
    "depth_edges",
    "depth_edges_with_sides",
    "depth_validity",
    "erode_validity",
    "masked_resize",
    "nearer_side",
    "pamr",
    "realsense_like",
    "sobel_gradients",
    "sobel_magnitude",
]
