# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A test's side of the graph: nodes of ours in processes of their own, and a probe that talks to them over DDS."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from deal_ros.ros import convert

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
_numbers = itertools.count()


def join():
    """This process's context, in which one node stays for ever.

    With its last node a participant ends, and Fast DDS 3.2 was seen to hang in that over LARGE_DATA. So no test ends
    one: see also pytest_unconfigure in conftest.py.
    """
    context = rclpy.get_default_context()
    if not context.ok():
        rclpy.init()
        context.anchor = rclpy.create_node("anchor", namespace=f"/t{os.getpid()}", context=context)
    return context


class NodeProcess:
    """One of our nodes as a robot starts it."""

    def __init__(self, node, namespace, log, parameters, environment=None, files=()):
        self.node, self.name = node, f"{namespace}/{node}"
        self.log = log
        command = [sys.executable, "-m", f"deal_ros.ros.nodes.{node}", "--ros-args", "-r", f"__ns:={namespace}"]
        for file in files:
            command += ["--params-file", str(file)]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={json.dumps(value)}"]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )

    def text(self):
        return self.log.read_text(errors="replace")

    def stop(self, number=signal.SIGINT, timeout_s=10.0):
        """Send the signal to the node alone; returns (exit code, seconds it took)."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        return code, time.monotonic() - began

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Graph:
    """Use as a context manager; everything ends with it."""

    def __init__(self, tmp_path):
        self.namespace = f"/t{os.getpid()}_{next(_numbers)}"
        self._tmp_path = tmp_path
        self._processes = []
        self._clients = {}
        self.cameras = []
        self.diagnostics = {}
        self.context = join()
        self.node = rclpy.create_node("probe", namespace=self.namespace, context=self.context)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._spinning = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for camera in self.cameras:
            camera.stop()
        for process in self._processes:
            process.kill()
        self._spinning = False
        self._thread.join(5)
        self._executor.shutdown(timeout_sec=1)
        self.node.destroy_node()
        sweep_shared_memory()

    def start(self, node, namespace=None, wait="active", environment=None, files=(), **parameters):
        """Start a node with parameter files below the parameters, and wait for its lifecycle state."""
        log = self._tmp_path / f"{node}-{len(self._processes)}.log"
        process = NodeProcess(node, namespace or self.namespace, log, parameters, environment, files)
        self._processes.append(process)
        if wait:
            self.wait_state(process, wait)
        return process

    def wait_state(self, process, state, timeout_s=60.0):
        """Wait until the diagnostics of the node say ``state``."""

        def reached():
            assert process.process.poll() is None, f"code {process.process.returncode}: {process.text()}"
            status = self.diagnostics.get(process.name.lstrip("/"))
            return status is not None and status["values"].get("state") == state

        try:
            self.wait(reached, f"{process.name} {state}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{process.text()}") from error

    def wait(self, condition, what, timeout_s=20.0):
        """Wait for ``condition()`` to be true; returns what it returned."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
            time.sleep(0.02)
        return result

    def status(self, process):
        """Newest diagnostics of a node: level, message, values."""
        return self.diagnostics.get(process.name.lstrip("/"), {"level": 255, "message": "", "values": {}})

    def record(self, message_type, topic, qos=RELIABLE):
        """Subscribe; returns the list that grows, and the subscription."""
        messages = []
        subscription = self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages, subscription

    def latched(self, topic, message_type=String, qos=LATCHED):
        """A publisher."""
        return self.node.create_publisher(message_type, topic, qos)

    def json_of(self, topic):
        """Returns a function that gives the newest JSON of a String topic, an empty dict before the first."""
        newest = {}

        def remember(message):
            newest["value"] = json.loads(message.data)

        self.node.create_subscription(String, topic, remember, LATCHED)
        return lambda: newest.get("value", {})

    def request(self, service_type, name, request, timeout_s=20.0):
        """Call a service."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(service_type, name)
        assert client.wait_for_service(timeout_s), f"no service {name}"
        future = client.call_async(request)
        self.wait(future.done, f"answer of {name}", timeout_s)
        return future.result()

    def trigger(self, name):
        return self.request(Trigger, name, Trigger.Request())

    def enable(self, name, value):
        return self.request(SetBool, name, SetBool.Request(data=value))

    def set(self, process, **values):
        """Set parameters one by one; returns the results by name."""
        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        assert all(isinstance(message, ParameterMessage) for message in messages)
        answer = self.request(
            SetParameters, f"{process.name}/set_parameters", SetParameters.Request(parameters=messages)
        )
        return dict(zip(values, answer.results))

    def change_state(self, process, name):
        """Ask for a lifecycle transition; returns whether it succeeded."""
        number = getattr(Transition, f"TRANSITION_{name.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self.request(ChangeState, f"{process.name}/change_state", request, timeout_s=60.0).success

    def state(self, process):
        return self.request(GetState, f"{process.name}/get_state", GetState.Request()).current_state.label

    def _spin(self):
        while self._spinning:
            self._executor.spin_once(timeout_sec=0.05)

    def _on_diagnostics(self, message):
        for entry in message.status:
            values = {item.key: item.value for item in entry.values}
            status = {"level": entry.level[0], "message": entry.message, "values": values, "at": time.monotonic()}
            self.diagnostics[entry.name.removesuffix(": status")] = status


def sweep_shared_memory():
    """Give back what killed processes left in /dev/shm: Fast DDS holds a lock beside each segment that is in use."""
    for lock in Path("/dev/shm").glob("fastdds_*_el"):
        segment = lock.with_name(lock.name.removesuffix("_el"))
        with contextlib.suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            segment.unlink(missing_ok=True)
            lock.unlink()


class Camera:
    """Publishes synthetic frames from the test, in the background or one by one."""

    def __init__(self, graph, size=(48, 64), qos=RELIABLE, rgb_topic="rgb/image", depth_topic="depth/image"):
        self.graph, self.size = graph, size
        graph.cameras.append(self)
        self.rgb = graph.node.create_publisher(Image, rgb_topic, qos)
        self.depth = graph.node.create_publisher(Image, depth_topic, qos)
        self.info = graph.node.create_publisher(CameraInfo, "rgb/camera_info", qos)
        self.sent = 0
        self.stamps = []
        self._stop = threading.Event()
        self._thread = None

    def frame(self):
        """A picture that differs each time and a slanted depth, millimetres."""
        rng = np.random.default_rng(self.sent)
        height, width = self.size
        blocks = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        rgb = np.repeat(np.repeat(blocks, height // 6, axis=0), width // 8, axis=1)
        depth = np.linspace(500, 1500, height, dtype=np.uint16)[:, None].repeat(width, axis=1)
        return rgb, depth

    def send(self, stamp=None, offset_ns=0, rgb=None, depth=None, info_size=None, depth_frame="camera_optical"):
        """Publish one frame; returns its stamp in ns."""
        stamp = time.time_ns() if stamp is None else stamp
        picture, metres = self.frame()
        header = convert.make_header(stamp, "camera_optical")
        self.info.publish(convert.camera_info(np.diag([50.0, 50.0, 1.0]), info_size or self.size, header))
        self.rgb.publish(rgb if rgb is not None else convert.image_message(picture, "rgb8", header))
        late = convert.make_header(stamp + offset_ns, depth_frame)
        self.depth.publish(depth if depth is not None else convert.image_message(metres, "16UC1", late))
        self.sent += 1
        self.stamps.append(stamp)
        return stamp

    def run(self, rate_hz=20.0, **arguments):
        """Send frames in a thread until :meth:`stop`."""
        self._stop.clear()

        def loop():
            while not self._stop.wait(1.0 / rate_hz):
                self.send(**arguments)

        self._thread = threading.Thread(target=loop, daemon=True)
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def destroy(self):
        """Stop, and leave the graph as an unplugged camera does."""
        self.stop()
        for publisher in (self.rgb, self.depth, self.info):
            self.graph.node.destroy_publisher(publisher)


def counted(messages):
    """How often each stamp occurs among messages."""
    counts = defaultdict(int)
    for message in messages:
        counts[message.header.stamp.sec * 10**9 + message.header.stamp.nanosec] += 1
    return counts
