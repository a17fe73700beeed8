# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writers of image payloads for tests: the other side of deal_ros.images, written from the formats' descriptions."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np


def raw_message(pixels: np.ndarray, encoding: str, *, padding: int = 0, big_endian: bool = False) -> SimpleNamespace:
    """A sensor_msgs/Image with ``padding`` rubbish bytes behind each row."""
    height, width = pixels.shape[:2]
    swapped = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.ascontiguousarray(swapped).reshape(height, -1).view(np.uint8)
    data = np.hstack([rows, np.full((height, padding), 0xA5, np.uint8)])
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=data.shape[1],
        data=data.tobytes(),
    )


def compressed_message(rgb: np.ndarray, kind: str = "png") -> SimpleNamespace:
    """A sensor_msgs/CompressedImage as compressed_image_transport makes it."""
    _, data = cv2.imencode(f".{kind}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    name = {"jpg": "jpeg", "png": "png"}[kind]
    return SimpleNamespace(format=f"rgb8; {name} compressed bgr8", data=data.tobytes())


def compressed_depth_message(
    raw: np.ndarray, encoding: str = "16UC1", transport: str = "png", quantisation=(0.0, 0.0)
) -> SimpleNamespace:
    """A compressedDepth message around 16-bit values."""
    if transport == "png":
        payload = cv2.imencode(".png", raw)[1].tobytes()
    else:
        payload = struct.pack("<II", raw.shape[1], raw.shape[0]) + encode_rvl(raw)
    data = struct.pack("<iff", 0, *quantisation) + payload
    return SimpleNamespace(format=f"{encoding}; compressedDepth {transport}", data=data)


def inverse_depth(depth_m: np.ndarray, depth_z0: float = 100.0, depth_max: float = 10.0):
    """Quantise metres as the depth transport does; returns 16-bit values and its two parameters."""
    quant_a = depth_z0 * (depth_z0 + 1)
    quant_b = 1 - quant_a / depth_max
    with np.errstate(all="ignore"):
        values = quant_a / depth_m + quant_b
    valid = np.isfinite(depth_m) & (depth_m > 0) & (depth_m < depth_max)
    return np.where(valid, np.round(values), 0).astype(np.uint16), (quant_a, quant_b)


def encode_rvl(raw: np.ndarray) -> bytes:
    """RVL, value by value: the slow and obvious way round."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | (8 if value else 0))
            if not value:
                return

    pixels, position, previous = raw.reshape(-1).astype(int).tolist(), 0, 0
    while position < len(pixels):
        start = position
        while position < len(pixels) and pixels[position] == 0:
            position += 1
        put(position - start)
        start = position
        while position < len(pixels) and pixels[position]:
            position += 1
        put(position - start)
        for value in pixels[start:position]:
            delta, previous = value - previous, value
            put((delta << 1) ^ (delta >> 31))
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{nibble:x}" for nibble in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack(f"<{len(words)}I", *words)
