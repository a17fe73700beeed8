# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One node under a camera's frames, over real DDS: what segmenter_node.py and straightforward_node.py measure with.

A session is a process of its own, because transports are chosen by environment variables before ROS starts. It is the
camera and the listener; the node under test is another process. Latency is from the stamp, taken just before the frame
is published, to the arrival of its mask. Frames are counted by their stamps after the last mask has had time to come.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OURS = "fastdds.xml"
"""The transports of config/fastdds.xml."""
SETTLE_S, QUIET_S = 1.0, 0.8


@dataclass(frozen=True)
class Case:
    """One way of sending frames.

    Args:
        name: of the case.
        seconds: measured, after one second to settle.
        size: height and width of the images.
        rate_hz: of the camera.
        reliability: ``reliable`` or ``best_effort``, what the camera offers.
        compressed: JPEG instead of raw pixels.
        listen: outputs that somebody subscribes to beside the mask: ``overlay``, ``points``.
        busy: processes that burn a core meanwhile.
    """

    name: str
    seconds: float
    size: tuple[int, int] = (480, 640)
    rate_hz: float = 30.0
    reliability: str = "reliable"
    compressed: bool = False
    listen: tuple[str, ...] = ()
    busy: int = 0


def run_session(command: Sequence[str], cases: Sequence[Case], transports: str) -> list[dict[str, Any]]:
    """Start the node and send it every case.

    Args:
        command: the node's, without ``--ros-args``; it reads ``rgb/image`` and writes ``segmentation/mask``.
        cases: in order; the node stays the same.
        transports: :data:`OURS`, or a mode of Fast DDS (``LARGE_DATA``, ``DEFAULT``); on both sides.

    Returns:
        Figures per case, see :func:`_figures`.

    Raises:
        ModuleNotFoundError: without rclpy.
        RuntimeError: if the node or the session ended early, with the end of what it said.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise ModuleNotFoundError("rclpy is not installed (scripts/setup.sh installs it)", name="rclpy")
    with tempfile.TemporaryDirectory(prefix="deal_ros_session_") as folder:
        plan = Path(folder) / "plan.json"
        content = {"command": list(command), "cases": [asdict(case) for case in cases], "folder": folder}
        plan.write_text(json.dumps(content), encoding="utf-8")
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
        environment = {**os.environ, "PYTHONPATH": path}
        for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS"):
            environment.pop(name, None)
        if transports == OURS:
            environment["FASTDDS_DEFAULT_PROFILES_FILE"] = str(ROOT / "config" / OURS)
        else:
            environment["FASTDDS_BUILTIN_TRANSPORTS"] = transports
        environment.setdefault("ROS_DOMAIN_ID", str(2 + os.getpid() % 96))
        environment.pop("ROS_AUTOMATIC_DISCOVERY_RANGE", None)  # LOCALHOST would switch LARGE_DATA off
        done = subprocess.run(
            [sys.executable, __file__, str(plan)], env=environment, capture_output=True, text=True, check=False
        )
        results = Path(folder) / "results.json"
        if done.returncode or not results.exists():
            raise RuntimeError(f"session ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
        return list(json.loads(results.read_text(encoding="utf-8")))


class Pace:
    """Calls something at a rate, on time, from a thread of its own.

    Args:
        rate_hz: calls per second.
        call: what is called.
    """

    def __init__(self, rate_hz: float, call: Callable[[], None]) -> None:
        self._period_s, self._call = 1 / rate_hz, call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; nothing is called any more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            due += self._period_s
            time.sleep(max(0.0, due - time.monotonic()))
            self._call()


class _Camera:
    """Publishes the same picture with new stamps, on time."""

    def __init__(self, node: Any, case: Case) -> None:
        import cv2
        import numpy as np
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        from deal_ros.ros import convert

        self._node, self._header = node, convert.make_header
        height, width = case.size
        y, x = np.mgrid[:height, :width].astype(np.float32)
        waves = np.stack([np.sin(x / (9 + k) + y / (13 - k)) for k in range(3)], 2)
        picture = np.clip(120 + 60 * waves + np.random.default_rng(0).normal(0, 4, waves.shape), 0, 255)
        rgb, header = picture.astype(np.uint8), convert.make_header(0, "camera")
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[case.reliability.upper()])
        info = convert.camera_info(
            np.array([[600.0, 0, width / 2], [0, 600, height / 2], [0, 0, 1]]), case.size, header
        )
        if case.compressed:
            jpeg = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
            image = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=jpeg)
            publisher = node.create_publisher(CompressedImage, "rgb/image/compressed", qos)
        else:
            image = convert.image_message(rgb, "rgb8", header)
            publisher = node.create_publisher(Image, "rgb/image", qos)
        self._streams = [(node.create_publisher(CameraInfo, "rgb/camera_info", qos), info)]
        if "points" in case.listen:
            depth = convert.image_message(np.full(case.size, 1000, np.uint16), "16UC1", header)
            self._streams.append((node.create_publisher(Image, "depth/image", qos), depth))
        self._streams.append((publisher, image))
        self.stamps: list[float] = []
        self.stop = Pace(case.rate_hz, self._publish).stop

    def destroy(self) -> None:
        for publisher, _ in self._streams:
            self._node.destroy_publisher(publisher)

    def _publish(self) -> None:
        header = self._header(time.time_ns(), "camera")
        self.stamps.append(_seconds(header.stamp))
        for publisher, message in self._streams:
            message.header = header
            publisher.publish(message)


def _seconds(stamp: Any) -> float:
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def _figures(sent: list[float], masks: list[tuple[float, float]], seconds: float) -> dict[str, Any]:
    """What became of the frames sent within the measured time.

    Args:
        sent: their stamps, seconds.
        masks: (stamp, arrival), of whatever frame.
        seconds: measured.
    """
    wanted = set(sent)
    arrived = {stamp: arrival for stamp, arrival in masks if stamp in wanted}
    figures: dict[str, Any] = {"sent": len(sent), "masks": len(arrived), "masks_hz": len(arrived) / seconds}
    figures["dropped_percent"] = 100 * (1 - len(arrived) / len(sent)) if sent else None
    latencies = [1e3 * (arrival - stamp) for stamp, arrival in sorted(arrived.items())]
    if len(latencies) >= 10:
        percentiles = statistics.quantiles(latencies, n=100)
        figures.update(p50_ms=percentiles[49], p95_ms=percentiles[94], p99_ms=percentiles[98])
        third = len(latencies) // 3
        figures["first_third_ms"] = statistics.median(latencies[:third])
        figures["last_third_ms"] = statistics.median(latencies[-third:])
    return figures


class _Session:
    """The probe node, the node under test and what arrives."""

    def __init__(self, command: list[str], log: Path) -> None:
        import psutil
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        namespace = f"/s{os.getpid()}"
        rclpy.init()
        self.node = rclpy.create_node("probe", namespace=namespace)
        self.masks: list[tuple[float, float]] = []
        self.node.create_subscription(Image, "segmentation/mask", self._on_mask, QoSProfile(depth=30))
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        threading.Thread(target=executor.spin, daemon=True).start()
        self._log = log
        with log.open("wb") as output:
            self.tested = subprocess.Popen(
                [*command, "--ros-args", "-r", f"__ns:={namespace}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._resources = psutil.Process(self.tested.pid)

    def measure(self, case: Case, first: bool) -> dict[str, Any]:
        """Send one case."""
        counts = dict.fromkeys(case.listen, 0)
        listeners = [self._listen(name, counts) for name in case.listen]
        burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(case.busy)]
        camera = _Camera(self.node, case)
        try:
            self.masks.clear()
            self._wait_for_mask(120.0 if first else 5.0)
            time.sleep(SETTLE_S)
            began, sent, used, heard = time.monotonic(), len(camera.stamps), self._cpu_s(), dict(counts)
            time.sleep(case.seconds)
            stamps, seconds = camera.stamps[sent:], time.monotonic() - began
            cpu = 100 * (self._cpu_s() - used) / seconds
            heard = {name: (counts[name] - heard[name]) / seconds for name in counts}
            rss = self._resources.memory_info().rss / 2**20
        finally:
            camera.stop()
            for burner in burners:
                burner.kill()
                burner.wait()
        while self.masks and time.time() - self.masks[-1][1] < QUIET_S:
            time.sleep(0.05)
        camera.destroy()
        for listener in listeners:
            self.node.destroy_subscription(listener)
        resources = {"cpu_percent": cpu, "rss_mib": rss, **{f"{name}_hz": value for name, value in heard.items()}}
        return {"case": case.name, **_figures(stamps, list(self.masks), seconds), **resources}

    def close(self) -> None:
        self.tested.terminate()
        try:
            self.tested.wait(10)
        except subprocess.TimeoutExpired:
            self.tested.kill()

    def _wait_for_mask(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.masks and time.monotonic() < deadline:
            if self.tested.poll() is not None:
                said = self._log.read_text(errors="replace")[-1000:]
                raise RuntimeError(f"the node ended with {self.tested.returncode}: {said}")
            time.sleep(0.02)

    def _listen(self, name: str, counts: dict[str, int]) -> Any:
        from rclpy.qos import QoSProfile, qos_profile_sensor_data
        from sensor_msgs.msg import Image, PointCloud2

        def count(_: Any) -> None:
            counts[name] += 1

        kind, qos = (PointCloud2, qos_profile_sensor_data) if name == "points" else (Image, QoSProfile(depth=5))
        # raw: taking megabytes apart in Python would delay the camera, which lives in this process
        return self.node.create_subscription(kind, f"segmentation/{name}", count, qos, raw=True)

    def _cpu_s(self) -> float:
        times = self._resources.cpu_times()
        return float(times.user + times.system)

    def _on_mask(self, message: Any) -> None:
        self.masks.append((_seconds(message.header.stamp), time.time()))


def _main(plan_file: str) -> None:
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    cases = [Case(**{**case, "size": tuple(case["size"]), "listen": tuple(case["listen"])}) for case in plan["cases"]]
    session = _Session(plan["command"], Path(plan["folder"]) / "node.log")
    try:
        figures = [session.measure(case, first=number == 0) for number, case in enumerate(cases)]
    finally:
        session.close()
    (Path(plan["folder"]) / "results.json").write_text(json.dumps(figures), encoding="utf-8")
    os._exit(0)  # nothing is left to be said, and a spinning thread need not be waited for


if __name__ == "__main__":
    _main(sys.argv[1])
