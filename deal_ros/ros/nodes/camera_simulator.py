# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An RGB-D camera in front of rendered household objects: ``python -m deal_ros.ros.nodes.camera_simulator``.

Publishes ``rgb/image``, ``depth/image`` (registered), ``rgb/camera_info``, and what no real camera knows:
``ground_truth/mask`` and ``ground_truth/labels``. ``~/next`` or the parameters change the scene.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger

from deal_ros.images import units_from_metres
from deal_ros.ros import convert
from deal_ros.ros.diagnostics import ERROR, WARN, Rate, Status
from deal_ros.ros.lifecycle import ACTIVE, PorchNode
from deal_ros.ros.qos import LATCHED, create_publisher, profile
from deal_ros.ros.run import end_process, run_node
from deal_ros.ros.scene_player import ScenePlayer, SceneRequest
from deal_ros.ros.tables import CAMERA_SIMULATOR
from deal_ros.sample import Sample

_SCENE_PARAMETERS = (
    *("scenario", "object", "objects", "resting_pose", "objects_in_view", "clutter"),
    *("seed", "split", "views", "depth_noise", "depth_encoding"),
)
_SETTLE_S = 0.15
"""Parameters set one after the other within this time make one change of scene."""


@dataclass
class View:
    """The messages of one camera position; only their stamps change when they are replayed."""

    rgb: Image
    depth: Image
    mask: Image
    info: CameraInfo


class CameraSimulator(PorchNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("camera_simulator", CAMERA_SIMULATOR)
        self._player: ScenePlayer | None = None
        self._request: SceneRequest | None = None
        self._change_at: float | None = None
        self._timer: Any = None
        self._error = ""
        self._shown: Any = None
        self._published = Rate()
        self.create_service(Trigger, "~/next", self.trigger(self._next))

    def configure(self) -> None:
        """Start the renderer with the first scene."""
        qos = profile(self.parameters["reliability"], depth=5)
        self._rgb = create_publisher(self, Image, "rgb/image", qos)
        self._depth = create_publisher(self, Image, "depth/image", qos)
        self._info = create_publisher(self, CameraInfo, "rgb/camera_info", qos)
        self._mask = create_publisher(self, Image, "ground_truth/mask", qos)
        self._labels = create_publisher(self, String, "ground_truth/labels", LATCHED)
        self._player = ScenePlayer(self._to_messages, self._on_render_error)
        self._show(self._requested())

    def activate(self) -> None:
        """Start publishing."""
        self._restart_timer()

    def deactivate(self) -> None:
        """Stop publishing."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def cleanup(self) -> None:
        """Free the renderer and its OpenGL context."""
        if self._player is not None:
            self._player.stop()
            self._player = None
            for publisher in (self._rgb, self._depth, self._info, self._mask, self._labels):
                self.destroy_publisher(publisher)

    def parameters_changed(self, values: dict[str, Any]) -> None:
        """Change scene or rate."""
        if any(name in _SCENE_PARAMETERS for name in values):
            self._requested()  # refuses what does not fit together
            self._change_at = time.monotonic() + _SETTLE_S
        if "rate_hz" in values and self._timer is not None:
            self._restart_timer()

    def diagnose(self, status: Status) -> None:
        """Report what is in view and whether the rate is kept."""
        if self._error:
            status.report(ERROR, self._error)
        rate = self._published.per_second()
        if self.state == ACTIVE and not self._error and rate < 0.8 * self.parameters["rate_hz"]:
            status.report(WARN, f"{rate:.1f} frames per second, wanted {self.parameters['rate_hz']:.1f}")
        shown = self._shown.name if self._shown is not None else "none"
        rendered = self._player.rendered if self._player is not None else 0
        status.add({"frames per second": rate, "scene": shown, "views rendered": rendered})

    def _requested(self) -> SceneRequest:
        p = self.parameters
        return SceneRequest(
            scenario=p["scenario"],
            objects=p["objects"],
            object=p["object"],
            resting_pose=p["resting_pose"],
            objects_in_view=p["objects_in_view"],
            clutter=p["clutter"],
            seed=p["seed"],
            split=p["split"],
            size=(p["height"], p["width"]),
            views=p["views"],
            shadows=p["shadows"],
            noise=p["depth_noise"],
        )

    def _show(self, request: SceneRequest) -> None:
        assert self._player is not None
        self._request, self._error, self._shown = request, "", None
        self._labels.publish(String(data=""))  # in between: nobody may label the old views with the new name
        self._player.show(request)

    def _next(self) -> str:
        if self._request is None or self._player is None:
            raise ValueError("the simulator is not configured; configure and activate it first")
        following = self._request.following()
        self._show(following)
        name = following.object or following.objects[0]
        what = (
            f"seed {following.seed}" if following.scenario == "tabletop" else f"{name}, pose {following.resting_pose}"
        )
        return f"next: {following.scenario}, {what}; ground_truth/labels says when it is in view"

    def _restart_timer(self) -> None:
        self.deactivate()
        self._timer = self.every(1.0 / self.parameters["rate_hz"], self._publish)

    def _publish(self) -> None:
        if self._change_at is not None and time.monotonic() >= self._change_at:
            self._change_at = None
            self._show(self._requested())
        item = self._player.next_view() if self._player is not None else None
        if item is None:
            return
        scene, view = item
        if scene is not self._shown:
            self._shown = scene
            self._labels.publish(String(data=", ".join(sorted(scene.labels))))
        stamp = self.get_clock().now().to_msg()
        for publisher, message in (
            (self._info, view.info),
            (self._rgb, view.rgb),
            (self._depth, view.depth),
            (self._mask, view.mask),
        ):
            message.header.stamp = stamp
            publisher.publish(message)
        self._published.count()

    def _to_messages(self, sample: Sample) -> View:
        header = Header(frame_id=self.parameters["frame_id"])
        assert sample.mask is not None
        assert sample.camera_matrix is not None
        encoding = self.parameters["depth_encoding"]
        if encoding == "16UC1":
            depth = units_from_metres(sample.depth_m)
        else:
            depth = np.where(sample.depth_m > 0, sample.depth_m, np.float32(np.nan))  # REP 118: no return
        return View(
            convert.image_message(sample.rgb, "rgb8", header),
            convert.image_message(depth, encoding, header),
            convert.image_message(sample.mask, "mono8", header),
            convert.camera_info(sample.camera_matrix, sample.size, header),
        )

    def _on_render_error(self, error: Exception) -> None:
        self._error = f"scene cannot be shown: {error}"
        self.get_logger().error(self._error)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Console script."""
    end_process(run_node(CameraSimulator, args))


if __name__ == "__main__":
    main()
