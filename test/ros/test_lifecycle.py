# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Every node ends in time however it is told to, and stays up when it is asked for what it cannot do."""

import signal
import time

import pytest
from ros_graph import Camera
from std_msgs.msg import String

from deal_ros.datasets.store import SampleStore
from deal_ros.ros.lifecycle import PorchNode
from deal_ros.ros.tables import TRAINER

QUICK_S = 2.0


def options(node, folder):
    store = str(folder / "store")
    return {
        "sample_collector": {"store": store, "classes": ["milk"]},
        "trainer": {"store": store, "models_folder": str(folder / "models")},
        "segmenter": {"models_folder": str(folder / "models"), "device": "cpu"},
    }[node]


@pytest.mark.parametrize(("node", "number"), [("sample_collector", signal.SIGTERM), ("trainer", signal.SIGINT)])
def test_a_signal_ends_the_node_in_time(graph, tmp_path, node, number):
    process = graph.start(node, **options(node, tmp_path))
    code, seconds = process.stop(number)
    assert code == 0, process.text()
    assert seconds < QUICK_S
    assert "clean up: done" in process.text()


def test_a_signal_in_the_middle_of_capture_closes_the_store(graph, tmp_path):
    process = graph.start("sample_collector", min_interval_s=0.0, **options("sample_collector", tmp_path))
    graph.latched("labels").publish(String(data="milk"))
    status = graph.json_of("collection/status")
    camera = Camera(graph, size=(240, 320)).run(rate_hz=30)
    graph.wait(lambda: status().get("total", 0) > 3, "samples")
    code, seconds = process.stop(signal.SIGTERM)
    camera.stop()
    assert (code, seconds < QUICK_S) == (0, True), seconds
    with SampleStore.open(tmp_path / "store", writable=True) as store:  # the lock is free
        assert len(store) >= status()["total"]


def test_a_signal_while_the_node_still_starts_ends_it_in_time(graph, tmp_path):
    process = graph.start("segmenter", wait="", **options("segmenter", tmp_path))
    graph.wait(lambda: "no model yet" in process.text() or time.sleep(0.2), "a start half done", 60)
    _, seconds = process.stop(signal.SIGINT)
    assert seconds < QUICK_S


def test_a_lifecycle_shutdown_ends_the_process_and_a_wrong_transition_does_not(graph, tmp_path):
    process = graph.start("sample_collector", **options("sample_collector", tmp_path))
    assert not graph.change_state(process, "configure")
    assert not graph.change_state(process, "cleanup")
    assert graph.state(process) == "active"
    began = time.monotonic()
    assert graph.change_state(process, "active_shutdown")
    assert process.process.wait(10) == 0
    assert time.monotonic() - began < QUICK_S


def test_without_autostart_a_node_waits_for_its_manager(graph, tmp_path):
    process = graph.start("trainer", wait="unconfigured", autostart=False, **options("trainer", tmp_path))
    assert graph.trigger("trainer/start").message == "the trainer is unconfigured; configure and activate it first"
    assert graph.change_state(process, "configure")
    assert graph.state(process) == "inactive"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"slop_ms": -1.0}, "slop_ms"),
        ({"slop_ms": 20}, "must be a number with a point"),
        ({"rgb_transport": "smoke"}, "must be one of raw, compressed, got 'smoke'"),
    ],
)
def test_a_parameter_that_cannot_be_used_ends_the_start_with_one_line(graph, tmp_path, parameters, said):
    process = graph.start("sample_collector", wait="", **options("sample_collector", tmp_path), **parameters)
    assert process.process.wait(30) == 2
    assert said in process.text()
    assert "Traceback" not in process.text()


def test_a_diagnosis_that_fails_does_not_silence_the_node(graph):
    class Broken(PorchNode):
        def diagnose(self, status):
            raise OSError("the disk is gone")

    node = Broken("broken", [row for row in TRAINER if row.name in ("autostart", "diagnostics_period_s")])
    graph.wait(lambda: node._diagnose() or "broken" in graph.diagnostics, "diagnostics")
    assert graph.diagnostics["broken"]["level"] == 2
    assert "the disk is gone" in graph.diagnostics["broken"]["message"]
    node.destroy_node()


def test_a_misspelt_parameter_is_pointed_out(graph, tmp_path):
    process = graph.start("sample_collector", **options("sample_collector", tmp_path), min_intervall_s=0.1)
    assert (
        "'min_intervall_s' is not known to this node and was ignored; did you mean 'min_interval_s'?" in process.text()
    )
