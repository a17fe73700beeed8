# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pixels of a sample store: encoding, decoding, and writing files that are whole or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.store_index import Entry
from deal_ros.files import write_file
from deal_ros.images import ImageError, encoded_size, metres_from_units, units_from_metres
from deal_ros.sample import Sample

INCOMING = "incoming"
KINDS = ("rgb", "depth", "mask")
_JPEG_QUALITY = 95
_MAX_FILE_BYTES = 1 << 29
_COLOR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


class StoreError(DatasetError):
    """A sample store that cannot be opened, read or written; the message names the file and the remedy."""


@dataclass(frozen=True)
class EncodedSample:
    """A sample ready to be written: file contents and everything of its line but the id.

    Args:
        files: by kind (``rgb``, ``depth``, ``mask``), the file's extension and its bytes, or a file to take over.
        sample: what it was made from, without need of its pixels any more.
        sequence: the recording it belongs to.
    """

    files: dict[str, tuple[str, bytes | Path]]
    labels: frozenset[str] | None
    camera_matrix: tuple[float, ...] | None
    stamp_ns: int
    frame_id: str
    source: str
    sequence: str
    size: tuple[int, int]


def encode_sample(
    sample: Sample,
    sequence: str,
    image_format: str,
    depth_unit_m: float,
    encoded: Mapping[str, tuple[str, bytes]] | None = None,
) -> EncodedSample:
    """Compress a sample. Thread-safe, and OpenCV works without the interpreter's lock: use many threads at will.

    Args:
        sample: what to store.
        sequence: the recording it belongs to.
        image_format: ``jpg`` (quality 95) or ``png`` (lossless).
        depth_unit_m: metres per unit of the 16-bit depth file.
        encoded: files that are there already, by kind, as their extension and bytes: a camera's own JPEG is kept as
            it is. The caller has decoded them and vouches for size and type.

    Raises:
        StoreError: if OpenCV cannot compress it.
    """
    files: dict[str, tuple[str, bytes | Path]] = dict(encoded or {})
    if "rgb" not in files:
        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if image_format == "jpg" else []
        files["rgb"] = (image_format, _encode(image_format, cv2.cvtColor(sample.rgb, cv2.COLOR_RGB2BGR), options))
    if "depth" not in files:
        files["depth"] = ("png", encode_png(units_from_metres(sample.depth_m, depth_unit_m)))
    if sample.mask is not None:
        files["mask"] = ("png", encode_png(np.ascontiguousarray(sample.mask)))
    matrix = sample.camera_matrix
    return EncodedSample(
        files=files,
        labels=sample.labels,
        camera_matrix=None if matrix is None else tuple(float(value) for value in np.asarray(matrix).ravel()),
        stamp_ns=int(sample.stamp_ns),
        frame_id=sample.frame_id,
        source=sample.source,
        sequence=sequence,
        size=sample.size,
    )


def read_sample(folder: Path, entry: Entry, depth_unit_m: float) -> Sample:
    """Decode the files of one line.

    Raises:
        StoreError: if a file is missing, damaged, a link, or of another size than the line says.
    """
    bgr, raw = read_image(folder, "rgb", entry), read_image(folder, "depth", entry)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise StoreError(f"{folder}/depth/{entry.id}.png: must be a 16-bit grey PNG, got {raw.dtype} {raw.shape}")
    mask = None
    if entry.mask:
        mask = read_image(folder, "mask", entry)
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise StoreError(f"{folder}/mask/{entry.id}.png: must be an 8-bit grey PNG, got {mask.dtype} {mask.shape}")
    matrix = entry.camera_matrix
    return Sample(
        rgb=np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8),
        depth_m=metres_from_units(raw, depth_unit_m),
        labels=None if entry.labels is None else frozenset(entry.labels),
        mask=mask,
        camera_matrix=None if matrix is None else np.array(matrix, np.float64).reshape(3, 3),
        stamp_ns=entry.stamp_ns,
        frame_id=entry.frame_id,
        source=entry.source,
    )


def file_name(kind: str, name: str, extension: str) -> str:
    """Path of a file relative to the store."""
    return f"{kind}/{name}.{extension}"


def take_over(source: Path, target: Path) -> None:
    """Give a committed file of one store to another: as a hard link, or as a copy on another disk.

    Raises:
        StoreError: if the source is a symbolic link.
        OSError: as the system says.
    """
    if source.is_symlink():
        raise StoreError(f"{source}: must be a file, is a symbolic link")
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        write_file(target, source.read_bytes())


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove every file that samples of these ids may have, committed or on their way. Missing ones are fine."""
    for name in names:
        for kind in KINDS:
            for extension in ("jpg", "png"):
                (folder / file_name(kind, name, extension)).unlink(missing_ok=True)
                (folder / INCOMING / f"{name}.{kind}.{extension}").unlink(missing_ok=True)


def encode_png(image: NDArray[Any]) -> bytes:
    """Compress losslessly; OpenCV's default is its fastest setting, naming a level halves the speed."""
    return _encode("png", image, [])


def read_image(folder: Path, kind: str, entry: Entry) -> NDArray[Any]:
    """One file of a sample as OpenCV decodes it (colour: BGR), checked against its line.

    Raises:
        StoreError: if it is missing, damaged, a link, or of another size than the line says.
    """
    flag = _COLOR if kind == "rgb" else cv2.IMREAD_UNCHANGED
    return _read_image(folder, kind, entry.id, entry.rgb if kind == "rgb" else "png", flag, entry.size)


def _encode(extension: str, image: NDArray[Any], options: list[int]) -> bytes:
    done, data = cv2.imencode(f".{extension}", image, options)
    if not done:
        raise StoreError(f"OpenCV could not compress a {image.dtype} {image.shape} image as {extension}")
    return data.tobytes()


def _read_image(folder: Path, kind: str, name: str, extension: str, flag: int, size: tuple[int, int]) -> NDArray[Any]:
    path = folder / file_name(kind, name, extension)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            length = os.fstat(descriptor).st_size
            if length > _MAX_FILE_BYTES:
                raise StoreError(f"{path}: must have at most {_MAX_FILE_BYTES} bytes, got {length}")
            data = np.frombuffer(file.read(), np.uint8)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; `deal check` lists all such files") from error
    try:
        _, height, width = encoded_size(data)
        if (height, width) != size:
            raise ImageError(f"must have the size {size} of its line, got {(height, width)}")
        image = cv2.imdecode(data, flag)
    except (ImageError, cv2.error) as error:
        raise StoreError(f"{path}: damaged: {error}") from error
    if image is None:
        raise StoreError(f"{path}: damaged: OpenCV cannot decode it")
    return image
