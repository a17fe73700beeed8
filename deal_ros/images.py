# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth units and the outsides of encoded images: what can be said before a decoder touches the bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 1 << 26
"""Largest accepted image, in pixels (67 million; the largest RGB-D cameras have 13)."""
MAX_SIDE = 1 << 15
MILLIMETRE = 0.001


class ImageError(ValueError):
    """An image that cannot be used; the message says what was expected and what came."""


def check_size(height: int, width: int) -> None:
    """Refuse sizes that no camera has, before memory is spent on them.

    Raises:
        ImageError: if a side is not within 1..32768 or the image has more than 67 million pixels.
    """
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise ImageError(
            f"image must have 1..{MAX_SIDE} rows and columns and at most {MAX_PIXELS} pixels, got {height} x {width}"
        )


def metres_from_units(raw: NDArray[np.uint16], unit_m: float = MILLIMETRE) -> NDArray[np.float32]:
    """Depth in camera units uint16 (H, W), 0 = no return → metres float32 (H, W), 0 = no return."""
    return raw.astype(np.float32) * np.float32(unit_m)


def units_from_metres(depth_m: NDArray[np.float32], unit_m: float = MILLIMETRE) -> NDArray[np.uint16]:
    """The inverse of :func:`metres_from_units`, rounded to the nearest unit.

    What does not fit becomes 0 (no return): NaN, ±Inf, negative values, and depth beyond 65535 units.

    Example:
        >>> units_from_metres(np.array([[0.0, 1.2344, 70.0, np.nan]], np.float32)).tolist()
        [[0, 1234, 0, 0]]
    """
    units = depth_m / np.float32(unit_m) + np.float32(0.5)
    fits = (units >= 1) & (units < 65536)
    return np.where(fits, units, 0).astype(np.uint16)


def encoded_size(data: Any) -> tuple[str, int, int]:
    """Kind, height and width that a PNG or JPEG declares in its header; reads no pixel.

    Args:
        data: anything with a buffer: ``bytes``, uint8 array.

    Raises:
        ImageError: if it is neither, or its header is cut short, or the size is refused by :func:`check_size`.
    """
    view = memoryview(data).cast("B")
    if view[:8] == b"\x89PNG\r\n\x1a\n" and len(view) >= 33 and view[12:16] == b"IHDR":
        width, height = struct.unpack(">II", view[16:24])
        kind = "png"
    elif view[:3] == b"\xff\xd8\xff":
        height, width = _jpeg_size(view)
        kind = "jpg"
    else:
        raise ImageError(f"image data must be PNG or JPEG, got {len(view)} bytes that begin with {bytes(view[:8])!r}")
    check_size(height, width)
    return kind, height, width


def _jpeg_size(view: memoryview) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(view):
        if view[position] != 0xFF:
            break
        marker = view[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", view[position + 5 : position + 9])
            return height, width
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        position += 2 + struct.unpack(">H", view[position + 2 : position + 4])[0]
    raise ImageError("JPEG has no frame header: it is cut short or damaged")
