# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Large images between processes over config/fastdds.xml, also where one side has Fast DDS' default transports."""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from ros_graph import BEST_EFFORT
from sensor_msgs.msg import Image

from deal_ros.ros.transports import large_image_environment

FRAMES, SIZE = 45, (720, 1280)
# The other side: publishes FRAMES best-effort images of 2.8 MB at 30 Hz, or takes as many and says how many were sent.
CHILD = f"""
import array, os, sys, time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("other", namespace=sys.argv[2])
qos = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
if sys.argv[1] == "publish":
    publisher = node.create_publisher(Image, "images", qos)
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    time.sleep(0.5)
    image = Image(height={SIZE[0]}, width={SIZE[1]}, step=3 * {SIZE[1]}, encoding="rgb8")
    image.data = array.array("B", bytes(3 * {SIZE[0] * SIZE[1]}))
    for number in range({FRAMES}):
        image.header.stamp.sec = number
        publisher.publish(image)
        time.sleep(1 / 30)
    time.sleep(1)
else:
    seen = []
    node.create_subscription(Image, "images", lambda image: seen.append(image.header.stamp.sec), qos)
    print("ready", flush=True)
    while len(seen) < {FRAMES}:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(1 + seen[-1] - seen[0], flush=True)
os._exit(0)
"""


@pytest.fixture
def other(graph):
    """Start the other side, with our transports or the default ones."""
    started = []

    def start(role, ours):
        environment = dict(os.environ)
        if not ours:
            for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
                environment.pop(name, None)
        command = [sys.executable, "-c", CHILD, role, graph.namespace]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()


def test_large_best_effort_images_arrive(graph, other):
    seen, _ = graph.record(Image, "images", BEST_EFFORT)
    publisher = other("publish", ours=True)
    graph.wait(lambda: publisher.poll() is not None, "end of the publisher", 60)
    assert len(seen) >= 0.95 * FRAMES


@pytest.mark.parametrize("ours", [True, False])
def test_subscribers_with_default_transports_get_them_too(graph, other, ours):
    publisher = graph.latched("images", Image, BEST_EFFORT)
    subscriber = other("take", ours)
    assert subscriber.stdout.readline() == "ready\n"
    graph.wait(publisher.get_subscription_count, "the subscriber")
    image = Image(height=SIZE[0], width=SIZE[1], step=3 * SIZE[1], encoding="rgb8")
    image.data.frombytes(bytes(3 * SIZE[0] * SIZE[1]))
    sent = iter(range(10**6))

    def ended():
        image.header.stamp.sec = next(sent)
        publisher.publish(image)
        time.sleep(1 / 40)
        return subscriber.poll() is not None

    graph.wait(ended, "end of the subscriber", 60)
    assert int(subscriber.stdout.readline()) <= FRAMES / 0.9


@pytest.mark.no_ros
@pytest.mark.parametrize(("distro", "name"), [("humble", "FASTRTPS"), ("jazzy", "FASTRTPS"), ("kilted", "FASTDDS")])
def test_processes_get_our_transports_unless_the_user_has_chosen(monkeypatch, distro, name):
    for variable in list(os.environ):
        if variable.startswith(("FASTDDS_", "FASTRTPS_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("ROS_DISTRO", distro)
    ((variable, path),) = large_image_environment().items()
    assert variable == f"{name}_DEFAULT_PROFILES_FILE"
    participant = next(e for e in ElementTree.parse(path).iter() if e.tag.endswith("}participant"))
    assert participant.get("is_default_profile") == "true"
    assert Path(path).name == "fastdds.xml"
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    assert large_image_environment() == {}
