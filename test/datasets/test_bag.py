# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from bag_writing import (
    DEPTH_TOPIC,
    INFO_TOPIC,
    LABELS_TOPIC,
    MATRIX,
    RGB_TOPIC,
    SECOND,
    START,
    camera_info,
    frame,
    image,
    recording,
    split_bag,
    text,
    write_bag,
)
from image_messages import compressed_depth_message, compressed_message, inverse_depth, raw_message
from rosbags.rosbag2 import CompressionMode, Reader

from deal_ros.config import ConfigError
from deal_ros.datasets.bag import find_bags, import_bag, import_bags
from deal_ros.datasets.bag_fleet import sequence_names, shard
from deal_ros.datasets.bag_labels import IntervalLabels
from deal_ros.datasets.bag_reader import Bag, BagError
from deal_ros.datasets.bag_report import ImportConfig
from deal_ros.datasets.bag_topics import BagTopics, choose_topics
from deal_ros.datasets.keyframes import KeyframeConfig
from deal_ros.datasets.store import SampleStore
from deal_ros.images import metres_from_units
from deal_ros.pairing import PairingConfig

EVERY_FRAME = KeyframeConfig(0, 0, 0, 0)
ALL = ImportConfig(keyframes=EVERY_FRAME)


@pytest.fixture
def store(tmp_path):
    with SampleStore.create(tmp_path / "store", [], image_format="png") as store:
        yield store


def assert_frames(store: SampleStore, numbers, label: str = "milk") -> None:
    """The store holds exactly these frames, pixel for pixel."""
    assert len(store) == len(list(numbers))
    for index, number in enumerate(numbers):
        rgb, depth = frame(number)
        sample = store[index]
        np.testing.assert_array_equal(sample.rgb, rgb)
        np.testing.assert_array_equal(sample.depth_m, metres_from_units(depth))
        assert sample.labels == {label}


@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_storages_and_compressions_give_the_exact_pixels(tmp_path, store, storage, compression) -> None:
    bag = write_bag(tmp_path / "bag", recording(6), storage, compression)
    report = import_bag(bag, store, ALL)
    assert_frames(store, range(6))
    np.testing.assert_array_equal(store[0].camera_matrix, np.reshape(MATRIX, (3, 3)))
    assert store[0].frame_id == "camera_color_optical_frame"
    assert store[0].stamp_ns == START + 1000
    assert store.sequence(0) == "bag"
    assert report.paired == 6
    assert report.frames == {"stored": 6}
    assert report.damage == []
    assert report.complete
    assert report.offset_counts[6] == 6  # +3 ms of ±20


def test_mcap_chunk_compression(tmp_path, store) -> None:
    bag = write_bag(tmp_path / "bag", recording(6), "mcap", CompressionMode.STORAGE)
    import_bag(bag, store, ALL)
    assert_frames(store, range(6))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("single_file", [False, True])
def test_messages_are_those_that_rosbags_reads(tmp_path, storage, single_file) -> None:
    folder = write_bag(tmp_path / "bag", recording(30), storage)
    path = next(item for item in folder.iterdir() if item.suffix in (".mcap", ".db3")) if single_file else folder
    with Reader(path) as reader:
        expected = [(connection.topic, log_ns, bytes(data)) for connection, log_ns, data in reader.messages()]
    bag = Bag(path)
    assert [(message.topic, message.log_ns, message.data) for message in bag.messages()] == expected
    assert bag.topics()[RGB_TOPIC] == ("sensor_msgs/msg/Image", 30)
    assert bag.done_bytes == bag.size_bytes
    assert bag.start_ns() == START


RAW_RGB, RAW_DEPTH = frame(3)
METRES = metres_from_units(RAW_DEPTH)
INVERSE, QUANTISATION = inverse_depth(METRES)


@pytest.mark.parametrize(
    ("color", "depth"),
    [
        (raw_message(RAW_RGB, "rgb8", padding=5), raw_message(RAW_DEPTH, "16UC1", padding=6, big_endian=True)),
        (raw_message(RAW_RGB[..., ::-1], "bgr8"), raw_message(METRES, "32FC1", padding=4)),
        (raw_message(np.dstack([RAW_RGB, RAW_RGB[..., 0]]), "rgba8"), raw_message(METRES, "32FC1", big_endian=True)),
        (compressed_message(RAW_RGB), compressed_depth_message(RAW_DEPTH)),
        (compressed_message(RAW_RGB), compressed_depth_message(RAW_DEPTH, transport="rvl")),
    ],
)
def test_encodings_give_the_exact_pixels(tmp_path, store, color, depth) -> None:
    topics = [
        RGB_TOPIC + ("/compressed" if hasattr(color, "format") else ""),
        DEPTH_TOPIC + ("/compressedDepth" if hasattr(depth, "format") else ""),
    ]
    messages = [(topics[0], START, image(color, START)), (topics[1], START, image(depth, START))]
    import_bag(write_bag(tmp_path / "bag", messages), store, ImportConfig(label=("milk",)))
    np.testing.assert_array_equal(store[0].rgb, RAW_RGB)
    np.testing.assert_array_equal(store[0].depth_m, METRES)
    assert store[0].camera_matrix is None


