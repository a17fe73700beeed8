# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What real cameras send: encodings, padding, byte order, compression; cameras that come, go and change."""

import time

import numpy as np
import pytest
from image_messages import compressed_depth_message, compressed_message, inverse_depth, raw_message
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from ros_graph import BEST_EFFORT, Camera
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from deal_ros.datasets.store import SampleStore
from deal_ros.ros import convert

EAGER = {"min_interval_s": 0.0, "min_view_change": 0.0, "min_sharpness": 0.0, "min_depth": 0.0, "classes": ["milk"]}
SIZE = (24, 32)


def picture(seed):
    """Two plain halves: JPEG keeps them, and a swapped channel or a lost row would show."""
    image = np.full((*SIZE, 3), (200, 60, 10 * seed), np.uint8)
    image[: SIZE[0] // 2] = (10, 20 * seed, 220)
    return image


def depth_in_metres():
    depth = np.linspace(0.5, 3.0, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    depth[0, :5] = np.nan, np.inf, -np.inf, -1.0, 0.0
    return depth


def as_message(payload, stamp):
    """A payload as the real message, filled field by field."""
    message = CompressedImage() if hasattr(payload, "format") else Image()
    for name, value in vars(payload).items():
        setattr(message, name, convert.fill(np.frombuffer(value, np.uint8)) if name == "data" else value)
    message.header = convert.make_header(stamp, "camera")
    return message


def stored(graph, status, count):
    graph.wait(lambda: status().get("total", 0) >= count, f"{count} samples")


def expect(depth, quantum):
    wanted = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
    return {"desired": wanted, "atol": quantum}


def test_raw_images_of_every_layout_are_stored_as_metres(graph, tmp_path):
    graph.start("sample_collector", store=str(tmp_path / "store"), **EAGER)
    status = graph.json_of("collection/status")
    rgb = graph.node.create_publisher(Image, "rgb/image", BEST_EFFORT)
    depth = graph.node.create_publisher(Image, "depth/image", BEST_EFFORT)
    graph.latched("labels").publish(String(data="milk"))
    graph.wait(lambda: status().get("state") == "gathering", "labels")
    graph.wait(lambda: rgb.get_subscription_count() and depth.get_subscription_count(), "subscriptions")
    metres = depth_in_metres()
    millimetres = np.where(np.isfinite(metres) & (metres > 0), metres * 1000, 0).astype(np.uint16)
    bgr = picture(1)[..., ::-1]
    frames = [
        (raw_message(picture(1), "rgb8"), raw_message(millimetres, "16UC1")),
        (raw_message(bgr, "bgr8", padding=7), raw_message(millimetres, "16UC1", padding=6)),
        (raw_message(picture(1), "rgb8"), raw_message(metres, "32FC1")),
        (raw_message(picture(1), "rgb8"), raw_message(metres, "32FC1", padding=4, big_endian=True)),
        (raw_message(picture(1), "rgb8"), raw_message(millimetres, "16UC1", big_endian=True)),
    ]
    for number, (color, distance) in enumerate(frames, start=1):
        stamp = time.time_ns()
        rgb.publish(as_message(color, stamp))
        depth.publish(as_message(distance, stamp))
        stored(graph, status, number)
    with SampleStore.open(tmp_path / "store") as store:
        for index in range(len(frames)):
            np.testing.assert_allclose(store[index].depth_m, **expect(metres, 0.0011))
            assert np.abs(store[index].rgb.astype(int) - picture(1)).mean() < 8


def test_compressed_and_compressed_depth_are_decoded(graph, tmp_path):
    transports = {"rgb_transport": "compressed", "depth_transport": "compressedDepth"}
    node = graph.start("sample_collector", store=str(tmp_path / "store"), **EAGER, **transports)
    status = graph.json_of("collection/status")
    rgb = graph.node.create_publisher(CompressedImage, "rgb/image/compressed", BEST_EFFORT)
    depth = graph.node.create_publisher(CompressedImage, "depth/image/compressedDepth", BEST_EFFORT)
    graph.latched("labels").publish(String(data="milk"))
    graph.wait(lambda: status().get("state") == "gathering", "labels")
    graph.wait(lambda: rgb.get_subscription_count() and depth.get_subscription_count(), "subscriptions")
    metres = depth_in_metres()
    millimetres = np.where(np.isfinite(metres) & (metres > 0), metres * 1000, 0).astype(np.uint16)
    inverse, quantisation = inverse_depth(metres)
    frames = [
        (compressed_depth_message(millimetres), 0.0011),
        (compressed_depth_message(millimetres, transport="rvl"), 0.0011),
        (compressed_depth_message(inverse, "32FC1", quantisation=quantisation), 0.01),
    ]
    for number, (distance, _) in enumerate(frames, start=1):
        stamp = time.time_ns()
        rgb.publish(as_message(compressed_message(picture(2), "png"), stamp))
        depth.publish(as_message(distance, stamp))
        stored(graph, status, number)
    stamp = time.time_ns()
    rgb.publish(as_message(compressed_message(picture(2), "png"), stamp))
    depth.publish(as_message(compressed_message(picture(2), "jpg"), stamp))
    graph.wait(lambda: "JPEG destroys depth" in node.text(), "a depth topic that is none is named")
    with SampleStore.open(tmp_path / "store") as store:
        for index, (_, quantum) in enumerate(frames):
            np.testing.assert_allclose(store[index].depth_m, **expect(metres, quantum))


def test_a_camera_may_stop_return_and_change_its_size_and_lose_its_depth(graph, tmp_path):
    node = graph.start("sample_collector", store=str(tmp_path / "store"), input_timeout_s=1.0, **EAGER)
    status = graph.json_of("collection/status")
    graph.latched("labels").publish(String(data="milk"))
    sizes = (48, 64), (60, 80)
    for number, size in enumerate(sizes):
        before = status().get("total", 0)
        camera = Camera(graph, size=size).run(rate_hz=15)
        stored(graph, status, before + 3)
        assert not status()["message"] or number == 0
        camera.destroy()
        graph.wait(lambda: "no pair of colour and depth" in status()["message"], "silence is reported")
    camera = Camera(graph, size=(60, 80))
    graph.node.destroy_publisher(camera.depth)
    camera.depth = graph.node.create_publisher(Image, "elsewhere", 1)  # depth goes away, colour stays
    camera.run(rate_hz=15)
    graph.wait(
        lambda: "depth/image" in status()["message"] and "no publisher" in status()["message"], "depth is missed"
    )
    graph.wait(lambda: "depth/image" in graph.status(node)["message"], "in the diagnostics too")
    camera.stop()
    with SampleStore.open(tmp_path / "store") as store:
        assert {store[index].size for index in range(len(store))} == set(sizes)


def test_incompatible_qos_is_logged_with_both_policies(graph, tmp_path):
    store = str(tmp_path / "store")
    node = graph.start("sample_collector", store=store, rgb_reliability="reliable", **EAGER)
    camera = Camera(graph, qos=BEST_EFFORT).run(rate_hz=5)
    graph.wait(lambda: "RELIABILITY" in node.text(), "our side asks for too much")
    line = next(line for line in node.text().splitlines() if "RELIABILITY" in line)
    assert "it offers best_effort, volatile, we ask for reliable, volatile" in line
    strict = QoSProfile(depth=1, deadline=Duration(seconds=1))
    graph.record(String, "collection/status", strict)
    graph.wait(lambda: "DEADLINE" in node.text(), "the other side asks for too much")
    line = next(line for line in node.text().splitlines() if "DEADLINE" in line)
    assert "we offer reliable, transient_local" in line
    camera.stop()


@pytest.mark.slow
def test_a_flood_at_a_kilohertz_is_survived_in_bounded_memory(graph, tmp_path):
    node = graph.start("sample_collector", store=str(tmp_path / "store"), **{**EAGER, "min_interval_s": 0.5})
    status = graph.json_of("collection/status")
    graph.latched("labels").publish(String(data="milk"))
    graph.wait(lambda: status().get("state") == "gathering", "labels")
    before = float(graph.status(node)["values"]["memory MB"])
    camera = Camera(graph, size=(48, 64)).run(rate_hz=1000)
    time.sleep(4)
    camera.stop()
    at = time.monotonic()
    graph.wait(lambda: graph.status(node).get("at", 0) > at, "diagnostics after the flood")
    assert float(graph.status(node)["values"]["memory MB"]) < before + 60
    assert status()["total"] >= 3
