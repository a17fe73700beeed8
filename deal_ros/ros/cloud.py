# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth and mask as an organised point cloud, pixel-aligned with the mask, as Nav2's semantic layer wants it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from deal_ros.ros import convert

_POINT = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "label", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "<u4", "u1", "u1"],
        "offsets": [0, 4, 8, 12, 16, 17],
        "itemsize": 20,
    }
)
_FIELDS = [
    PointField(name="x", offset=0, datatype=PointField.FLOAT32, count=1),
    PointField(name="y", offset=4, datatype=PointField.FLOAT32, count=1),
    PointField(name="z", offset=8, datatype=PointField.FLOAT32, count=1),
    PointField(name="rgb", offset=12, datatype=PointField.FLOAT32, count=1),  # RViz and PCL want it packed in a float
    PointField(name="label", offset=16, datatype=PointField.UINT8, count=1),
    PointField(name="confidence", offset=17, datatype=PointField.UINT8, count=1),
]


def organised_cloud(
    rgb: NDArray[np.uint8],
    depth_m: NDArray[np.float32],
    mask: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    camera_matrix: NDArray[np.float64],
) -> NDArray[np.void]:
    """Back-project every pixel: x = (u − cx)·z / fx, y = (v − cy)·z / fy, in the optical frame (REP 103).

    Args:
        rgb: uint8 (H, W, 3).
        depth_m: float32 (H, W), metres, 0 = no return.
        mask: uint8 (H, W), class ids.
        confidence: uint8 (H, W).
        camera_matrix: float64 (3, 3), pixels.

    Returns:
        Structured (H, W) with fields x, y, z (metres, NaN where there is no return), rgb (0x00RRGGBB), label,
        confidence.

    Raises:
        ValueError: if the sizes differ.
    """
    if not rgb.shape[:2] == depth_m.shape == mask.shape == confidence.shape:
        raise ValueError(
            f"colour, depth, mask and confidence must have one size, got {rgb.shape[:2]}, {depth_m.shape},"
            f" {mask.shape}, {confidence.shape}; register depth to colour (RealSense: align_depth.enable:=true)"
        )
    height, width = depth_m.shape
    z = np.where(depth_m > 0, depth_m, np.float32(np.nan))
    column = ((np.arange(width) - camera_matrix[0, 2]) / camera_matrix[0, 0]).astype(np.float32)
    row = ((np.arange(height) - camera_matrix[1, 2]) / camera_matrix[1, 1]).astype(np.float32)
    points = np.empty((height, width), _POINT)
    points["x"], points["y"], points["z"] = z * column[None, :], z * row[:, None], z
    packed = rgb[..., 0].astype(np.uint32) << 16
    packed |= rgb[..., 1].astype(np.uint32) << 8
    points["rgb"] = packed | rgb[..., 2]
    points["label"], points["confidence"] = mask, confidence
    return points


def cloud_message(points: NDArray[np.void], header: Header) -> PointCloud2:
    """Make a message of the cloud; not dense, since pixels without depth are NaN."""
    height, width = points.shape
    return PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=_FIELDS,
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=_POINT.itemsize * width,
        is_dense=False,
        data=convert.fill(points.view(np.uint8)),
    )