def test_inverse_depth_within_its_quantisation(tmp_path, store) -> None:
    depth = compressed_depth_message(INVERSE, "32FC1", "png", QUANTISATION)
    messages = [
        (RGB_TOPIC + "/compressed", START, image(compressed_message(RAW_RGB), START)),
        (DEPTH_TOPIC + "/compressedDepth", START, image(depth, START)),
    ]
    import_bag(write_bag(tmp_path / "bag", messages), store, ImportConfig(label=("milk",)))
    valid = METRES > 0
    assert np.abs(store[0].depth_m - METRES)[valid].max() < METRES.max() ** 2 / QUANTISATION[0] + 0.001
    assert (store[0].depth_m[~valid] == 0).all()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_split_files_are_one_recording(tmp_path, store, storage) -> None:
    parts = []
    for number in range(12):  # more than nine: names sort by number
        start = START + number * SECOND
        messages = recording(2, "milk" if number == 0 else None, start=start, first=2 * number)
        parts.append(write_bag(tmp_path / f"part{number}", messages, storage))
    report = import_bag(split_bag(tmp_path / "whole", parts), store, ALL)
    assert report.paired == 24
    stamps = [entry.stamp_ns for entry in store.entries()]
    assert stamps == sorted(stamps)
    assert len(store) == 24


def test_labels_hold_from_their_log_time_until_the_next(tmp_path, store) -> None:
    frames = list(recording(10, label=None))
    labels = [
        (LABELS_TOPIC, START + 50_000_000, text("nothing")),
        (LABELS_TOPIC, START + 250_000_000, text("milk")),
        (LABELS_TOPIC, START + 450_000_000, text("milk, butter")),
        (LABELS_TOPIC, START + 650_000_000, text("../etc/passwd")),
        (LABELS_TOPIC, START + 750_000_000, text("")),
        (LABELS_TOPIC, START + 850_000_000, text("ketchup")),
    ]
    messages = sorted(frames + labels, key=lambda message: message[1])
    report = import_bag(write_bag(tmp_path / "bag", messages), store, ALL)
    found = [set(entry.labels) for entry in store.entries()]
    assert found == [set(), set(), {"milk"}, {"milk"}, {"milk", "butter"}, {"milk", "butter"}, {"ketchup"}]
    assert report.frames == {"stored": 7, "not_labelled": 3, "bad_labels": 1}
    assert "class name must be" in report.problems["bad_labels"]
    assert report.samples_per_class == {"milk": 4, "butter": 2, "ketchup": 1}


def test_a_frame_exposed_before_the_labels_came_does_not_get_them(tmp_path, store) -> None:
    """As in the collector: images come tens of milliseconds after their stamps. Labels said again are no news."""
    messages = []
    for number in range(8):
        stamp, (rgb, depth) = START + number * 100_000_000, frame(number)
        messages.append((RGB_TOPIC, stamp + 80_000_000, image(raw_message(rgb, "rgb8"), stamp)))
        messages.append((DEPTH_TOPIC, stamp + 81_000_000, image(raw_message(depth, "16UC1"), stamp)))
    said = ((0, "milk"), (350, "butter"), (650, "butter"))  # frame 3 is stamped 50 ms before, logged 30 ms after
    messages += [(LABELS_TOPIC, START + ms * 1_000_000, text(names)) for ms, names in said]
    report = import_bag(write_bag(tmp_path / "bag", sorted(messages, key=lambda m: m[1])), store, ALL)
    assert [set(entry.labels) for entry in store.entries()] == [{"milk"}] * 3 + [{"butter"}] * 4
    assert report.frames == {"stored": 7, "not_labelled": 1}


