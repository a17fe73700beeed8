# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image payloads → pixels, without ROS: for messages of rclpy, of ``rosbags``, or anything with the same fields.

Colour becomes uint8 (H, W, 3) RGB, depth float32 (H, W) metres with 0 = no return. Row padding (``step``) and byte
order (``is_bigendian``) are honoured; nothing is copied where NumPy can look at the message's own bytes. Sizes come
from strangers: they are checked before memory is spent on them.

References: REP 117 and 118 (depth); the depth transports' 12-byte header and inverse-depth quantisation as described in
``compressed_depth_image_transport``; RVL: A. D. Wilson, *Fast Lossless Depth Image Compression*, ISS 2017.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.image_headers import DEPTH_HEADER_BYTES, ImageError, check_size, encoded_size, rvl_size

MILLIMETRE = 0.001


def metres_from_units(raw: NDArray[np.uint16], unit_m: float = MILLIMETRE) -> NDArray[np.float32]:
    """Depth in camera units uint16 (H, W), 0 = no return → metres float32 (H, W), 0 = no return."""
    return raw.astype(np.float32) * np.float32(unit_m)


def units_from_metres(depth_m: NDArray[np.float32], unit_m: float = MILLIMETRE) -> NDArray[np.uint16]:
    """Undo :func:`metres_from_units`, rounding to the nearest unit.

    What does not fit becomes 0 (no return): NaN, ±Inf, negative values, and depth beyond 65535 units.

    Example:
        >>> units_from_metres(np.array([[0.0, 1.2344, 70.0, np.nan]], np.float32)).tolist()
        [[0, 1234, 0, 0]]
    """
    units = depth_m / np.float32(unit_m) + np.float32(0.5)
    fits = (units >= 1) & (units < 65536)
    with np.errstate(invalid="ignore"):  # what becomes of values that do not fit is multiplied by 0
        return units.astype(np.uint16) * fits


# --- messages ---------------------------------------------------------------------------------------------------------

