# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The trainer as a process: it runs the real pipeline in its smoke form, and the segmenter takes up what comes out."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from ros_graph import LATCHED, Camera
from sensor_msgs.msg import Image
from std_msgs.msg import String

from deal_ros.datasets.miniature import MINIATURES
from deal_ros.datasets.store import SampleStore

RECIPE = Path(__file__).parents[2] / "config" / "recipes" / "robot.yaml"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return MINIATURES["store"](tmp_path_factory.mktemp("data") / "store")


def start(graph, tmp_path, store, **parameters):
    options = {"store": str(store), "models_folder": str(tmp_path / "models"), "recipe": str(RECIPE)}
    node = graph.start("trainer", **{**options, "options": ["--smoke"], "min_samples_per_class": 2, **parameters})
    return node, graph.json_of("training/status")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_survives_a_killed_training_resumes_it_and_the_segmenter_swaps_to_the_bundle(graph, tmp_path, store):
    trainer, status = start(graph, tmp_path, store)
    segmenter = graph.start("segmenter", wait="", device="cpu", threads=1, models_folder=str(tmp_path / "models"))
    announced, _ = graph.record(String, "model", LATCHED)
    graph.wait(lambda: status().get("state") == "idle", "the first status")

    assert graph.trigger("trainer/start").success
    assert not graph.trigger("trainer/start").success
    graph.wait(lambda: status().get("stage") == "train-cam", "training", 150)
    (child,) = children(trainer.process.pid)
    assert os.getpriority(os.PRIO_PROCESS, child) > os.getpriority(os.PRIO_PROCESS, 0)
    os.killpg(child, signal.SIGKILL)
    graph.wait(lambda: status()["state"] == "failed", "the crash in the status")
    assert "killed by signal 9" in status()["message"]
    graph.wait(lambda: graph.status(trainer)["level"] == 2, "and in the diagnostics")
    assert trainer.process.poll() is None
    run = status()["run"]

    answer = graph.trigger("trainer/start")
    assert answer.message.startswith("resumed run-"), answer.message
    graph.wait(lambda: status()["state"] == "running", "the second start")
    stages = []
    graph.wait(lambda: stages.append(status()["stage"]) or status()["state"] in ("done", "failed"), "the end", 240)
    assert status()["state"] == "done", status()
    assert status()["run"] == run
    assert {"train-cam", "train-student"} <= set(stages)
    assert status()["result"]["map"] >= 0
    graph.wait(lambda: announced, "the announcement")
    assert announced[-1].data == status()["bundle"]

    graph.wait_state(segmenter, "active")
    masks, _ = graph.record(Image, "segmentation/mask")
    camera = Camera(graph, size=(96, 128)).run(rate_hz=5)
    graph.wait(lambda: masks, "masks of the trained model", 60)
    classes = SampleStore.open(store).classes
    assert set(np.unique(np.frombuffer(masks[-1].data, np.uint8))) <= {*range(len(classes) + 1), 255}
    camera.stop()


def test_refuses_to_start_and_says_what_is_missing(graph, tmp_path, store):
    node, status = start(graph, tmp_path, store, min_samples_per_class=1000)
    answer = graph.trigger("trainer/start")
    assert not answer.success
    assert "at least 1000 per class are needed; missing" in answer.message
    assert " more" in answer.message
    assert graph.set(node, store=str(tmp_path / "nowhere"))["store"].successful
    assert "not a sample store" in graph.trigger("trainer/start").message
    assert graph.set(node, recipe="")["recipe"].successful
    assert "set the recipe parameter" in graph.trigger("trainer/start").message
    assert graph.trigger("trainer/cancel").message == "no training is running"
    assert graph.set(node, niceness=50)["niceness"].successful is False
    assert "must be among --losses" in graph.set(node, options=["--out", "/tmp/elsewhere"])["options"].reason
    values = graph.status(node)["values"]
    assert {"training", "training stage", "progress", "eta s", "bundle"} <= set(values)
    graph.wait(lambda: status().get("state") == "idle", "the first status")


def test_cancel_and_shutdown_leave_no_process_behind(graph, tmp_path, store):
    node, status = start(graph, tmp_path, store)
    assert graph.trigger("trainer/start").success
    graph.wait(lambda: children(node.process.pid), "the training process")
    assert graph.trigger("trainer/cancel").success
    graph.wait(lambda: status()["state"] == "cancelled", "the cancellation", 40)
    assert graph.trigger("trainer/start").message.startswith("resumed")
    (child,) = graph.wait(lambda: children(node.process.pid), "the training process")
    time.sleep(1.0)
    code, seconds = node.stop()
    assert (code, seconds < 2.0) == (0, True), seconds
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_training_halts_while_the_segmenter_is_slower_than_wanted(graph, tmp_path, store):
    node, status = start(graph, tmp_path, store, min_inference_rate_hz=8.0)
    diagnostics = graph.node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def say(masks):
        name = f"{graph.namespace.strip('/')}/segmenter: status"
        values = [KeyValue(key="masks per second", value=masks), KeyValue(key="frames per second", value="10.0")]
        diagnostics.publish(DiagnosticArray(status=[DiagnosticStatus(name=name, values=values)]))

    def until(state, masks):
        def reached():
            say(masks)
            time.sleep(0.2)
            return status()["state"] == state

        graph.wait(reached, state)

    assert graph.trigger("trainer/start").success
    until("paused", "4.1")
    assert status()["message"] == "paused: 4.1 masks per second, min_inference_rate_hz is 8.0"
    (child,) = children(node.process.pid)
    assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    until("running", "9.5")
    assert graph.trigger("trainer/cancel").success
