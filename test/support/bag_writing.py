# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bags for tests, written by the real ``rosbags`` writer."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from image_messages import compressed_message, raw_message
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE)
CLASSES = TYPES.types
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
RGB_TOPIC, DEPTH_TOPIC, INFO_TOPIC, LABELS_TOPIC = "/rgb/image", "/depth/image", "/rgb/camera_info", "/labels"
MATRIX = [500.0, 0.0, 32.0, 0.0, 500.0, 24.0, 0.0, 0.0, 1.0]


def header(stamp_ns: int, frame_id: str = "camera_color_optical_frame"):
    time = CLASSES["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return CLASSES["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def image(payload: SimpleNamespace, stamp_ns: int):
    """A payload of image_messages with a header: a real Image or CompressedImage."""
    fields = dict(vars(payload), header=header(stamp_ns), data=np.frombuffer(payload.data, np.uint8))
    kind = "CompressedImage" if "format" in fields else "Image"
    return CLASSES[f"sensor_msgs/msg/{kind}"](**fields)


def camera_info(stamp_ns: int, height: int = 48, width: int = 64):
    roi = CLASSES["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    matrix = np.array(MATRIX)
    return CLASSES["sensor_msgs/msg/CameraInfo"](
        header=header(stamp_ns),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=matrix,
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def text(value: str):
    return CLASSES["std_msgs/msg/String"](data=value)


def write_bag(path: Path, messages, storage: str = "mcap", compression: CompressionMode | None = None) -> Path:
    """Write (topic, log_ns, message) triples, or raw CDR as (topic, log_ns, bytes, msgtype)."""
    with_compression = compression is not None and compression != CompressionMode.NONE
    writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
    if with_compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, log_ns, message, *msgtype in messages:
            kind = msgtype[0] if msgtype else message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            data = message if isinstance(message, bytes) else TYPES.serialize_cdr(message, kind)
            writer.write(connections[topic], log_ns, data)
    return path


def split_bag(target: Path, parts: list[Path], metadata: bool = False) -> Path:
    """Put the files of several bags into one folder, as the recorder splits a long one."""
    target.mkdir()
    for number, part in enumerate(parts):
        (file,) = [item for item in part.iterdir() if item.suffix in (".mcap", ".db3")]
        shutil.copy(file, target / f"{target.name}_{number}{file.suffix}")
    return target


def frame(number: int, size=(48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Colour and millimetres of frame ``number``: every one another view, with holes in depth."""
    rng = np.random.default_rng(number)
    rgb = np.repeat(np.repeat(rng.integers(0, 256, (size[0] // 4, size[1] // 4, 3)), 4, 0), 4, 1).astype(np.uint8)
    depth = rng.integers(300, 5000, size).astype(np.uint16)
    depth[rng.random(size) < 0.2] = 0
    return rgb, depth


def recording(frames: int = 10, label: str | None = "milk", rate_hz: float = 10, start: int = START, first: int = 0):
    """Messages of an ordinary recording: camera info, colour, depth 3 ms later; labels once at the beginning."""
    if label is not None:
        yield LABELS_TOPIC, start, text(label)
    for number in range(first, first + frames):
        stamp = start + round(number / rate_hz * SECOND) + 1000
        rgb, depth = frame(number)
        yield INFO_TOPIC, stamp + 1, camera_info(stamp)
        yield RGB_TOPIC, stamp + 2_000_000, image(raw_message(rgb, "rgb8"), stamp)
        yield DEPTH_TOPIC, stamp + 6_000_000, image(raw_message(depth, "16UC1"), stamp + 3_000_000)


__all__ = ["camera_info", "compressed_message", "frame", "image", "recording", "split_bag", "text", "write_bag"]
