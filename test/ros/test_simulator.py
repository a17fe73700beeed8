# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The camera simulator as a process: rendered scenes over real DDS."""

import importlib.util

import numpy as np
import pytest
from ros_graph import LATCHED, RELIABLE
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from deal_ros.images import decode_depth

pytestmark = [
    pytest.mark.gl,
    pytest.mark.skipif(
        importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed: scripts/setup.sh installs it"
    ),
]
OBJECTS = ["milk", "ketchup", "butter"]
SMALL = {"width": 160, "height": 120, "views": 6, "rate_hz": 10.0, "objects": OBJECTS}


def by_stamp(messages):
    return {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in messages}


def test_onboarding_shows_one_object_after_the_other_with_its_truth(graph):
    node = graph.start("camera_simulator", **SMALL)
    rgb, _ = graph.record(Image, "rgb/image", RELIABLE)
    depth, _ = graph.record(Image, "depth/image", RELIABLE)
    masks, _ = graph.record(Image, "ground_truth/mask", RELIABLE)
    infos, _ = graph.record(CameraInfo, "rgb/camera_info", RELIABLE)
    labels, _ = graph.record(String, "ground_truth/labels", LATCHED)
    graph.wait(lambda: labels and labels[-1].data == "milk", "milk in view", 60)
    graph.wait(lambda: len(masks) > 15, "frames")
    frames = [by_stamp(messages) for messages in (rgb, depth, masks, infos)]
    common = set.intersection(*(set(frame) for frame in frames))
    assert len(common) > 10
    stamp = max(common)
    color, metres, mask, info = (frame[stamp] for frame in frames)
    assert color.header.frame_id == "camera_color_optical_frame"
    assert (color.encoding, metres.encoding, mask.encoding) == ("rgb8", "16UC1", "mono8")
    ids = np.frombuffer(mask.data, np.uint8).reshape(120, 160)
    assert set(np.unique(ids)) <= {0, 1, 255}
    on_object = ids == 1
    assert on_object.sum() > 200
    distance = decode_depth(metres)
    assert 0.2 < np.median(distance[on_object & (distance > 0)]) < 1.5
    assert 0.005 < (distance == 0).mean() < 0.4, "a stereo camera's depth has holes, and depth_noise is on"
    assert info.k[0] > 50
    assert (info.height, info.width) == (120, 160)

    answer = graph.trigger("camera_simulator/next")
    assert "milk, pose 1" in answer.message
    assert "ketchup, pose 0" in graph.trigger("camera_simulator/next").message
    graph.wait(lambda: labels[-1].data == "ketchup", "ketchup in view", 30)
    assert "" in [message.data for message in labels], "nothing may be labelled between two scenes"
    seen = len(masks)
    graph.wait(lambda: len(masks) > seen + 3, "frames")
    assert 2 in set(masks[-1].data)
    assert 1 not in set(masks[-1].data)

    results = graph.set(node, object="vase", scenario="kitchen", rate_hz=1000.0)
    assert not any(result.successful for result in results.values())
    assert "object must be one of milk, ketchup, butter, got 'vase'" in results["object"].reason
    results = graph.set(
        node, scenario="tabletop", seed=3, split="val", objects_in_view=3, depth_encoding="32FC1", depth_noise=False
    )
    assert all(result.successful for result in results.values()), results
    graph.wait(lambda: labels[-1].data == "butter, ketchup, milk", "a table with all three", 30)
    depth.clear()
    graph.wait(lambda: depth, "depth")
    assert depth[-1].encoding == "32FC1"
    graph.wait(lambda: graph.status(node)["values"]["scene"].startswith("tabletop-val-3"), "scene in diagnostics")
    code, seconds = node.stop()
    assert code == 0
    assert seconds < 2.0


def test_a_scene_that_cannot_be_shown_is_explained_and_the_node_stays(graph):
    options = {**SMALL, "objects": ["milk", "unicorn"], "object": "unicorn"}
    node = graph.start("camera_simulator", **options)
    graph.wait(lambda: "unicorn" in graph.status(node)["message"], "the reason", 60)
    assert graph.status(node)["level"] == 2
    assert graph.set(node, object="", objects=["milk"])["objects"].successful
    masks, _ = graph.record(Image, "ground_truth/mask", RELIABLE)
    graph.wait(lambda: masks, "frames after all", 60)