def test_intervals_of_labels_serve_recordings_of_one_name_and_what_they_lack_stops_no_other(tmp_path, store) -> None:
    file = tmp_path / "labels.yaml"
    file.write_text("kitchen:\n- {labels: milk}\n")
    config = ImportConfig(labels_file=str(file), keyframes=EVERY_FRAME)
    monday = write_bag(tmp_path / "monday" / "kitchen", recording(6, label=None))
    tuesday = write_bag(tmp_path / "tuesday" / "kitchen", recording(6, label=None, start=START + 86400 * SECOND))
    hall = write_bag(tmp_path / "monday" / "hall", recording(6, label=None))
    assert [report.samples for report in import_bags([monday], store, config)[0]] == [6]
    reports, failed = import_bags([tuesday, hall], store, config)
    assert [(report.sequence.partition("@")[0], report.samples) for report in reports] == [("kitchen", 6)]
    assert list(failed) == [str(hall)]
    assert "needs a list called 'labels' or 'hall'" in failed[str(hall)]


def test_labels_from_a_yaml_of_intervals(tmp_path, store) -> None:
    file = tmp_path / "labels.yaml"
    file.write_text("labels:\n- {from: 0.25, to: 0.45, labels: milk}\n- {from: 0.75, labels: [butter, milk]}\n")
    bag = write_bag(tmp_path / "bag", recording(10, label=None))
    import_bag(bag, store, ImportConfig(labels_file=str(file), keyframes=EVERY_FRAME))
    assert [set(entry.labels) for entry in store.entries()] == [{"milk"}] * 2 + [{"butter", "milk"}] * 2
    file.write_text("bag:\n- {labels: ketchup}\nother:\n- {labels: milk}\n")
    import_bag(bag, store, ImportConfig(labels_file=str(file), keyframes=EVERY_FRAME), sequence="again/bag")
    assert store.counts()["ketchup"] == 10


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ([{"from": 3, "to": 1, "labels": "milk"}], "must end after it begins"),
        ([{"from": 0, "to": 5, "labels": "milk"}, {"from": 4, "labels": "butter"}], "overlap"),
        ([{"from": "a", "labels": "milk"}], "number of seconds"),
        ([{"form": 0, "labels": "milk"}], "must be like"),
        ([{"labels": 3}], "text or a list"),
        ("milk", "must be a list"),
    ],
)
def test_bad_intervals_are_explained(intervals, message) -> None:
    with pytest.raises(ConfigError, match=message):
        IntervalLabels(intervals)


def test_keyframes_and_pairing_are_those_of_the_collector(tmp_path, store) -> None:
    bag = write_bag(tmp_path / "bag", recording(20))
    report = import_bag(bag, store, ImportConfig(keyframes=KeyframeConfig(min_interval_s=0.5)))
    assert report.frames == {"stored": 4, "too_soon": 16}
    report = import_bag(bag, store, ImportConfig(pairing=PairingConfig(slop_ms=2)), sequence="strict")
    assert report.paired == 0
    assert report.missed_by_ms == pytest.approx(3)
    assert report.dropped["rgb"]["no_partner"] == 20


def test_importing_again_adds_nothing(tmp_path, store) -> None:
    bag = write_bag(tmp_path / "bag", recording(8))
    import_bag(bag, store, ALL)
    report = import_bag(bag, store, ALL)
    assert report.frames == {"already_stored": 8}
    shutil.rmtree(store.path / "imports")  # even if the note is lost
    report = import_bag(bag, store, ALL)
    assert report.frames == {"already_stored": 8}
    assert report.samples_per_class == {"milk": 8}
    assert len(store) == 8


def test_an_interrupted_import_goes_on_to_the_same_result(tmp_path, store) -> None:
    bag = write_bag(tmp_path / "bag", recording(100))
    config = ImportConfig(keyframes=KeyframeConfig(min_interval_s=0.2))
    calls = iter(range(100))
    report = import_bag(bag, store, config, should_stop=lambda: next(calls) >= 3)
    assert not report.complete
    assert 0 < len(store) < 30
    assert import_bag(bag, store, config).complete
    with SampleStore.create(tmp_path / "straight", []) as straight:
        import_bag(bag, straight, config)
        assert [entry.stamp_ns for entry in store.entries()] == [entry.stamp_ns for entry in straight.entries()]


def test_another_recording_of_the_same_name_is_not_taken_for_it(tmp_path, store) -> None:
    first = write_bag(tmp_path / "monday" / "kitchen", recording(3))
    second = write_bag(tmp_path / "tuesday" / "kitchen", recording(3, start=START + 900 * SECOND))
    import_bag(first, store, ALL)
    import_bag(second, store, ALL)
    assert len(store) == 6
    assert len({store.sequence(index) for index in range(6)}) == 2
    assert sequence_names([first, second]) == ["monday/kitchen", "tuesday/kitchen"]