_COLOR_LAYOUTS: dict[str, tuple[type, int, int | None]] = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": (np.uint16, 3, None),
    "bgr16": (np.uint16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": (np.uint16, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": (np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "mono16": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "16UC1": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
}
"""Colour encodings decoded here: sample type, channels, conversion. 16-bit ones keep their upper byte."""
_LONG_TAIL = ("bayer_", "yuv", "uyvy", "yuyv")
_SEMI_PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
"""A plane of luma, then one of half the height with both chromas in turn; ``step`` bytes a row in either."""
_NIBBLES_AT_ONCE = 1 << 20


def decode_color(message: Any, long_tail: Callable[[Any], Any] | None = None) -> NDArray[np.uint8]:
    """Decode a colour ``sensor_msgs/Image`` or ``CompressedImage``.

    Args:
        message: has ``format`` and ``data`` (JPEG or PNG), or ``height, width, encoding, is_bigendian, step, data``.
        long_tail: gives the RGB pixels of a Bayer or YUV image without padding; ``None`` takes ``rosbags-image``.

    Returns:
        uint8 (H, W, 3), RGB. For ``rgb8`` a view of the message's bytes: do not write to it.

    Raises:
        ImageError: if the encoding is unknown, or sizes and data contradict each other.
    """
    if hasattr(message, "format"):
        return _decode_compressed_color(message)
    encoding = str(message.encoding)
    if encoding.lower().startswith(_LONG_TAIL):
        return _decode_long_tail(message, long_tail or _by_rosbags_image)
    if encoding.lower() in _SEMI_PLANAR:
        return _decode_semi_planar(message, _SEMI_PLANAR[encoding.lower()])
    if encoding not in _COLOR_LAYOUTS:
        raise ImageError(
            f"colour encoding must be one of {', '.join(_COLOR_LAYOUTS)}, a Bayer or a YUV one, got {encoding[:40]!r}"
        )
    kind, channels, conversion = _COLOR_LAYOUTS[encoding]
    pixels = raw_view(message, np.dtype(kind), channels)
    if kind is np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return pixels if conversion is None else np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def decode_depth(message: Any) -> NDArray[np.float32]:
    """Decode a depth ``sensor_msgs/Image`` (16UC1 millimetres or 32FC1 metres) or a compressedDepth image.

    Returns:
        float32 (H, W), metres; NaN, ±Inf, negative and zero depth become 0. A new array.

    Raises:
        ImageError: if the encoding is not a depth encoding, or sizes and data contradict each other.
    """
    if hasattr(message, "format"):
        return _decode_compressed_depth(message)
    encoding = str(message.encoding)
    if encoding in ("16UC1", "mono16"):
        return metres_from_units(raw_view(message, np.dtype(np.uint16), 1))
    if encoding == "32FC1":
        return _clean(raw_view(message, np.dtype(np.float32), 1))
    raise ImageError(
        f"depth encoding must be 16UC1 (millimetres) or 32FC1 (metres), got {encoding[:40]!r};"
        " is this topic a depth image?"
    )


def raw_view(message: Any, kind: np.dtype[Any], channels: int) -> NDArray[Any]:
    """Look at the bytes of a raw image message as an array, without copying unless the byte order is foreign.

    Returns:
        (H, W) for one channel, else (H, W, channels), of ``kind``; rows may be padded (strided).

    Raises:
        ImageError: if ``step`` or the data are too short for the size.
    """
    height, width, step = int(message.height), int(message.width), int(message.step)
    check_size(height, width)
    pixel = kind.itemsize * channels
    if step < width * pixel:
        raise ImageError(f"step must be at least {width * pixel} bytes for {width} pixels of {pixel}, got {step}")
    data = np.frombuffer(message.data, np.uint8)
    needed = step * (height - 1) + width * pixel
    if data.nbytes < needed:
        raise ImageError(f"data must have {step * height} bytes for {height} rows of {step}, got {data.nbytes}")
    order = ">" if message.is_bigendian and kind.itemsize > 1 else "="
    if kind.itemsize > 1 and not message.is_bigendian:
        order = "<"
    shape, strides = (height, width, channels), (step, pixel, kind.itemsize)
    view: NDArray[Any] = np.ndarray(shape, kind.newbyteorder(order), data, strides=strides)  # type: ignore[arg-type]
    if not view.dtype.isnative:
        view = view.astype(kind)
    return view[..., 0] if channels == 1 else view


class Calibration(NamedTuple):
    """Matrix K of a camera info, and the size of the images that it holds for; 0 × 0 where the driver does not say.

    Args:
        matrix: float64 (3, 3), pixels.
        height, width: pixels.
    """

    matrix: NDArray[np.float64]
    height: int
    width: int

    def matrix_for(self, height: int, width: int) -> NDArray[np.float64] | None:
        """Return K for images of another size of the same shape; ``None`` where a crop or a stretch has no one answer.

        Pixel centres have whole coordinates: u becomes (u + ½)·s − ½.
        """
        if not self.height or not self.width:
            return self.matrix
        if abs(width * self.height - height * self.width) > max(self.height, self.width):  # by more than a pixel
            return None
        scale = np.array([[width / self.width], [height / self.height]])
        matrix = self.matrix.copy()
        matrix[:2] *= scale
        matrix[:2, 2:] += (scale - 1) / 2
        return matrix


def calibration(info: Any) -> Calibration | None:
    """Read a ``sensor_msgs/CameraInfo``; ``None`` where the camera is not calibrated."""
    values = np.asarray(info.k, np.float64)
    if values.size != 9 or not np.isfinite(values).all() or values[0] <= 0 or values[4] <= 0:
        return None
    matrix, roi = values.reshape(3, 3).copy(), info.roi
    if not (roi.width and roi.height):  # all of the image
        return Calibration(matrix, int(info.height), int(info.width))
    matrix[:2, 2] -= roi.x_offset, roi.y_offset
    return Calibration(matrix, int(roi.height), int(roi.width))


def stamp_ns(header: Any) -> int:
    """Header stamp in nanoseconds; 0 means that the driver did not set it."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _decode_compressed_color(message: Any) -> NDArray[np.uint8]:
    data = np.frombuffer(message.data, np.uint8)
    encoded_size(data)
    image = _imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _decode_compressed_depth(message: Any) -> NDArray[np.float32]:
    encoding, _, transport = str(message.format).partition(";")
    encoding, transport = encoding.strip(), transport.strip().lower()
    if "compresseddepth" not in transport or encoding not in ("16UC1", "mono16", "32FC1"):
        raise ImageError(
            "compressed depth must have the format '16UC1; compressedDepth png' (or 32FC1, or rvl),"
            f" got {str(message.format)[:60]!r}; record the compressedDepth topic, JPEG destroys depth"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.nbytes <= DEPTH_HEADER_BYTES:
        raise ImageError(f"compressedDepth data must have a {DEPTH_HEADER_BYTES}-byte header, got {data.nbytes} bytes")
    quant_a, quant_b = struct.unpack("<ff", data[4:12].tobytes())
    payload = data[DEPTH_HEADER_BYTES:]
    if "rvl" in transport:
        raw = decode_rvl(payload)
    else:
        kind, _, _ = encoded_size(payload)
        raw = _imdecode(payload, cv2.IMREAD_UNCHANGED) if kind == "png" else np.zeros((0, 0, 0), np.uint8)
        if raw.dtype != np.uint16 or raw.ndim != 2:
            raise ImageError(f"compressedDepth must hold a 16-bit grey PNG, got {kind} {raw.dtype} {raw.shape}")
    if encoding != "32FC1":
        return metres_from_units(raw)
    with np.errstate(all="ignore"):
        depth = np.float32(quant_a) / (raw.astype(np.float32) - np.float32(quant_b))
    depth[raw == 0] = 0
    return _clean(depth)


def decode_rvl(payload: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Decode RVL depth: columns and rows as uint32, then runs of zeros and of zigzag deltas in 4-bit varints.

    Returns:
        uint16 (H, W), 0 = no return.

    Raises:
        ImageError: if the data are cut short or say more pixels than the size.
    """
    height, width = rvl_size(payload.data)
    pixels = height * width
    # What follows the longest code that so many pixels can have is not looked at: eight nibbles for each.
    words = payload[8 : 8 + min(4 * pixels, payload.nbytes - 8) // 4 * 4]
    # Nibbles come most significant first out of little-endian 32-bit words.
    swapped = words.reshape(-1, 4)[:, ::-1].reshape(-1)
    nibbles = np.stack([swapped >> 4, swapped & 15], axis=1).reshape(-1)
    return _fill_runs(_varints(nibbles), pixels).reshape(height, width)


def _varints(nibbles: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Read numbers from groups of three bits, least significant first, the fourth set while more follow.

    By the million, since indices take eight bytes for each nibble.
    """
    found, start = [np.zeros(0, np.int32)], 0
    while start < len(nibbles):
        part = nibbles[start : start + _NIBBLES_AT_ONCE]
        ends = np.flatnonzero(part < 8)
        if not len(ends):  # unfinished, or longer than any number
            break
        starts = np.concatenate([[0], ends[:-1] + 1])
        lengths = ends - starts + 1
        values = np.zeros(len(ends), np.int32)
        for place in range(min(10, int(lengths.max()))):  # 30 bits; counts have at most 25, deltas 17
            longer = lengths > place
            values[longer] |= (part[starts[longer] + place].astype(np.int32) & 7) << (3 * place)
        found.append(values)
        start += int(ends[-1]) + 1
    return np.concatenate(found)


def _fill_runs(values: NDArray[np.int32], pixels: int) -> NDArray[np.uint16]:
    nonzero = np.zeros(pixels, bool)
    is_delta = np.zeros(len(values), bool)
    read = filled = 0
    while filled < pixels:
        if read + 2 > len(values):
            raise ImageError(f"RVL data end after {filled} of {pixels} pixels")
        start = filled + int(values[read])
        stop = start + int(values[read + 1])
        if stop > pixels or stop == filled:
            raise ImageError(f"RVL run ends at pixel {stop}, must lie within {filled + 1}..{pixels}")
        nonzero[start:stop] = True
        is_delta[read + 2 : read + 2 + stop - start] = True
        if read + 2 + stop - start > len(values):
            raise ImageError(f"RVL data end within a run at pixel {start}")
        read += 2 + stop - start
        filled = stop
    deltas = values[is_delta]
    depth = np.zeros(pixels, np.uint16)
    # Sums wrap as the 16-bit depth does.
    depth[nonzero] = np.cumsum(((deltas >> 1) ^ -(deltas & 1)).astype(np.uint16), dtype=np.uint16)
    return depth


def _decode_semi_planar(message: Any, conversion: int) -> NDArray[np.uint8]:
    height, width = int(message.height), int(message.width)
    check_size(height, width)
    if height % 2 or width % 2:
        raise ImageError(f"{message.encoding} needs even height and width, got {height} x {width}")
    planes = SimpleNamespace(
        height=height * 3 // 2, width=width, step=message.step, is_bigendian=False, data=message.data
    )
    pixels = np.ascontiguousarray(raw_view(planes, np.dtype(np.uint8), 1))
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def _decode_long_tail(message: Any, convert: Callable[[Any], Any]) -> NDArray[np.uint8]:
    """Bayer and YUV, by a library, after the layout has been checked here and padding removed."""
    encoding = str(message.encoding).lower()
    wide = np.dtype(np.uint16) if encoding.endswith("16") else np.dtype(np.uint8)
    channels = 2 if encoding.startswith(("yuv", "uyvy", "yuyv")) else 1
    pixels = np.ascontiguousarray(raw_view(message, wide, channels))
    compact = SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=False,
        step=pixels.strides[0],
        data=pixels.reshape(-1).view(np.uint8),
    )
    try:
        return np.asarray(convert(compact), np.uint8)
    except (cv2.error, ValueError, TypeError, RuntimeError) as error:
        raise ImageError(f"colour encoding {encoding[:40]!r} cannot be decoded: {error}") from error


def _by_rosbags_image(message: Any) -> Any:
    try:
        from rosbags.image import ImageError as LibraryError
        from rosbags.image import message_to_cvimage
    except ImportError as error:
        raise ValueError("it needs rosbags-image; pip install rosbags-image") from error
    try:
        return message_to_cvimage(message, "rgb8")
    except LibraryError as error:
        raise ValueError(str(error)) from error


def _imdecode(data: NDArray[np.uint8], flags: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ImageError(f"image data cannot be decoded: {error}") from error
    if image is None:
        raise ImageError(f"image data cannot be decoded: {data.nbytes} bytes are cut short or damaged")
    return image


def _clean(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0)).astype(np.float32, copy=False)
