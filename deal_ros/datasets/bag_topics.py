# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which topics of a recording are colour, depth, camera info and labels: by type and name, where nobody says."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from deal_ros.datasets.bag_reader import BagError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, STRING = "sensor_msgs/msg/CameraInfo", "std_msgs/msg/String"
_KINDS = {"rgb": (IMAGE, COMPRESSED), "depth": (IMAGE, COMPRESSED), "camera_info": (CAMERA_INFO,), "labels": (STRING,)}
_NOT_COLOR = re.compile(r"depth|infra|/ir\b|/ir_|disparity|mask|segmentation|confidence|ground_truth|overlay|label")
_COLOR = re.compile(r"rgb|color|colour")
_REGISTERED = re.compile(r"aligned|registered|depth_to_color|depth_to_rgb")


@dataclass(frozen=True)
class BagTopics:
    """The topics to import. An empty name means: find it; after :func:`choose_topics`: there is none.

    Args:
        rgb: colour images, raw or compressed.
        depth: depth registered to colour, raw or compressedDepth.
        camera_info: calibration of the colour camera; may be missing.
        labels: class names in view; not needed where labels come from elsewhere.
    """

    rgb: str = ""
    depth: str = ""
    camera_info: str = ""
    labels: str = ""

    def describe(self) -> str:
        """One line for people."""
        return ", ".join(f"{name} {topic or 'none'}" for name, topic in dataclasses.asdict(self).items())


def choose_topics(
    available: Mapping[str, tuple[str, int | None]], wanted: BagTopics, *, need_labels: bool, where: str = "the bag"
) -> BagTopics:
    """Fill in the topics that ``wanted`` leaves open.

    Colour is the image topic that is called so and has the most messages; depth the one that is called so, registered
    if there is such a one, nearest to colour by name; camera info lies beside colour. Raw goes before compressed.

    Args:
        available: message type and number of messages (None: unknown) by topic.
        wanted: topics that were given.
        need_labels: whether labels must come from a topic.
        where: the bag, for messages.

    Raises:
        BagError: if a given topic is missing or of another type, or colour, depth or needed labels are not found.
    """
    for role, topic in dataclasses.asdict(wanted).items():
        if topic and topic not in available:
            raise BagError(f"{where}: no topic {topic!r} for {role}; it has: {_listing(available)}")
        if topic and available[topic][0] not in _KINDS[role]:
            expected = " or ".join(_KINDS[role])
            raise BagError(f"{where}: {role} topic {topic!r} must be {expected}, is {available[topic][0]}")
    images = [topic for topic, (kind, count) in available.items() if kind in _KINDS["rgb"] and count != 0]

    def size(topic: str) -> tuple[int, bool, str]:
        kind, count = available[topic]
        return -(count or 0), kind == COMPRESSED, topic

    rgb = wanted.rgb
    if not rgb:
        candidates = [topic for topic in images if not _NOT_COLOR.search(topic.lower())]
        named = [topic for topic in candidates if _COLOR.search(topic.lower())]
        if not candidates:
            raise BagError(f"{where}: no colour image topic found; name it with --rgb. Topics: {_listing(available)}")
        rgb = min(named or candidates, key=size)
    depth = wanted.depth
    if not depth:
        candidates = [topic for topic in images if _is_depth(topic, available[topic][0]) and topic != rgb]
        if not candidates:
            raise BagError(f"{where}: no depth image topic found; name it with --depth. Topics: {_listing(available)}")
        depth = min(candidates, key=lambda topic: (not _REGISTERED.search(topic), -_common(topic, rgb), *size(topic)))
    info = wanted.camera_info or _info_beside(rgb, available)
    labels = wanted.labels
    if not labels and need_labels:
        texts = [topic for topic, (kind, _) in available.items() if kind == STRING and topic.split("/")[-1] == "labels"]
        if not texts:
            raise BagError(
                f"{where}: no topic called 'labels' of type {STRING}; name it with --labels-topic, or say what is in"
                " view with --label NAME or --labels FILE.yaml"
            )
        labels = min(texts, key=size)
    return BagTopics(rgb, depth, info, labels if need_labels else "")


def _is_depth(topic: str, kind: str) -> bool:
    name = topic.lower()
    if "depth" not in name or "mask" in name:
        return False
    return kind == IMAGE or name.endswith("compresseddepth")


def _info_beside(rgb: str, available: Mapping[str, tuple[str, int | None]]) -> str:
    infos = [topic for topic, (kind, _) in available.items() if kind == CAMERA_INFO]
    beside = [topic for topic in infos if rgb.startswith(topic.rpartition("/")[0] + "/")]
    usable = [topic for topic in beside if not _NOT_COLOR.search(topic.lower())]
    return max(usable or beside, key=lambda topic: (_common(topic, rgb), topic), default="")


def _common(first: str, second: str) -> int:
    """Count the leading path elements that two topics share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first.split("/"), second.split("/"))))


def _listing(available: Mapping[str, tuple[str, int | None]]) -> str:
    return ", ".join(f"{topic} [{kind}]" for topic, (kind, _) in sorted(available.items())) or "none"
