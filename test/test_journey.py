# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: simulated robot → labelled samples → DEAL → student → masks on a topic, judged."""

import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest

from deal_ros.datasets.store import SampleStore
from deal_ros.students import read_bundle

pytestmark = [
    pytest.mark.ros,
    pytest.mark.gl,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("rclpy") is None or importlib.util.find_spec("mujoco") is None,
        reason="rclpy or mujoco is not installed: scripts/setup.sh installs both",
    ),
]
COMMAND = [sys.executable, "-m", "deal_ros.cli", "demo", "--quick", "--keep"]


def descendants_of_the_demo(folder):
    """Command lines of running processes that mention the demonstration's folder."""
    listing = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(folder) in line]


@pytest.mark.timeout(1500)
def test_a_robot_taught_by_names_alone_segments_tables_it_has_never_seen(tmp_path):
    folder = tmp_path / "demo"
    done = subprocess.run([*COMMAND, str(folder)], capture_output=True, text=True, timeout=1440)
    print(done.stdout)  # the figures, in the log of continuous integration
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((folder / "report.json").read_text())
    verdict = report["verdict"]
    assert verdict["offered"] >= 60
    assert verdict["masked"] >= 0.95 * verdict["offered"]
    blind = max(verdict["background_miou"], verdict["constant_miou"])
    assert verdict["miou"] > blind + 0.1, "the student must be clearly better than a blind segmenter"
    assert report["stages"]["cams"]["with DEAL"] > 0.25
    with SampleStore.open(folder / "store") as store:
        assert len(store) == report["collection"]["total"] >= 12 * 8
        assert all(store.labels(index) for index in range(len(store)))
        assert store[0].mask is None, "nobody may show the robot a mask"
    spec = read_bundle(next(folder.glob("models/run-*/seed-0/student/bundle")))[1]
    assert spec.classes == tuple(report["settings"]["objects"])
    for picture in report["pictures"]:
        assert (folder / picture).stat().st_size > 20_000
    assert "student mIoU, unseen tables, masks over DDS" in done.stdout
    assert descendants_of_the_demo(folder) == []


@pytest.mark.timeout(180)
def test_interrupting_the_demonstration_leaves_no_process_behind(tmp_path):
    folder = tmp_path / "demo"
    with subprocess.Popen([*COMMAND, str(folder)], stderr=subprocess.PIPE, text=True) as demo:
        deadline = time.monotonic() + 120
        while not (folder / "store" / "samples.jsonl").exists():
            assert demo.poll() is None, demo.stderr.read()
            assert time.monotonic() < deadline, "the collector did not make its store"
            time.sleep(0.2)
        assert descendants_of_the_demo(folder)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) != 0
    deadline = time.monotonic() + 10
    while (left := descendants_of_the_demo(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
