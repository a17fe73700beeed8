# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The porch's parts by themselves: worker, model slot, conversion, cloud, smoothing, yielding, QoS."""

import contextlib
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_messages import compressed_depth_message, compressed_message, raw_message
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from deal_ros.images import ImageError, decode_color, decode_depth
from deal_ros.ros import convert
from deal_ros.ros.cloud import organised_cloud
from deal_ros.ros.diagnostics import Rate, Status, Window
from deal_ros.ros.models import ModelPathError, ModelSlot, confine
from deal_ros.ros.nodes.camera_simulator import CameraSimulator
from deal_ros.ros.nodes.sample_collector import SampleCollector
from deal_ros.ros.nodes.segmenter import Segmenter
from deal_ros.ros.nodes.trainer import Trainer
from deal_ros.ros.qos import matched_reliability
from deal_ros.ros.smoothing import TemporalVote, drop_uncertain
from deal_ros.ros.worker import LatestWins
from deal_ros.ros.yielding import RateKeeper


def test_worker_takes_the_newest_accounts_for_all_and_survives_errors():
    gate, done = threading.Event(), []

    def work(item):
        gate.wait(5)
        if item == 0:
            raise ValueError("bad item")
        done.append(item)

    errors = []
    worker = LatestWins(work, "test", errors.append)
    worker.offer(0)
    while worker.busy_s == 0:
        time.sleep(0.001)
    for item in range(1, 10):
        worker.offer(item)
    time.sleep(0.02)
    assert worker.busy_s > 0.01
    gate.set()
    assert worker.stop(timeout_s=5, finish=True)
    counts = worker.counts
    assert done == [9]
    assert [str(error) for error in errors] == ["bad item"]
    assert (counts.offered, counts.done, counts.failed, counts.replaced) == (10, 1, 1, 8)


def test_a_stuck_worker_is_seen_and_does_not_hold_up_the_end():
    release = threading.Event()
    worker = LatestWins(lambda item: release.wait(10), "test")
    worker.offer(1)
    time.sleep(0.05)
    began = time.monotonic()
    assert not worker.stop(timeout_s=0.1)
    assert time.monotonic() - began < 1.0
    assert worker.busy_s > 0.05
    release.set()


class FakeModel:
    """Stands for a predictor where only the slot is under test."""

    classes = ("milk",)

    def __init__(self, path):
        self.version, self.closed = path.name, threading.Event()

    def close(self):
        self.closed.set()


def test_slot_swaps_only_when_taken_closes_the_old_and_keeps_it_when_the_new_is_bad():
    ready, refused = threading.Event(), threading.Event()

    def load(path):
        if path.name == "bad":
            raise ValueError("torn")
        return FakeModel(path)

    slot = ModelSlot(load, lambda path, model: ready.set(), lambda path, error: refused.set())
    assert slot.take() is None
    first = slot.load_now(Path("first"))
    slot.request(Path("bad"))
    assert refused.wait(5)
    assert slot.take() is first
    slot.request(Path("second"))
    assert ready.wait(5)
    assert slot.running is first
    assert slot.take().version == "second"
    assert first.closed.wait(5)
    second = slot.running
    slot.close()
    assert second.closed.is_set()


@pytest.mark.parametrize("text", ["..", ".", "", "/", "a/../..", "/etc/passwd", "x\0y", "a\nb", "~root", "y" * 5000])
def test_a_path_from_a_topic_cannot_leave_its_folder(tmp_path, text):
    models = tmp_path / "models"
    (models / "good").mkdir(parents=True)
    (models / "out").symlink_to("/etc")
    if text == "~root":  # not expanded: a name like any other
        assert confine(text, models) == models / "~root"
        return
    with pytest.raises(ModelPathError):
        confine(text, models)
    assert confine("good", models) == models / "good"
    assert confine(str(models / "good"), models) == models / "good"
    with pytest.raises(ModelPathError, match="leads out of"):
        confine("out/passwd", models)


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_text_leads_out_of_the_models_folder(text):
    root = Path("/tmp/models")
    with contextlib.suppress(ModelPathError):
        assert confine(text, root).is_relative_to(root.resolve())


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)),
        ("mono8", np.arange(6, dtype=np.uint8).reshape(2, 3)),
        ("16UC1", np.arange(1000, 1006, dtype=np.uint16).reshape(2, 3)),
        ("32FC1", np.linspace(0.5, 3, 6, dtype=np.float32).reshape(2, 3)),
    ],
)
def test_pixels_survive_the_way_into_a_message_and_back(encoding, pixels):
    header = convert.make_header(1_700_000_000_123_456_789, "camera")
    message = convert.image_message(pixels, encoding, header)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 123_456_789)
    if encoding in ("rgb8", "mono8"):
        decoded = decode_color(message)
        np.testing.assert_array_equal(decoded if encoding == "rgb8" else decoded[..., 0], pixels)
    else:
        metres = pixels / 1000 if encoding == "16UC1" else pixels
        np.testing.assert_allclose(decode_depth(message), metres, rtol=1e-6)