def test_many_recordings_at_once(tmp_path, store) -> None:
    bags = [
        write_bag(tmp_path / f"bag{number}", recording(6, label, start=START + number * 100 * SECOND))
        for number, label in enumerate(["milk", "butter", "milk", "ketchup"])
    ]
    heard = []
    reports, failed = import_bags(
        [*bags, tmp_path / "missing"], store, ALL, on_progress=lambda name, done, size: heard.append((name, done, size))
    )
    assert [report.sequence for report in reports] == ["bag0", "bag1", "bag2", "bag3"]
    assert list(failed) == [str(tmp_path / "missing")]
    assert store.counts() == {"milk": 12, "butter": 6, "ketchup": 6}
    assert {name for name, done, size in heard if done == size} == {"bag0", "bag1", "bag2", "bag3"}
    assert find_bags(tmp_path) == bags


def test_a_fleet_shares_the_recordings() -> None:
    bags = [f"bag{number}" for number in range(7)]
    parts = [shard(bags, {"RANK": str(rank), "WORLD_SIZE": "3"}) for rank in range(3)]
    assert sorted(bag for part, _ in parts for bag in part) == bags
    assert [name for _, name in parts] == ["shard-0-of-3", "shard-1-of-3", "shard-2-of-3"]
    assert shard(bags, {}) == (bags, "")
    with pytest.raises(BagError, match="RANK must be"):
        shard(bags, {"RANK": "3", "WORLD_SIZE": "3"})


def test_max_samples(tmp_path, store) -> None:
    report = import_bag(
        write_bag(tmp_path / "bag", recording(20)), store, ImportConfig(keyframes=EVERY_FRAME, max_samples=5)
    )
    assert report.samples == len(store) == 5
    assert not report.complete


REALSENSE = {
    "/camera/camera/color/image_raw": ("sensor_msgs/msg/Image", 100),
    "/camera/camera/color/image_raw/compressed": ("sensor_msgs/msg/CompressedImage", 100),
    "/camera/camera/color/camera_info": ("sensor_msgs/msg/CameraInfo", 100),
    "/camera/camera/depth/image_rect_raw": ("sensor_msgs/msg/Image", 100),
    "/camera/camera/depth/camera_info": ("sensor_msgs/msg/CameraInfo", 100),
    "/camera/camera/aligned_depth_to_color/image_raw": ("sensor_msgs/msg/Image", 100),
    "/camera/camera/aligned_depth_to_color/camera_info": ("sensor_msgs/msg/CameraInfo", 100),
    "/camera/camera/infra1/image_rect_raw": ("sensor_msgs/msg/Image", 100),
    "/segmentation/mask": ("sensor_msgs/msg/Image", 100),
    "/labels": ("std_msgs/msg/String", 3),
    "/rosout": ("rcl_interfaces/msg/Log", 3),
}


def test_topics_are_found_by_type_and_name() -> None:
    assert choose_topics(REALSENSE, BagTopics(), need_labels=True) == BagTopics(
        "/camera/camera/color/image_raw",
        "/camera/camera/aligned_depth_to_color/image_raw",
        "/camera/camera/color/camera_info",
        "/labels",
    )
    only_compressed = {name: value for name, value in REALSENSE.items() if not name.endswith("color/image_raw")}
    found = choose_topics(only_compressed, BagTopics(), need_labels=False)
    assert found.rgb == "/camera/camera/color/image_raw/compressed"
    assert found.camera_info == "/camera/camera/color/camera_info"
    assert found.labels == ""
    two = {
        "/left/rgb/image": ("sensor_msgs/msg/Image", 10),
        "/right/rgb/image": ("sensor_msgs/msg/Image", 90),
        "/left/depth/image": ("sensor_msgs/msg/Image", 90),
        "/right/depth/image/compressedDepth": ("sensor_msgs/msg/CompressedImage", 90),
    }
    found = choose_topics(two, BagTopics(), need_labels=False)
    assert (found.rgb, found.depth) == ("/right/rgb/image", "/right/depth/image/compressedDepth")


