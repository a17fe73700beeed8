# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The sample collector as a process, over real DDS."""

import time

import numpy as np
import pytest
from ros_graph import BEST_EFFORT, RELIABLE, Camera
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from deal_ros.datasets.store import SampleStore
from deal_ros.ros import convert

CLASSES = ["milk", "ketchup"]
EAGER = {"min_interval_s": 0.0, "min_view_change": 0.0, "min_sharpness": 0.0, "min_depth": 0.0}


def start(graph, tmp_path, **parameters):
    options = {"store": str(tmp_path / "store"), "classes": CLASSES, **EAGER, **parameters}
    return graph.start("sample_collector", **options), graph.json_of("collection/status")


def settled(status):
    """The number of samples once the frame that was at work is stored and reported."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 2.0:
        if status()["total"] != seen:
            seen, since = status()["total"], time.monotonic()
        time.sleep(0.05)
    return seen


def test_labelled_frames_are_stored_whatever_the_publisher_offers_and_when_it_changes(graph, tmp_path):
    node, status = start(graph, tmp_path)
    labels = graph.latched("labels")
    labels.publish(String(data="milk"))
    camera = Camera(graph, qos=BEST_EFFORT).run()
    graph.wait(lambda: status().get("counts", {}).get("milk", 0) >= 3, "three samples from a best-effort camera")
    camera.destroy()
    before = status()["total"]
    camera = Camera(graph, qos=RELIABLE).run()
    graph.wait(lambda: status()["total"] >= before + 3, "three samples from the reliable camera that replaced it")
    graph.wait(lambda: "subscribing again as reliable" in node.text(), "subscription follows")
    camera.stop()
    labels.publish(String(data=""))
    graph.wait(lambda: status()["state"] == "no_labels", "gathering stops with the labels")
    total = settled(status)
    code, _ = node.stop()
    assert code == 0
    with SampleStore.open(tmp_path / "store") as store:
        assert len(store) == total
        sample = store[0]
        assert sample.labels == {"milk"}
        assert sample.rgb.shape == (48, 64, 3)
        assert sample.depth_m[0, 0] == pytest.approx(0.5)
        assert sample.frame_id == "camera_optical"
        assert sample.camera_matrix is not None
        assert sample.camera_matrix[0, 0] == 50.0


def test_frames_of_no_class_are_stored_when_somebody_says_so(graph, tmp_path):
    node, status = start(graph, tmp_path)
    camera = Camera(graph).run()
    labels = graph.latched("labels")
    labels.publish(String(data="nothing"))
    graph.wait(lambda: status().get("state") == "gathering" and status()["total"] >= 2, "samples of no class")
    assert status()["labels"] == []
    assert status()["sequence"].endswith("-nothing")
    assert "in view: nothing" in node.text()
    camera.stop()
    assert node.stop()[0] == 0
    with SampleStore.open(tmp_path / "store") as store:
        assert store.labels(0) == frozenset()
        assert set(store.counts().values()) == {0}


def test_labels_of_a_publisher_that_latches_nothing_are_heard(graph, tmp_path):
    """`ros2 topic pub`, Foxglove and most applications publish with the default QoS, which a latched reader refuses."""
    node, status = start(graph, tmp_path)
    before = graph.latched("labels")
    before.publish(String(data="ketchup"))
    graph.wait(lambda: status().get("labels") == ["ketchup"], "latched labels")
    plain = graph.latched("labels", qos=10)
    graph.wait(lambda: plain.get_subscription_count() > 0, "a match")
    plain.publish(String(data="milk"))
    graph.wait(lambda: status()["labels"] == ["milk"], "labels")
    time.sleep(1.2)
    assert status()["labels"] == ["milk"], "what was latched before has not come again"
    before.publish(String(data="milk, ketchup"))
    graph.wait(lambda: status()["labels"] == ["ketchup", "milk"], "both are heard")


def test_bad_input_is_named_and_the_node_stays_up(graph, tmp_path):
    node, status = start(graph, tmp_path)
    labels = graph.latched("labels")
    camera = Camera(graph)

    labels.publish(String(data="vase"))
    graph.wait(lambda: "unknown class vase; known: milk, ketchup" in status().get("message", ""), "unknown class")
    labels.publish(String(data="milk,,ketchup"))
    graph.wait(lambda: "empty name between commas" in status()["message"], "empty name")
    labels.publish(String(data="../../etc/passwd"))
    graph.wait(lambda: "class name must be" in status()["message"], "path")
    labels.publish(String(data="milk"))
    graph.wait(lambda: status()["state"] == "gathering", "labels")

    header = convert.make_header(time.time_ns(), "camera")
    wrong = convert.image_message(np.zeros((48, 64), np.uint8), "mono8", header)
    camera.run(depth=None)
    graph.wait(lambda: status()["total"] > 0, "good frames")
    camera.stop()
    stored = settled(status)

    stamp = time.time_ns()
    wrong.header = convert.make_header(stamp, "camera")
    camera.send(stamp=stamp, depth=wrong)
    graph.wait(
        lambda: "depth encoding must be 16UC1 (millimetres) or 32FC1 (metres), got 'mono8'" in node.text(), "mono8"
    )

    def small(stamp):
        return convert.image_message(np.ones((24, 32), np.uint16), "16UC1", convert.make_header(stamp, "camera"))

    time.sleep(2.1)  # the log is throttled
    stamp = time.time_ns()
    camera.send(stamp=stamp, depth=small(stamp))
    graph.wait(lambda: "register depth to colour" in node.text(), "differing sizes")
    time.sleep(2.1)
    stamp = time.time_ns()
    truncated = small(stamp)
    truncated.height, truncated.width, truncated.step = 48, 64, 128
    camera.send(stamp=stamp, depth=truncated)
    graph.wait(lambda: "data must have 6144 bytes" in node.text(), "sizes that contradict the data")
    huge = small(stamp)
    huge.height = huge.width = 2**31
    camera.send(stamp=time.time_ns(), depth=huge)
    graph.wait(lambda: "at most 16 megapixels" in node.text(), "an absurd size")

    graph.wait(lambda: status()["skipped"].get("bad_image", 0) >= 3, "bad images are counted")
    assert status()["total"] == stored
    camera.run()
    graph.wait(lambda: status()["total"] > stored, "the node goes on")


def test_frames_that_are_all_refused_are_no_silence(graph, tmp_path):
    """Depth that is not registered, in every frame: status and diagnostics must not say that all is well."""
    node, status = start(graph, tmp_path)
    graph.latched("labels").publish(String(data="milk"))
    camera = Camera(graph)

    def unregistered(stamp):
        small = convert.image_message(
            np.ones((24, 32), np.uint16), "16UC1", convert.make_header(stamp, "camera_optical")
        )
        camera.send(stamp=stamp, depth=small)

    def refused():
        unregistered(time.time_ns())
        time.sleep(0.05)
        return "register depth to colour" in status().get("message", "")

    graph.wait(refused, "the reason in the status")
    graph.wait(lambda: "register depth to colour" in graph.status(node)["message"], "and in the diagnostics")
    assert graph.status(node)["level"] == 1
    camera.run()
    graph.wait(lambda: status()["total"] > 0 and not status()["message"], "a good frame mends it")
    graph.wait(lambda: graph.status(node)["message"] == "fine", "in the diagnostics too")


def test_camera_info_of_another_size_and_depth_of_another_frame_are_noticed(graph, tmp_path):
    node, status = start(graph, tmp_path)
    graph.latched("labels").publish(String(data="milk"))
    camera = Camera(graph).run(info_size=(480, 640), depth_frame="camera_depth")
    graph.wait(lambda: status().get("total", 0) >= 2, "samples, with a matrix for their size")
    graph.wait(lambda: "colour is in frame 'camera_optical', depth in 'camera_depth'" in status()["message"], "doubt")
    graph.wait(lambda: "is depth registered" in graph.status(node)["message"], "in the diagnostics too")
    assert node.text().count("is depth registered") == 1
    camera.stop()
    first = settled(status)
    camera.run(info_size=(400, 640))
    graph.wait(lambda: "is of 640 x 400 pixels, colour has 64 x 48" in status()["message"], "a crop")
    graph.wait(lambda: status()["total"] > first, "samples without a matrix")
    assert "is depth registered" not in status()["message"]
    camera.stop()
    settled(status)
    with SampleStore.open(tmp_path / "store") as store:
        assert store[0].camera_matrix[0, 0] == pytest.approx(5.0)
        assert store[len(store) - 1].camera_matrix is None


def test_a_store_that_is_taken_away_is_said_and_may_come_back(graph, tmp_path):
    """As when its disk is unmounted."""
    node, status = start(graph, tmp_path)
    graph.latched("labels").publish(String(data="milk"))
    camera = Camera(graph).run(rate_hz=5)
    graph.wait(lambda: status().get("total", 0) >= 1, "a sample")
    (tmp_path / "store").rename(tmp_path / "away")
    graph.wait(lambda: "the store is gone" in status()["message"], "the reason in the status")
    assert status()["state"] == "write_failed"
    graph.wait(lambda: graph.status(node)["level"] == 2, "an error in the diagnostics")
    assert "the store is gone" in graph.status(node)["message"]
    before = status()["total"]
    (tmp_path / "away").rename(tmp_path / "store")
    graph.wait(lambda: status()["total"] > before and not status()["message"], "it goes on")
    camera.stop()


def test_capture_undo_and_enable_answer_with_what_a_person_can_act_on(graph, tmp_path):
    node, status = start(graph, tmp_path, automatic=False)
    graph.wait(lambda: status(), "first status")
    answer = graph.trigger("sample_collector/capture")
    assert not answer.success
    assert "no pair of colour and depth" in answer.message

    camera = Camera(graph).run()
    graph.wait(lambda: status()["pair_rate_hz"] > 5, "pairs")
    answer = graph.trigger("sample_collector/capture")
    assert not answer.success
    assert answer.message == "nobody says what is in view: publish class names on the labels topic first"
    labels = graph.latched("labels")
    labels.publish(String(data="milk, ketchup"))
    graph.wait(lambda: status()["labels"] == ["ketchup", "milk"], "labels")

    names = [graph.trigger("sample_collector/capture") for _ in range(3)]
    assert all(answer.success for answer in names), names
    assert status()["counts"] == {"milk": 3, "ketchup": 3}
    assert graph.set(node, undo_count=2)["undo_count"].successful
    assert graph.trigger("sample_collector/undo").message.count("-") == 2
    graph.wait(lambda: status()["total"] == 1, "two are gone")

    assert graph.set(node, automatic=True, quota_per_class=4)["automatic"].successful
    graph.wait(lambda: status()["state"] == "quota" and status()["total"] >= 4, "the quota")
    assert graph.set(node, quota_per_class=0)["quota_per_class"].successful
    assert graph.enable("sample_collector/enable", False).message == "gathering stopped"
    assert status()["state"] == "disabled"
    assert graph.enable("sample_collector/enable", True).success
    assert graph.set(node, min_disk_free_gb=90000.0)["min_disk_free_gb"].successful
    graph.wait(lambda: status()["state"] == "disk_floor", "the disk floor")
    graph.wait(lambda: graph.status(node)["level"] == 2, "an error in diagnostics")
    keys = {"pairs per second", "rgb dropped", "depth dropped", "stamp offset p95 ms", "samples per class"}
    assert keys | {"disk free GB", "skipped", "clock jumps"} <= set(graph.status(node)["values"])
    camera.stop()


def test_what_a_disabled_collector_captures_is_labelled_and_fits_the_disk(graph, tmp_path):
    node, status = start(graph, tmp_path)
    Camera(graph).run()
    graph.wait(lambda: status().get("pair_rate_hz", 0) > 5, "pairs")
    assert graph.enable("sample_collector/enable", False).success
    answer = graph.trigger("sample_collector/capture")
    assert not answer.success, "an image without labels would count as one of no class at all"
    assert "nobody says what is in view" in answer.message
    graph.latched("labels").publish(String(data="milk"))
    graph.wait(lambda: status()["labels"] == ["milk"], "labels")
    assert graph.set(node, min_disk_free_gb=1e5)["min_disk_free_gb"].successful
    answer = graph.trigger("sample_collector/capture")
    assert not answer.success
    assert "GB are free" in answer.message
    assert graph.set(node, min_disk_free_gb=0.0)["min_disk_free_gb"].successful
    assert graph.trigger("sample_collector/capture").success


def test_labels_said_again_are_the_same_recording_and_do_not_outlive_the_subscription(graph, tmp_path):
    node, status = start(graph, tmp_path)
    plain = graph.latched("labels", qos=10)
    graph.wait(lambda: plain.get_subscription_count() > 0, "a match")
    plain.publish(String(data="milk, ketchup"))
    graph.wait(lambda: status().get("labels") == ["ketchup", "milk"], "labels")
    sequence = status()["sequence"]
    time.sleep(1.1)  # a name of its own would differ by its time
    plain.publish(String(data="ketchup,milk"))
    time.sleep(0.5)
    assert status()["sequence"] == sequence
    plain.publish(String(data="milk"))
    graph.wait(lambda: status()["sequence"] != sequence, "other labels, another recording")
    graph.change_state(node, "deactivate")
    graph.change_state(node, "activate")
    graph.wait(lambda: status()["labels"] is None and status()["state"] == "no_labels", "nobody says what is in view")


def test_silence_is_explained_with_topics_rates_offset_and_remedy(graph, tmp_path):
    node, status = start(graph, tmp_path, input_timeout_s=1.5)
    graph.latched("labels").publish(String(data="milk"))
    graph.wait(lambda: "no images" in status().get("message", ""), "nothing at all")
    assert f"{graph.namespace}/rgb/image: 0.0 Hz, no publisher" in status()["message"]

    camera = Camera(graph).run(offset_ns=60_000_000, rate_hz=7)
    graph.wait(lambda: "nearest stamps differ by 60.0 ms" in status()["message"], "an offset beyond the slop")
    assert "enable_sync:=true" in status()["message"]
    assert "reliable" in status()["message"]
    assert graph.set(node, slop_ms=80.0)["slop_ms"].successful
    graph.wait(lambda: status()["total"] > 0 and not status()["message"], "a larger slop pairs them")
    camera.destroy()

    # Infos arrive, images do not: lost in transport.
    camera = Camera(graph)
    header = convert.make_header
    for _ in range(90):
        camera.info.publish(convert.camera_info(np.eye(3), (48, 64), header(time.time_ns(), "camera")))
        time.sleep(0.05)
        if "images are lost in transport" in graph.status(node)["message"]:
            break
    message = graph.status(node)["message"]
    assert "images are lost in transport" in message
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in message


@pytest.mark.parametrize("use_sim_time", [True, False])
def test_time_that_jumps_back_is_recovered_from(graph, tmp_path, use_sim_time):
    """A bag that loops, with or without its clock, as ``ros2 bag play --clock --loop`` does."""
    node, status = start(graph, tmp_path, use_sim_time=use_sim_time)
    clock = graph.node.create_publisher(Clock, "/clock", 10)
    labels = graph.latched("labels")
    camera = Camera(graph)
    for base in (1_000_000_000_000, 500_000_000_000):
        clock.publish(Clock(clock=convert.make_header(base, "").stamp))
        time.sleep(0.3)
        labels.publish(String(data="milk"))
        graph.wait(lambda: status().get("state") == "gathering", "labels")
        before = status()["total"]
        for index in range(1, 11):
            clock.publish(Clock(clock=convert.make_header(base + index * 100_000_000, "").stamp))
            camera.send(stamp=base + index * 100_000_000)
            time.sleep(0.05)
        graph.wait(lambda before=before: status()["total"] >= before + 5, "samples")
    graph.wait(lambda: graph.status(node)["values"]["clock jumps"] == "1", "the jump is counted")


def test_killed_in_mid_capture_leaves_a_store_of_whole_samples(graph, tmp_path):
    node, status = start(graph, tmp_path)
    graph.latched("labels").publish(String(data="milk"))
    camera = Camera(graph, size=(240, 320)).run(rate_hz=30)
    graph.wait(lambda: status().get("total", 0) >= 5, "samples")
    node.kill()
    camera.stop()
    committed = (tmp_path / "store" / "samples.jsonl").read_text().count("\n")
    with SampleStore.open(tmp_path / "store") as store:
        assert len(store) == committed >= 5
        for index in range(len(store)):
            assert store[index].labels == {"milk"}


def test_an_unwritable_store_is_named_and_configure_can_be_retried(graph, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    node = graph.start("sample_collector", wait="unconfigured", store=str(blocked / "store"), classes=CLASSES)
    graph.wait(lambda: "configure failed" in graph.status(node)["message"], "the reason in diagnostics")
    assert "Traceback" in node.text()
    assert str(blocked) in graph.status(node)["message"]
    assert not graph.change_state(node, "configure")
    blocked.unlink()
    assert graph.change_state(node, "configure")
    assert graph.change_state(node, "activate")
