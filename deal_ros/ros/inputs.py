# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The camera's topics as one thing: subscriptions that match their publishers, and a judgement of what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from deal_ros.images import Calibration, calibration
from deal_ros.ros.diagnostics import WARN, Status
from deal_ros.ros.lifecycle import PorchNode
from deal_ros.ros.qos import MatchedSubscription

LOSS_REMEDY = (
    "start the camera driver with FASTDDS_DEFAULT_PROFILES_FILE set to config/fastdds.xml of deal_ros, make its"
    " images reliable, or enlarge the kernel's receive buffer (see docs/on_your_robot.md)"
)
_LOST_BELOW = 0.8
"""Images are called lost when fewer than this share of the camera infos' number arrives."""


class CameraInputs:
    """Colour and, on demand, depth of one camera.

    Args:
        node: owner; its parameters choose transports and reliabilities.
        on_rgb: called with each colour message.
        on_depth: called with each depth message while :attr:`depth` is set.
        depth: subscribe depth from the start.
    """

    def __init__(
        self,
        node: PorchNode,
        on_rgb: Callable[[Any], None],
        on_depth: Callable[[Any], None],
        depth: bool = True,
    ) -> None:
        self._node = node
        self._on_depth = on_depth
        self.calibration: Calibration | None = None
        self._frame_ids: dict[str, str] = {}
        self._said = ""
        compressed = node.parameters["rgb_transport"] == "compressed"
        self.rgb = self._subscribe(
            "rgb",
            CompressedImage if compressed else Image,
            "rgb/image/compressed" if compressed else "rgb/image",
            on_rgb,
        )
        self.info = self._subscribe("camera_info", CameraInfo, "rgb/camera_info", self._on_info)
        self.depth: MatchedSubscription | None = None
        if depth:
            self.want_depth(True)

    def want_depth(self, wanted: bool) -> None:
        """Subscribe or unsubscribe depth."""
        if wanted and self.depth is None:
            compressed = self._node.parameters["depth_transport"] == "compressedDepth"
            self.depth = self._subscribe(
                "depth",
                CompressedImage if compressed else Image,
                "depth/image/compressedDepth" if compressed else "depth/image",
                self._on_depth,
            )
        elif not wanted and self.depth is not None:
            self._node.inputs.pop("depth").destroy()
            self._frame_ids.pop("depth", None)
            for work in ("depth", "camera_info"):
                self._node.mended(work)  # nobody asks any more
            self.depth = None

    def destroy(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._node.inputs.values():
            subscription.destroy()
        self._node.inputs.clear()

    def camera_matrix_for(self, height: int, width: int) -> NDArray[np.float64] | None:
        """Return K for images of a size, float64 (3, 3); ``None`` where the camera is not calibrated for such."""
        known = self.calibration
        if known is None:
            return None
        matrix = known.matrix_for(height, width)
        if matrix is not None:
            self._node.mended("camera_info")
            return matrix
        self._node.fault(
            "camera_info",
            f"{self.info.topic} is of {known.width} x {known.height} pixels, colour has {width} x {height}: left out;"
            " remap rgb/camera_info to the one of the colour image",
        )
        return None

    def doubt(self) -> str:
        """Whether colour and depth name different frames, which need not be wrong; empty if they do not."""
        rgb, depth = self._frame_ids.get("rgb"), self._frame_ids.get("depth")
        if not rgb or not depth or rgb == depth:
            return ""
        return (
            f"colour is in frame {rgb[:80]!r}, depth in {depth[:80]!r}: is depth registered to colour? See the drivers'"
            " table in docs/on_your_robot.md; if it is and only named otherwise, all is well"
        )

    def complaints(self) -> list[str]:
        """Say what is wrong with the inputs right now, with remedies; empty when all is well or too young to tell."""
        found = []
        images = [self.rgb] if self.depth is None else [self.rgb, self.depth]
        for subscription in images:
            if subscription.age_s < self._node.parameters["input_timeout_s"]:
                continue
            least = _LOST_BELOW * self.info.rate_hz if subscription is self.rgb else 0.0  # depth may be slower
            if self.info.rate_hz >= 1.0 and (subscription.rate_hz < least or subscription.rate_hz == 0.0):
                if subscription.publishers():
                    found.append(
                        f"images are lost in transport: {self.info.rate_hz:.1f} camera infos but"
                        f" {subscription.rate_hz:.1f} images per second; {subscription.describe()}; {LOSS_REMEDY}"
                    )
                else:
                    found.append(f"no publisher: {subscription.describe()}; start the camera or remap the topic")
            elif subscription.rate_hz == 0.0:
                found.append(f"no images: {subscription.describe()}; start the camera or remap the topic")
        return found

    def diagnose(self, status: Status) -> None:
        """Report complaints and rates."""
        for complaint in self.complaints():
            status.report(WARN, complaint)
        doubt = self.doubt()
        if doubt:
            status.report(WARN, doubt)
            if doubt != self._said:
                self._node.get_logger().warning(doubt)
        self._said = doubt
        rates = {name: f"{subscription.rate_hz:.1f} Hz" for name, subscription in self._node.inputs.items()}
        status.add({"input rates": rates})

    def _subscribe(
        self, name: str, message_type: type, topic: str, callback: Callable[[Any], None]
    ) -> MatchedSubscription:
        reliability = self._node.parameters[f"{name}_reliability"]

        def take(message: Any) -> None:
            self._frame_ids[name] = message.header.frame_id
            callback(message)

        subscription = MatchedSubscription(
            self._node, message_type, topic, self._node.guard(take), reliability=reliability
        )
        self._node.inputs[name] = subscription
        return subscription

    def _on_info(self, info: CameraInfo) -> None:
        self.calibration = calibration(info)