@pytest.mark.parametrize(
    ("available", "wanted", "message"),
    [
        (REALSENSE, BagTopics(rgb="/none"), "no topic '/none' for rgb; it has: /camera"),
        (REALSENSE, BagTopics(depth="/labels"), "must be sensor_msgs/msg/Image or sensor_msgs/msg/Compressed"),
        ({"/labels": REALSENSE["/labels"]}, BagTopics(), "no colour image topic found; name it with --rgb"),
        ({"/rgb/image": ("sensor_msgs/msg/Image", 1)}, BagTopics(), "no depth image topic found"),
        ({"/rgb/i": ("sensor_msgs/msg/Image", 1), "/depth/i": ("sensor_msgs/msg/Image", 1)}, BagTopics(), "labels"),
    ],
)
def test_missing_topics_are_explained(available, wanted, message) -> None:
    with pytest.raises(BagError, match=message):
        choose_topics(available, wanted, need_labels=True)


def test_frames_that_cannot_be_used_are_counted_and_explained(tmp_path, store) -> None:
    rgb, depth = frame(0)
    wrong = [
        (raw_message(rgb, "rgb8"), raw_message(depth[:24], "16UC1"), "size_mismatch"),
        (raw_message(rgb, "rgb8"), raw_message(rgb, "rgb8"), "undecodable"),
    ]
    messages = []
    for number, (color, other, _) in enumerate(wrong):
        stamp = START + number * SECOND
        messages += [(RGB_TOPIC, stamp, image(color, stamp)), (DEPTH_TOPIC, stamp, image(other, stamp))]
    messages.append((RGB_TOPIC, START + 5 * SECOND, b"\x00\x01\x00\x00rubbish", "sensor_msgs/msg/Image"))
    report = import_bag(write_bag(tmp_path / "bag", messages), store, ImportConfig(label=("milk",)))
    assert len(store) == 0
    assert report.frames == {"size_mismatch": 1, "undecodable": 1}
    assert "align_depth.enable" in report.problems["size_mismatch"]
    assert "16UC1" in report.problems["undecodable"]
    assert report.dropped["rgb"]["zero_stamp"] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none", "no such bag"),
        (lambda path: path, "no .mcap or .db3 file"),
        (lambda path: ((path / "a.bag").write_text("") and None) or path / "a.bag", "rosbags-convert"),
    ],
)
def test_what_is_no_bag_is_explained(tmp_path, make, message) -> None:
    (tmp_path / "a.bag").touch()
    path = make(tmp_path)
    with pytest.raises(BagError, match=message):
        Bag(path)


def test_the_report_is_kept_in_the_store(tmp_path, store) -> None:
    import_bag(write_bag(tmp_path / "bag", recording(3)), store, ALL)
    (file,) = (store.path / "imports").iterdir()
    values = json.loads(file.read_text())
    assert values["report"]["frames"] == {"stored": 3}
    assert values["settings"]["pairing"]["slop_ms"] == 20.0


def test_camera_info_may_change(tmp_path, store) -> None:
    messages = list(recording(4))
    changed = camera_info(START)
    changed.k[0] = 700.0
    messages.insert(8, (INFO_TOPIC, messages[7][1], changed))  # before the third colour image
    import_bag(write_bag(tmp_path / "bag", messages), store, ALL)
    assert [store[index].camera_matrix[0, 0] for index in range(4)] == [500, 500, 700, 500]


@pytest.mark.parametrize(("image_format", "kind"), [("jpg", "jpg"), ("png", "jpg"), ("png", "png")])
def test_compressed_images_are_kept_as_the_camera_made_them(tmp_path, image_format, kind) -> None:
    color, depth = compressed_message(RAW_RGB, kind), compressed_depth_message(RAW_DEPTH)
    messages = [
        (RGB_TOPIC + "/compressed", START, image(color, START)),
        (DEPTH_TOPIC + "/compressedDepth", START, image(depth, START)),
    ]
    bag = write_bag(tmp_path / "bag", messages)
    with SampleStore.create(tmp_path / "kept", [], image_format=image_format) as store:
        import_bag(bag, store, ImportConfig(label=("milk",)))
        name = store.sample_id(0)
        assert (store.path / "rgb" / f"{name}.{kind}").read_bytes() == color.data
        assert (store.path / "depth" / f"{name}.png").read_bytes() == depth.data[12:]
        np.testing.assert_array_equal(store[0].depth_m, METRES)
    with SampleStore.create(tmp_path / "fine", [], depth_unit_m=0.0005) as store:
        import_bag(bag, store, ImportConfig(label=("milk",)))
        assert (store.path / "depth" / f"{store.sample_id(0)}.png").read_bytes() != depth.data[12:]
        np.testing.assert_allclose(store[0].depth_m[METRES < 32], METRES[METRES < 32], rtol=1e-6)
