# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading the image files of public data sets: photographs, class-id masks, and precomputed depth maps."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deal_ros.datasets.base import DatasetError
from deal_ros.images import ImageError, check_size, encoded_size

DepthKind = Literal["metric", "relative", "inverse", "none"]
DEPTH_KINDS: tuple[DepthKind, ...] = ("metric", "relative", "inverse", "none")
MAX_FILE_BYTES = 1 << 28
_DAMAGE = (
    *(OSError, ValueError, EOFError, LookupError, MemoryError, OverflowError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What Pillow, NumPy and zipfile raise for damaged files."""
_TIFF_PIXELS_PER_BYTE = 4096  # more than LZW and Deflate can do; strips may share their bytes
_FARTHEST = 10.0  # an inverse map's zero is put at this many times the nearest depth


@dataclass(frozen=True)
class DepthMaps:
    """A folder of depth maps that were computed elsewhere, one per image, named like the image.

    ``NAME.png`` is 16-bit grey, ``NAME.npz`` holds one array (or one named ``depth``), ``NAME.npy`` is an array.

    Args:
        folder: where they are; ``None`` goes with kind ``none``.
        kind: what the numbers mean. ``metric``: depth; PNG in units of ``unit_m``, arrays in metres; 0 and NaN are
            invalid. ``relative``: depth up to an unknown factor; 0 and NaN are invalid; scaled to a median of 1 m.
            ``inverse``: what MiDaS and Depth Anything give, larger is nearer, factor and offset unknown; only NaN is
            invalid; scaled to [0, 1] and turned into 1 / (0.1 + 0.9 q) m, so that planes stay nearly planes. ``none``:
            no depth at all; ``depth_m`` is 0 everywhere, which DEAL gives no weight.
        unit_m: metres per unit of metric PNGs.

    Raises:
        DatasetError: if the kind is unknown, the unit out of range, or the folder is not there.
    """

    folder: Path | None
    kind: DepthKind = "metric"
    unit_m: float = 0.001

    def __post_init__(self) -> None:
        """Refuse early; looking for each of thousands of files is left to :meth:`read`."""
        if self.kind not in DEPTH_KINDS:
            raise DatasetError(f"depth_kind must be one of {', '.join(DEPTH_KINDS)}, got {self.kind!r}")
        if not 1e-6 <= self.unit_m <= 1:
            raise DatasetError(f"depth_unit_m must be in 1e-6..1 metres, got {self.unit_m}")
        if self.kind != "none" and (self.folder is None or not self.folder.is_dir()):
            raise DatasetError(
                f"{self.folder}: no folder of depth maps; put one 16-bit PNG, .npz or .npy per image there (from a"
                " depth estimator: depth_kind='inverse' or 'relative'), name another with depth_folder=…, or use"
                " depth_kind='none' to do without"
            )

    def find(self, name: str) -> Path | None:
        """Find the file for image ``name`` (no extension), or ``None``."""
        if self.folder is None:
            return None
        paths = (self.folder / f"{name}{extension}" for extension in (".png", ".npz", ".npy"))
        return next((path for path in paths if path.is_file()), None)

    def read(self, name: str, size: tuple[int, int]) -> NDArray[np.float32]:
        """Depth float32 (H, W) in metres (see ``kind``), 0 = invalid, of the image ``name``.

        Raises:
            DatasetError: if there is no file, it cannot be read, or its size is not that of the image.
        """
        if self.kind == "none":
            return np.zeros(size, np.float32)
        path = self.find(name)
        if path is None:
            raise DatasetError(f"{self.folder}/{name}.png (or .npz, .npy): depth map is missing")
        values = read_array(path)
        if values.shape != size:
            raise DatasetError(f"{path}: depth must have the size of its image {size}, got {values.shape}; resample it")
        scale = self.unit_m if values.dtype == np.uint16 and self.kind == "metric" else 1.0
        return _as_metres(values.astype(np.float32) * np.float32(scale), self.kind)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Colour or grey photograph → RGB uint8 (H, W, 3), in the orientation of its pixels (EXIF is not applied).

    PNG, JPEG, or 8-bit TIFF, whatever the name says.

    Raises:
        DatasetError: if the file is missing, damaged, too large, or of another kind.
    """
    data = read_bytes(path)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _read_tiff(path, data)
    image = _decode(path, data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_ids(path: Path) -> NDArray[np.uint8]:
    """Class-id mask uint8 (H, W): an 8-bit grey PNG, or one with a palette, whose indices are the ids.

    Raises:
        DatasetError: if the file is missing, damaged or of another kind.
    """
    try:
        data = read_bytes(path, "mask ")
        encoded_size(data)
        # PNG alone: for others Pillow may start a program (EPS), and a file's name says nothing of its kind.
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in ("P", "L"):
                raise DatasetError(f"{path}: mask must be an 8-bit grey or palette PNG, got mode {image.mode}")
            return np.asarray(image, np.uint8)
    except (*_DAMAGE, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: mask cannot be read: {error}") from error


def read_png16(path: Path) -> NDArray[np.uint16]:
    """16-bit grey PNG → uint16 (H, W).

    Raises:
        DatasetError: if the file is missing, damaged or of another kind.
    """
    return _grey_png(path, np.uint16, "depth must be a 16-bit grey PNG")


def read_png8(path: Path) -> NDArray[np.uint8]:
    """8-bit grey PNG → uint8 (H, W).

    Raises:
        DatasetError: if the file is missing, damaged or of another kind.
    """
    return _grey_png(path, np.uint8, "must be an 8-bit grey PNG")


def read_array(path: Path) -> NDArray[np.generic]:
    """Depth values (H, W) from a 16-bit PNG, ``.npz`` or ``.npy``; pickled arrays are refused.

    Raises:
        DatasetError: if the file is missing, damaged or of another kind.
    """
    if path.suffix == ".png":
        return read_png16(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path}: must be a plain file, got mode {stat.filemode(status.st_mode)}")
        if status.st_size > MAX_FILE_BYTES or (zipfile.is_zipfile(path) and _unpacked(path) > MAX_FILE_BYTES):
            raise DatasetError(f"{path}: array must have at most {MAX_FILE_BYTES} bytes")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            values = loaded
        else:
            with loaded:
                names = loaded.files
                if "depth" not in names and len(names) != 1:
                    raise DatasetError(f"{path}: must hold one array or one named 'depth', got {', '.join(names)}")
                values = loaded["depth" if "depth" in names else names[0]]
    except _DAMAGE as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: array cannot be read: {error}") from error
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):  # (1, H, W) or (H, W, 1)
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fu":
        raise DatasetError(f"{path}: depth must be a float or unsigned (H, W) array, got {values.dtype} {values.shape}")
    return values


def _grey_png(path: Path, kind: type, expected: str) -> NDArray[Any]:
    image = _decode(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if image.dtype != kind or image.ndim != 2:
        raise DatasetError(f"{path}: {expected}, got {image.dtype} {image.shape}")
    return image


def _decode(path: Path, data: bytes, flags: int) -> NDArray[Any]:
    """PNG or JPEG as OpenCV decodes it, after a look at its header."""
    try:
        encoded_size(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (ImageError, cv2.error) as error:
        raise DatasetError(f"{path}: {error}") from error
    if image is None:
        raise DatasetError(f"{path}: image is damaged")
    return image


def _read_tiff(path: Path, data: bytes) -> NDArray[np.uint8]:
    """By Pillow: OpenCV fills what a TIFF lacks, and the two do not agree on the size where it is given twice."""
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            width, height = image.size
            check_size(height, width)
            if height * width > _TIFF_PIXELS_PER_BYTE * len(data):
                raise DatasetError(
                    f"{path}: TIFF of {height} x {width} pixels cannot have {len(data)} bytes: cut short"
                )
            if image.mode not in ("L", "RGB"):
                raise DatasetError(f"{path}: TIFF must be 8-bit grey or RGB, got mode {image.mode}")
            return np.asarray(image.convert("RGB"), np.uint8)
    except (*_DAMAGE, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: TIFF cannot be read: {error}") from error


def _unpacked(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(item.file_size for item in archive.infolist())


def read_bytes(path: Path, what: str = "") -> bytes:
    """Contents of a plain file of at most 256 MiB; :class:`DatasetError` if it is missing, larger, or unreadable."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever, a device never end
            raise DatasetError(f"{path}: must be a plain file, got mode {stat.filemode(status.st_mode)}")
        if status.st_size > MAX_FILE_BYTES:
            raise DatasetError(f"{path}: must have at most {MAX_FILE_BYTES} bytes, got {status.st_size}")
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {what}cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the name
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{str(path)!r}: {what}cannot be read: {error}") from error


def _as_metres(values: NDArray[np.float32], kind: DepthKind) -> NDArray[np.float32]:
    finite = np.isfinite(values)
    if kind == "inverse":
        if not finite.any():
            return np.zeros_like(values)
        low, high = float(values[finite].min()), float(values[finite].max())
        scaled = (np.where(finite, values, low) - low) / max(high - low, 1e-12)
        nearness = 1 / _FARTHEST + (1 - 1 / _FARTHEST) * scaled
        return np.where(finite, 1 / nearness, 0).astype(np.float32)
    valid = finite & (values > 0)
    depth = np.where(valid, values, 0).astype(np.float32)
    if kind == "relative" and valid.any():
        depth /= np.float32(np.median(depth[valid]))
    return depth
