# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What images say of their size before they are decoded, and whether their bytes can hold it.

Sizes come from strangers: they are checked before memory is spent on them.
"""

from __future__ import annotations

import struct
from typing import Any

MAX_PIXELS = 1 << 26
"""Largest accepted image, in pixels (67 million; the largest RGB-D cameras have 13)."""
MAX_SIDE = 1 << 15
MAX_RVL_PIXELS = 1 << 24
"""Largest accepted RVL image (17 million). One without returns has 16 bytes whatever its size: length sets no bound."""
MAX_JPEG_SCANS = 100
"""A decoder goes through the whole image for each scan of a progressive JPEG, of a few bytes; encoders make ten."""
_MAX_PNG_CHUNKS = 100_000  # encoders write one for each 8 kB or more
_MAX_JPEG_SEGMENTS = 10_000  # before the frame header; a large colour profile has 255
DEPTH_HEADER_BYTES = 12
"""Length of the header before the image in a compressedDepth message: format and two quantisation parameters."""


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


def encoded_size(data: Any) -> tuple[str, int, int]:
    """Return kind, height and width that a PNG or JPEG declares in its header; reads no pixel.

    A JPEG decoder fills what is missing with grey: a few bytes would buy 67 million pixels. A JPEG must therefore have
    a bit for each 8 × 8 block of each component, less than which Huffman codes cannot take. A PNG decoder gives up at
    the first row that is missing, before it has touched the memory for the others; but OpenCV's makes room for a chunk
    of whatever length it declares, so that each chunk must be there whole.

    Args:
        data: anything with a buffer: ``bytes``, uint8 array.

    Raises:
        ImageError: if it is neither, or its header is cut short, or the size is refused by :func:`check_size`, or a
            PNG chunk is longer than what is left, or a JPEG is too short for its size, has more than 100 scans, or a
            kind of compression that no camera uses.
    """
    view = memoryview(data).cast("B")
    if view[:8] == b"\x89PNG\r\n\x1a\n" and len(view) >= 33 and view[12:16] == b"IHDR":
        width, height = struct.unpack(">II", view[16:24])
        kind = "png"
        _check_png_chunks(view)
    elif view[:3] == b"\xff\xd8\xff":
        height, width = _jpeg_size(view)
        kind = "jpg"
    else:
        raise ImageError(f"image data must be PNG or JPEG, got {len(view)} bytes that begin with {bytes(view[:8])!r}")
    check_size(height, width)
    return kind, height, width


def rvl_size(payload: memoryview) -> tuple[int, int]:
    """Return height and width that RVL depth declares in its first eight bytes.

    Raises:
        ImageError: if there are fewer bytes, or the size is refused; RVL may have 17 million pixels.
    """
    if payload.nbytes < 8:
        raise ImageError(f"RVL data must begin with 8 bytes of size, got {payload.nbytes} bytes")
    width, height = struct.unpack("<II", payload[:8])
    check_size(height, width)
    if height * width > MAX_RVL_PIXELS:
        raise ImageError(
            f"RVL image must have at most {MAX_RVL_PIXELS} pixels, got {height} x {width}; use compressedDepth png"
        )
    return height, width


def declared_size(message: Any) -> tuple[int, int]:
    """Return height and width that an image message declares, of whatever transport; reads no pixel.

    Args:
        message: as for :func:`decode_color` and :func:`decode_depth`.

    Raises:
        ImageError: if a compressed image has no readable header, or cannot have that size.
    """
    if not hasattr(message, "format"):
        return int(message.height), int(message.width)
    view = memoryview(message.data).cast("B")
    transport = str(message.format).lower()
    if "compresseddepth" in transport:
        view = view[DEPTH_HEADER_BYTES:]
        if "rvl" in transport:
            return rvl_size(view)
    return encoded_size(view)[1:]


def _check_png_chunks(view: memoryview) -> None:
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        left = len(view) - position - 12
        if left == -12:
            return
        length, kind = struct.unpack(">I4s", view[position : position + 8]) if left >= 0 else (0, b"")
        if length > left:
            raise ImageError(f"PNG chunk of {length} bytes must be there whole, got {max(0, left)}: cut short")
        if kind == b"IEND":
            return
        position += 12 + length
    raise ImageError(f"PNG must have at most {_MAX_PNG_CHUNKS} chunks")


def _jpeg_size(view: memoryview) -> tuple[int, int]:
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        if position + 10 > len(view) or view[position] != 0xFF:
            break
        marker = view[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _jpeg_frame(view, position)
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        position += 2 + struct.unpack(">H", view[position + 2 : position + 4])[0]
    raise ImageError("JPEG has no frame header: it is cut short or damaged")


def _jpeg_frame(view: memoryview, position: int) -> tuple[int, int]:
    """Size in the frame header at ``position``, after checking that the data can hold it."""
    process, components = view[position + 1] - 0xC0, view[position + 9]
    if process > 3:  # arithmetic codes take no least number of bits
        raise ImageError(f"JPEG must be baseline or progressive with Huffman codes, got SOF{process}")
    height, width = struct.unpack(">HH", view[position + 5 : position + 9])
    check_size(height, width)
    factors = bytes(view[position + 11 : position + 10 + 3 * components : 3])  # across and down, four bits each
    across, down = [factor >> 4 for factor in factors], [factor & 15 for factor in factors]
    if not 1 <= components == len(factors) <= 4 or not all(1 <= factor <= 4 for factor in (*across, *down)):
        raise ImageError(f"JPEG frame header must have 1..4 components sampled 1..4 times, got {components}")
    blocks = sum(-(-width * a // (8 * max(across))) * -(-height * d // (8 * max(down))) for a, d in zip(across, down))
    if blocks > 8 * len(view):
        raise ImageError(
            f"JPEG of {height} x {width} pixels must have at least {blocks // 8} bytes, got {len(view)}: cut short"
        )
    if process == 2 and (scans := view.tobytes().count(b"\xff\xda")) > MAX_JPEG_SCANS:
        raise ImageError(f"progressive JPEG must have at most {MAX_JPEG_SCANS} scans, got {scans}")
    return height, width
