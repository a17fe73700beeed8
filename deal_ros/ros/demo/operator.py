# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The operator's and the judge's side of the demonstration: says what is in view, presses start, watches the masks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from deal_ros.images import stamp_ns
from deal_ros.ros.demo.processes import parameter_message
from deal_ros.ros.qos import LATCHED

IMAGES = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)


@dataclass
class Show:
    """What the judge saw between :meth:`Operator.watch` and :meth:`Operator.stop_watching`, by stamp in ns.

    Args:
        offered: stamps of the frames that the camera announced.
        rgb, masks, truths: the images that arrived.
        latency_ms: stamp → mask received, in arrival order.
    """

    offered: set[int] = field(default_factory=set)
    rgb: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    masks: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    truths: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)


class Operator:
    """A node of its own process that talks to the four others over DDS only."""

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = Node("demo_operator", context=self._context)
        self._labels = self._node.create_publisher(String, "labels", LATCHED)
        self._status: dict[str, str] = {}
        self._lock = threading.Lock()
        self._newest_mask = 0
        self._show: Show | None = None
        self._truths: dict[int, NDArray[np.uint8]] | None = None
        for topic in ("collection/status", "training/status", "model", "ground_truth/labels"):
            self._node.create_subscription(String, topic, self._remember(topic), LATCHED)
        self._node.create_subscription(Image, "ground_truth/mask", self._on_truth, IMAGES)
        self._node.create_subscription(Image, "segmentation/mask", self._on_mask, IMAGES)
        self._node.create_subscription(CameraInfo, "rgb/camera_info", self._on_info, IMAGES)
        self._rgb_subscription: Any = None
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, name="demo_operator", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Fall silent. The process ends soon, and the participant with it: see ``leave_graph`` in ros/run.py."""
        self._executor.shutdown()
        self._thread.join(timeout=2.0)

    def say(self, labels: tuple[str, ...]) -> None:
        """Publish what is in view; nothing means stop gathering."""
        self._labels.publish(String(data=", ".join(labels)))

    def call(self, service: str, timeout_s: float = 30.0) -> str:
        """Call a Trigger service and return its message.

        Raises:
            RuntimeError: if it does not answer in time or refuses.
        """
        response = self._request(Trigger, service, Trigger.Request(), timeout_s)
        if not response.success:
            raise RuntimeError(f"{service}: {response.message}")
        return str(response.message)

    def set_parameters(self, node: str, timeout_s: float = 60.0, **values: object) -> None:
        """Set parameters of a running node at once.

        Raises:
            RuntimeError: if the node does not answer in time or refuses one, with its reason.
        """
        request = SetParameters.Request(parameters=[parameter_message(name, value) for name, value in values.items()])
        response = self._request(SetParameters, f"{node}/set_parameters", request, timeout_s)
        refused = [
            f"{name}: {result.reason}" for name, result in zip(values, response.results) if not result.successful
        ]
        if refused:
            raise RuntimeError(f"{node} refused {'; '.join(refused)}")

    def status(self, topic: str) -> dict[str, Any]:
        """Return the newest JSON of a status topic, empty before the first."""
        return json.loads(self._status.get(topic, "{}"))

    def forget(self, topic: str) -> None:
        """Drop the newest text of a topic, so that the next one can be waited for."""
        self._status.pop(topic, None)

    def text(self, topic: str) -> str:
        """Return the newest text of a String topic, empty before the first."""
        return self._status.get(topic, "")

    def wait_for(self, what: str, condition: Callable[[], bool], timeout_s: float, check: Callable[[], None]) -> None:
        """Poll ``condition``; ``check`` may raise to give up early.

        Raises:
            TimeoutError: naming ``what`` if it does not come true in ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen within {timeout_s:.0f} s")
            time.sleep(0.05)

    def wait_for_mask(self, check: Callable[[], None], timeout_s: float = 60.0) -> None:
        """Wait for a mask of a frame that is taken from now on: a model is loaded, and this scene is in view.

        Raises:
            TimeoutError: if none comes.
        """
        now = self._node.get_clock().now().nanoseconds
        self.wait_for("a mask from the segmenter", lambda: self._newest_mask > now, timeout_s, check)

    def sees(self, node: str) -> bool:
        """Whether a node of this name is in the graph."""
        return node in self._node.get_node_names()

    def gather_truths(self) -> dict[int, NDArray[np.uint8]]:
        """Keep every true mask that arrives from now on, by stamp; the returned mapping grows until the end."""
        with self._lock:
            self._truths = {}
            return self._truths

    def watch(self) -> Show:
        """Record frames offered, masks and truths from now on."""
        with self._lock:
            self._show = Show()
            self._rgb_subscription = self._node.create_subscription(Image, "rgb/image", self._on_rgb, IMAGES)
            return self._show

    def stop_watching(self) -> None:
        """End the record of :meth:`watch`."""
        with self._lock:
            self._show = None
            self._node.destroy_subscription(self._rgb_subscription)

    def _request(self, kind: Any, service: str, request: Any, timeout_s: float) -> Any:
        client = self._node.create_client(kind, service)
        try:
            if not client.wait_for_service(timeout_sec=timeout_s):
                raise RuntimeError(f"{service}: no such service within {timeout_s:.0f} s")
            done = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _: done.set())
            if not done.wait(timeout_s):
                raise RuntimeError(f"{service}: no answer within {timeout_s:.0f} s")
            return future.result()
        finally:
            self._node.destroy_client(client)

    def _remember(self, topic: str) -> Callable[[String], None]:
        def store(message: String) -> None:
            self._status[topic] = message.data

        return store

    def _on_info(self, message: CameraInfo) -> None:
        with self._lock:
            if self._show is not None:
                self._show.offered.add(stamp_ns(message.header))

    def _on_rgb(self, message: Image) -> None:
        with self._lock:
            if self._show is not None:
                pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
                self._show.rgb[stamp_ns(message.header)] = pixels.copy()

    def _on_truth(self, message: Image) -> None:
        with self._lock:
            for store in (self._truths, self._show.truths if self._show else None):
                if store is not None:
                    store[stamp_ns(message.header)] = _ids(message)

    def _on_mask(self, message: Image) -> None:
        now = self._node.get_clock().now().nanoseconds
        self._newest_mask = stamp_ns(message.header)
        with self._lock:
            if self._show is not None:
                self._show.latency_ms.append((now - stamp_ns(message.header)) / 1e6)
                self._show.masks[stamp_ns(message.header)] = _ids(message)


def _ids(message: Image) -> NDArray[np.uint8]:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, : message.width].copy()