def test_strided_pixels_are_copied_row_by_row_and_a_wrong_dtype_is_refused():
    wide = np.arange(24, dtype=np.uint8).reshape(4, 6)
    message = convert.image_message(wide[:, 1:4], "mono8", convert.make_header(0, ""))
    assert bytes(message.data) == wide[:, 1:4].tobytes()
    with pytest.raises(ValueError, match="mono8 must be uint8 with 1 channel"):
        convert.image_message(wide.astype(np.int64), "mono8", convert.make_header(0, ""))


def test_filling_a_large_image_costs_a_copy_and_not_a_loop():
    pixels = np.zeros((720, 1280, 3), np.uint8)
    began = time.perf_counter()
    Image(data=convert.fill(pixels))
    assert time.perf_counter() - began < 0.05


def test_oversized_images_are_refused_by_their_header():
    message = Image(height=10_000, width=10_000, step=30_000, encoding="rgb8")
    with pytest.raises(ImageError, match="at most 16 megapixels"):
        convert.check_pixels(message, 16.0)


@pytest.mark.parametrize(
    "payload",
    [
        *(compressed_message(np.zeros((200, 300, 3), np.uint8), kind) for kind in ("png", "jpg")),
        *(compressed_depth_message(np.zeros((200, 300), np.uint16), transport=kind) for kind in ("png", "rvl")),
    ],
    ids=["png", "jpg", "compressedDepth png", "compressedDepth rvl"],
)
def test_oversized_compressed_images_are_refused_by_their_header(payload):
    message = CompressedImage(format=payload.format, data=payload.data)
    convert.check_pixels(message, 0.06)
    with pytest.raises(ImageError, match=r"at most 0\.05 megapixels, got 200 x 300 in"):
        convert.check_pixels(message, 0.05)


@pytest.fixture
def cv_bridge(monkeypatch):
    """A stand-in: the real one needs ROS' own OpenCV and is not on PyPI. It takes every photosite for all colours."""

    class CvBridge:
        def imgmsg_to_cv2(self, message, encoding):
            assert (encoding, message.step) == ("rgb8", message.width), "pixels must come without padding"
            grey = np.ndarray((message.height, message.width), np.uint8, message.data)
            return np.stack([grey] * 3, axis=-1)

    package, compiled = types.ModuleType("cv_bridge"), types.ModuleType("cv_bridge.boost")
    package.CvBridge, package.boost, compiled.cv_bridge_boost = CvBridge, compiled, object()
    monkeypatch.setitem(sys.modules, "cv_bridge", package)
    monkeypatch.setitem(sys.modules, "cv_bridge.boost", compiled)
    convert._cv_bridge.cache_clear()
    yield compiled
    convert._cv_bridge.cache_clear()


def test_bayer_goes_through_cv_bridge_where_it_can_be_used(cv_bridge):
    mosaic = np.arange(64, dtype=np.uint8).reshape(8, 8)
    message = raw_message(mosaic, "bayer_rggb8", padding=3)
    np.testing.assert_array_equal(convert.decode_color(message), np.stack([mosaic] * 3, axis=-1))


def test_bayer_goes_elsewhere_where_cv_bridge_was_built_for_another_numpy(cv_bridge):
    del cv_bridge.cv_bridge_boost  # then its import fails
    message = raw_message(np.full((8, 8), 90, np.uint8), "bayer_rggb8")
    np.testing.assert_array_equal(convert.decode_color(message), decode_color(message))


def test_cloud_back_projects_each_pixel():
    matrix = np.array([[100.0, 0, 2], [0, 50.0, 1], [0, 0, 1]])
    depth = np.full((3, 4), 2.0, np.float32)
    depth[0, 0] = 0
    rgb = np.zeros((3, 4, 3), np.uint8)
    rgb[2, 3] = (255, 128, 1)
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    points = organised_cloud(rgb, depth, mask, mask + 100, matrix)
    assert np.isnan([points["x"][0, 0], points["y"][0, 0], points["z"][0, 0]]).all()
    assert points["x"][2, 3] == pytest.approx((3 - 2) * 2 / 100)
    assert points["y"][2, 3] == pytest.approx((2 - 1) * 2 / 50)
    assert points["rgb"][2, 3] == 0xFF8001
    assert (points["label"][2, 3], points["confidence"][2, 3]) == (11, 111)
    with pytest.raises(ValueError, match="align_depth"):
        organised_cloud(rgb, depth[:2], mask, mask, matrix)


