# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A pair of raw messages → a frame, measured and as far compressed as it came: the work of an import's threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deal_ros.datasets.bag_reader import deserialize
from deal_ros.datasets.keyframes import FrameTraits, measure
from deal_ros.datasets.mcap_stream import RawMessage
from deal_ros.images import (
    DEPTH_HEADER_BYTES,
    MILLIMETRE,
    Calibration,
    ImageError,
    decode_color,
    decode_depth,
    encoded_size,
)
from deal_ros.sample import Sample


@dataclass(frozen=True)
class RawFrame:
    """Two paired messages as recorded, and what held when they were received.

    Args:
        rgb: the colour message.
        depth: the depth message.
        rgb_type: message type of colour.
        depth_type: message type of depth.
        stamp_ns: colour's stamp.
        labels: classes in view.
        calibration: of the camera, or None.
        source: the colour topic.
    """

    rgb: RawMessage
    depth: RawMessage
    rgb_type: str
    depth_type: str
    stamp_ns: int
    labels: frozenset[str]
    calibration: Calibration | None
    source: str


@dataclass(frozen=True)
class DecodedFrame:
    """A frame, its traits, and the files that the store can take as the camera's driver made them."""

    sample: Sample
    traits: FrameTraits
    encoded: dict[str, tuple[str, bytes]]


def decode_frame(raw: RawFrame, image_format: str, depth_unit_m: float) -> DecodedFrame:
    """Decode and measure one frame. Thread-safe.

    Args:
        raw: the messages.
        image_format: of the store, decides whether a PNG is taken as it is; a JPEG always is, it only loses by more.
        depth_unit_m: of the store, decides whether a depth PNG in millimetres is.

    Raises:
        ImageError: if an image cannot be decoded.
        BagError: if the bytes are not such a message.
        DamageError: if they cannot be read.
        ValueError: if the sizes of colour and depth differ.
    """
    color, depth = deserialize(raw.rgb.data, raw.rgb_type), deserialize(raw.depth.data, raw.depth_type)
    rgb = decode_color(color)
    sample = Sample(
        rgb=rgb,
        depth_m=decode_depth(depth),
        labels=raw.labels,
        camera_matrix=None if raw.calibration is None else raw.calibration.matrix_for(*rgb.shape[:2]),
        stamp_ns=raw.stamp_ns,
        frame_id=printable(str(color.header.frame_id))[:256],
        source=raw.source,
    )
    encoded = {}
    if hasattr(color, "format"):
        kind = _plain_file(color.data, sample)
        if kind == "jpg" or kind == image_format:
            encoded["rgb"] = (kind, color.data.tobytes())
    if hasattr(depth, "format") and not str(depth.format).startswith("32FC1") and depth_unit_m == MILLIMETRE:
        payload = depth.data[DEPTH_HEADER_BYTES:]
        if _plain_file(payload, sample) == "png":
            encoded["depth"] = ("png", payload.tobytes())
    return DecodedFrame(sample, measure(sample), encoded)


def printable(text: str) -> str:
    """``text`` with what cannot be printed replaced by ``_``: names in recordings come from strangers."""
    return "".join(letter if letter.isprintable() else "_" for letter in text)


def _plain_file(data: Any, sample: Sample) -> str:
    """Kind of an image file of the sample's size and of an ordinary length; empty for anything else."""
    try:
        kind, height, width = encoded_size(data)
    except ImageError:
        return ""
    usual = data.nbytes <= 4 * height * width + (1 << 16)
    return kind if usual and (height, width) == sample.size else ""
