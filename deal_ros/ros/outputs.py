# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's topics: what is always published, and what is computed only while somebody listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from deal_ros.ros import convert
from deal_ros.ros.cloud import cloud_message, organised_cloud
from deal_ros.ros.qos import LATCHED, create_publisher, profile
from deal_ros.visualization import colorize, overlay

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # optional: see docs/on_your_robot.md
    LabelInfo = VisionClass = None


@dataclass(frozen=True)
class Segmented:
    """One frame with its result, ready to be published.

    Args:
        header: the colour image's, untouched.
        rgb: uint8 (H, W, 3).
        mask: uint8 (H, W), ids, 0 background, 255 unlabelled.
        confidence: uint8 (H, W), 0..255.
        depth_m: float32 (H, W), 0 = no return; ``None`` where no depth belongs to the frame.
        camera_matrix: float64 (3, 3), or ``None`` where the camera is uncalibrated.
    """

    header: Header
    rgb: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None = None
    camera_matrix: NDArray[np.float64] | None = None


class SegmentationOutputs:
    """All publishers of the segmenter.

    Args:
        node: owner.
        reliability: ``reliable`` or ``best_effort``, of the image topics.
        depth: their queue depth.
    """

    def __init__(self, node: Node, reliability: str, depth: int) -> None:
        self._node = node
        qos = profile(reliability, depth)
        self._mask = create_publisher(node, Image, "segmentation/mask", qos)
        self._confidence = create_publisher(node, Image, "segmentation/confidence", qos)
        self._color = create_publisher(node, Image, "segmentation/color", qos)
        self._overlay = create_publisher(node, Image, "segmentation/overlay", qos)
        self._points = create_publisher(node, PointCloud2, "segmentation/points", qos_profile_sensor_data)
        self._all: list[Any] = [self._mask, self._confidence, self._color, self._overlay, self._points]
        self._label_info: Any = None
        if LabelInfo is not None:
            self._label_info = create_publisher(node, LabelInfo, "segmentation/label_info", LATCHED)
            self._all.append(self._label_info)
        else:
            node.get_logger().info("vision_msgs is not installed: segmentation/label_info is not published")

    @property
    def pictures_wanted(self) -> bool:
        """Whether somebody listens to more than masks."""
        return any(p.get_subscription_count() for p in (self._color, self._overlay, self._points))

    @property
    def points_wanted(self) -> bool:
        """Whether somebody listens to the point cloud, so that depth is needed."""
        return bool(self._points.get_subscription_count())

    def announce(self, classes: Sequence[str], threshold: float) -> None:
        """Publish the meaning of the ids, for late joiners too; where vision_msgs is installed."""
        if self._label_info is None:
            return
        header = Header(stamp=self._node.get_clock().now().to_msg())
        names = {0: "background", **dict(enumerate(classes, start=1)), 255: "unlabelled"}
        entries = [VisionClass(class_id=number, class_name=name) for number, name in names.items()]
        self._label_info.publish(LabelInfo(header=header, class_map=entries, threshold=float(threshold)))

    def publish(self, frame: Segmented) -> None:
        """Publish the mask of one frame, and its confidence if somebody listens."""
        self._mask.publish(convert.image_message(frame.mask, "mono8", frame.header))
        if self._confidence.get_subscription_count():
            self._confidence.publish(convert.image_message(frame.confidence, "mono8", frame.header))

    def publish_pictures(self, frame: Segmented, classes: Sequence[str], overlay_alpha: float) -> None:
        """Publish the pictures and the cloud of one frame, those that somebody listens to.

        Raises:
            ValueError: if depth has another size than the mask; everything else is out by then.
        """
        if self._color.get_subscription_count():
            self._color.publish(convert.image_message(colorize(frame.mask, len(classes)), "rgb8", frame.header))
        if self._overlay.get_subscription_count():
            picture = overlay(frame.rgb, frame.mask, classes, alpha=overlay_alpha)
            self._overlay.publish(convert.image_message(picture, "rgb8", frame.header))
        if self.points_wanted and frame.depth_m is not None and frame.camera_matrix is not None:
            points = organised_cloud(frame.rgb, frame.depth_m, frame.mask, frame.confidence, frame.camera_matrix)
            self._points.publish(cloud_message(points, frame.header))

    def destroy(self) -> None:
        """Withdraw all topics."""
        for publisher in self._all:
            self._node.destroy_publisher(publisher)
        self._all.clear()