def test_vote_holds_a_flickering_pixel_and_gives_way_to_a_lasting_change():
    vote = TemporalVote()
    one, two = np.full((2, 2), 1, np.uint8), np.full((2, 2), 2, np.uint8)
    sure = np.full((2, 2), 200, np.uint8)
    stamp = 10**9
    for _ in range(5):
        mask, _ = vote.update(one, sure, stamp, past=0.7)
        stamp += 10**8
    mask, _ = vote.update(two, sure, stamp, past=0.7)
    assert (mask == 1).all()
    for _ in range(5):
        stamp += 10**8
        mask, _ = vote.update(two, sure, stamp, past=0.7)
    assert (mask == 2).all()
    mask, _ = vote.update(one, sure, stamp - 10**9, past=0.7)  # time went back
    assert (mask == 1).all()
    mask, _ = vote.update(np.full((3, 3), 2, np.uint8), np.full((3, 3), 9, np.uint8), stamp, past=0.7)
    assert (mask == 2).all()


def test_uncertain_pixels_are_unlabelled():
    mask, confidence = np.array([[1, 2]], np.uint8), np.array([[100, 200]], np.uint8)
    assert drop_uncertain(mask, confidence, 0.5).tolist() == [[255, 2]]
    assert drop_uncertain(mask, confidence, 0.0) is mask


def figures(masks, frames):
    return {"masks per second": str(masks), "frames per second": str(frames)}


def test_training_yields_until_the_rate_is_back():
    keeper = RateKeeper()
    keeper.observe(figures(10, 10), 0.0)
    assert keeper.decide(8.0, 0.1) == (None, "")
    keeper.observe(figures(5, 10), 1.0)
    pause, why = keeper.decide(8.0, 1.1)
    assert pause
    assert "5.0 masks per second" in why
    keeper.observe(figures(9, 10), 2.0)
    assert keeper.decide(8.0, 2.1)[0] is None
    keeper.observe(figures(9, 10), 5.0)
    assert keeper.decide(8.0, 5.2)[0] is False


def test_training_goes_on_where_pausing_does_not_help_or_the_camera_is_slow():
    keeper = RateKeeper()
    keeper.observe(figures(5, 5), 0.0)
    assert keeper.decide(8.0, 0.1) == (None, "")  # the camera gives no more
    keeper.observe(figures(5, 10), 1.0)
    assert keeper.decide(8.0, 1.1)[0]
    decisions = []
    for second in range(2, 18):
        keeper.observe(figures(5, 10), float(second))
        decisions.append(keeper.decide(8.0, second + 0.1)[0])
    assert [decision for decision in decisions if decision is not None] == [False]
    assert "even while training is paused" in keeper.warning
    keeper.observe(figures(5, 10), 20.0)
    assert keeper.decide(8.0, 20.1)[0] is None


def test_training_does_not_stay_paused_when_the_segmenter_goes():
    keeper = RateKeeper()
    keeper.observe(figures(5, 10), 0.0)
    assert keeper.decide(8.0, 0.1)[0]
    assert keeper.decide(8.0, 6.0)[0] is False


def test_reliable_only_where_every_publisher_offers_it():
    reliable, best_effort = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
    assert matched_reliability([]) == "best_effort"
    assert matched_reliability([reliable, reliable]) == "reliable"
    assert matched_reliability([reliable, best_effort]) == "best_effort"


def test_status_keeps_the_worst_level_and_figures_are_readable():
    status = Status()
    status.report(b"\x02", "broken")
    status.report(b"\x01", "slow")
    assert (status.level, status.messages) == (b"\x02", ["broken", "slow"])
    window, rate = Window(), Rate()
    assert window.percentiles(50) == (None,)
    for value in range(101):
        window.add(float(value))
    assert window.percentiles(50, 95) == (50.0, 95.0)
    assert rate.per_second() == 0
    rate.count()
    assert rate.per_second() == 1.0


@pytest.mark.parametrize("node", [CameraSimulator, SampleCollector, Segmenter, Trainer])
def test_our_attributes_hide_none_of_rclpys(node, graph):
    """rclpy keeps its own in plain attributes such as _services; a hidden one breaks the executor."""
    plain = LifecycleNode("plain", context=graph.context)
    theirs = set(vars(plain)) | set(dir(LifecycleNode))
    plain.destroy_node()
    code = node.__init__.__code__, node.__bases__[0].__init__.__code__
    allowed = {"on_configure", "on_activate", "on_deactivate", "on_cleanup", "on_shutdown", "__init__", "context"}
    mine = {name for item in code for name in item.co_names if name.startswith("_")}
    mine |= {name for cls in node.__mro__[:2] for name in vars(cls) if not name.startswith("__")}
    assert not (mine & theirs) - allowed
