# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The index of a sample store in memory: about 60 bytes per sample, and its cache on disk.

``samples.jsonl`` is the truth. The cache (``index.npz``) only spares parsing it: it names the length and the CRC-32 of
the bytes it covers and is thrown away when they differ; lines behind it are parsed as usual.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deal_ros.files import replacing

logger = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,79}")
_SEQUENCE_LIMIT = 256
_BLOCK = 1 << 22
MAX_LINE_BYTES = 1 << 16
CACHE_NAME = "index.npz"
UNKNOWN_CLASS = "unknown class"
"""Begins the reason why a line is broken that names a class which ``store.json`` lacks."""
_CACHE_VERSION = 2
_ROW = np.dtype(
    [
        ("offset", "<i8"),
        ("stamp", "<i8"),
        ("labels", "<u8", (4,)),
        ("sequence", "<i4"),
        ("labelled", "u1"),
        ("checksum", "<u4"),  # of the line, without its newline
    ]
)

_Row = tuple[int, int, tuple[int, ...], int, bool, int]
_NO_LABELS = (0, 0, 0, 0)
_KNOWN_LIMIT = 100_000
_PLAIN = rb"[ !#-\[\]-~]"  # printable ASCII that JSON writes as it is
_OUR_LINE = re.compile(
    rb'\{"id":"[A-Za-z0-9][A-Za-z0-9_\-]{0,79}","stamp_ns":([1-9][0-9]{0,18}|0),"labels":(null|\[[^\]\\]{0,16384}\]),'
    rb'"sequence":"(' + _PLAIN + rb'{0,256})","source":"' + _PLAIN + rb'*","frame_id":"' + _PLAIN + rb'*",'
    rb'"size":\[[1-9][0-9]{0,3},[1-9][0-9]{0,3}\],"rgb":"(?:jpg|png)","mask":(?:true|false),'
    rb'"camera_matrix":(?:null|\[-?[0-9]{1,9}\.[0-9]{1,20}(?:,-?[0-9]{1,9}\.[0-9]{1,20}){8}\])\}'
)
"""A line exactly as :meth:`Entry.to_line` writes it, with an ASCII sequence; others take the way through JSON."""


class LineError(ValueError):
    """A line of the index that cannot be used."""


@dataclass(frozen=True)
class Entry:
    """One line of ``samples.jsonl``: what is known of a sample besides its pixels.

    Args:
        id: the name of its files.
        stamp_ns: capture time in nanoseconds.
        labels: classes in view in id order, or ``None`` when nobody said.
        camera_matrix: nine numbers, row by row, or ``None``.
        frame_id: optical frame.
        source: topic, bag or file it came from.
        sequence: the recording it belongs to.
        rgb: file type of the colour image, ``jpg`` or ``png``.
        size: height and width in pixels.
        mask: whether there is a true mask.
    """

    id: str
    stamp_ns: int
    labels: tuple[str, ...] | None
    camera_matrix: tuple[float, ...] | None
    frame_id: str
    source: str
    sequence: str
    rgb: str
    size: tuple[int, int]
    mask: bool

    def to_line(self) -> bytes:
        """Return the JSON line, newline included."""
        values = {
            "id": self.id,
            "stamp_ns": self.stamp_ns,
            "labels": None if self.labels is None else list(self.labels),
            "sequence": self.sequence,
            "source": self.source,
            "frame_id": self.frame_id,
            "size": list(self.size),
            "rgb": self.rgb,
            "mask": self.mask,
            "camera_matrix": None if self.camera_matrix is None else list(self.camera_matrix),
        }
        return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """Parse and check one line.

        Raises:
            LineError: if it is not such a line; nothing in it is trusted.
        """
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LineError(f"not JSON: {error}") from error
        if not isinstance(values, dict):
            raise LineError("not a JSON object")
        name, stamp, labels = values.get("id"), values.get("stamp_ns"), values.get("labels")
        size, matrix, sequence = values.get("size"), values.get("camera_matrix"), values.get("sequence")
        frame_id, source = values.get("frame_id"), values.get("source")
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise LineError(f"unusable id {str(name)[:80]!r}")
        if type(stamp) is not int or not -(1 << 63) <= stamp < 1 << 63:
            raise LineError("stamp_ns must be a 64-bit integer")
        if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
            raise LineError("labels must be null or a list of names")
        if not isinstance(sequence, str) or len(sequence) > _SEQUENCE_LIMIT:
            raise LineError(f"sequence must be a text of at most {_SEQUENCE_LIMIT} characters")
        if not isinstance(frame_id, str) or not isinstance(source, str):
            raise LineError("frame_id and source must be texts")
        if values.get("rgb") not in ("jpg", "png") or not isinstance(values.get("mask"), bool):
            raise LineError("rgb must be 'jpg' or 'png' and mask true or false")
        if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n < 1 << 16 for n in size)):
            raise LineError(f"size must be [height, width], got {size!r:.80}")
        if matrix is not None and not _is_matrix(matrix):
            raise LineError("camera_matrix must be null or nine finite numbers")
        return cls(
            id=name,
            stamp_ns=stamp,
            labels=None if labels is None else tuple(labels),
            camera_matrix=None if matrix is None else tuple(map(float, matrix)),
            frame_id=frame_id,
            source=source,
            sequence=sequence,
            rgb=values["rgb"],
            size=(size[0], size[1]),
            mask=values["mask"],
        )


def _is_matrix(values: Any) -> bool:
    numbers = isinstance(values, list) and len(values) == 9 and all(type(v) in (int, float) for v in values)
    return numbers and all(abs(v) < 1e12 for v in values)


class StoreIndex:
    """Offsets, stamps, labels and sequences of all lines, in growing arrays.

    Args:
        classes: class names in id order; a line with another name is broken.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.set_classes(classes)
        self._rows = np.zeros(1024, _ROW)
        self._size = 0
        self.sequences: list[str] = []
        self._sequence_ids: dict[str, int] = {}
        self._known_sequences: dict[bytes, int] = {}
        self.end = 0
        """Bytes of ``samples.jsonl`` that are covered: the end of the last whole line."""
        self.checksum = 0
        """CRC-32 of these bytes."""
        self.broken: list[str] = []
        """One message per line that cannot be used."""

    def set_classes(self, classes: Sequence[str]) -> None:
        """Take a longer list of classes; the ones known keep their ids."""
        self.classes = tuple(classes)
        self._class_ids = {name: index for index, name in enumerate(self.classes)}
        self._known_labels: dict[bytes, tuple[tuple[int, ...], bool]] = {}

    def __len__(self) -> int:
        """Return the number of usable lines."""
        return self._size

    @property
    def rows(self) -> NDArray[Any]:
        """Return the rows as a structured array: offset, stamp, labels (256 bits), sequence, labelled, checksum."""
        return self._rows[: self._size]

    def add_line(self, line: bytes) -> None:
        """Add a line (newline included) that follows directly behind those covered."""
        start = self.end
        self._pass_over(line)
        self._append([self._parsed(start, line.rstrip(b"\n"))])

    def _parsed(self, start: int, line: bytes) -> _Row | None:
        try:
            entry = Entry.from_line(line)
            words = _NO_LABELS if entry.labels is None else self._words(entry.labels)
        except LineError as error:
            self.broken.append(f"byte {start}: {error}")
            return None
        number = self._sequence_id(entry.sequence)
        return start, entry.stamp_ns, words, number, entry.labels is not None, zlib.crc32(line)

    def _parsed_fast(self, start: int, line: bytes) -> _Row | None:
        """As :meth:`_parsed`, for lines exactly as we write them; three times faster, which a million lines need."""
        found = _OUR_LINE.fullmatch(line)
        if found is None:
            return self._parsed(start, line)
        stamp, labels, sequence = found.groups()
        known = self._known_labels.get(labels)
        if known is None or (len(stamp) > 18 and int(stamp) >= 1 << 63):
            row = self._parsed(start, line)
            if row is not None and len(self._known_labels) < _KNOWN_LIMIT:
                self._known_labels[labels] = (row[2], row[4])
            return row
        number = self._known_sequences.get(sequence)
        if number is None:
            number = self._known_sequences[sequence] = self._sequence_id(sequence.decode("ascii"))
        return start, int(stamp), known[0], number, known[1], zlib.crc32(line)

    def _append(self, found: Sequence[_Row | None]) -> None:
        rows = np.array([row for row in found if row is not None], _ROW)
        size = self._size + len(rows)
        if size > len(self._rows):
            spare = np.zeros(max(size, 2 * len(self._rows)) - len(self._rows), _ROW)
            self._rows = np.concatenate([self._rows, spare])
        self._rows[self._size : size] = rows
        self._size = size

    def cut(self, size: int, end: int, checksum: int) -> None:
        """Forget all but the first ``size`` lines."""
        self._size, self.end, self.checksum = size, end, checksum

    def labels(self, index: int) -> frozenset[str] | None:
        """Labels of one line."""
        row = self._rows[index]
        if not row["labelled"]:
            return None
        bits = sum(int(word) << shift for word, shift in zip(row["labels"], (0, 64, 128, 192)))
        return frozenset(name for number, name in enumerate(self.classes) if bits >> number & 1)

    def has_label(self, number: int) -> NDArray[np.bool_]:
        """For every line, whether class ``number`` (from 0) is among its labels. bool (N,)."""
        words = self.rows["labels"][:, number // 64]
        return (words >> np.uint64(number % 64)) & np.uint64(1) != 0

    def read(self, descriptor: int) -> None:
        """Parse what lies behind the covered bytes of the open file; a torn last line stays uncovered."""
        rest, position, inside_long_line = b"", self.end, False
        while block := os.pread(descriptor, _BLOCK, position):
            position += len(block)
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                start = self.end
                self._pass_over(whole + newline)
                found = []
                for line in whole.split(newline):
                    if inside_long_line:
                        inside_long_line = False
                    else:
                        found.append(self._parsed_fast(start, line))
                    start += len(line) + 1
                self._append(found)
            if len(rest) > MAX_LINE_BYTES:
                if not inside_long_line:
                    self.broken.append(f"byte {self.end}: a line of more than {MAX_LINE_BYTES} bytes")
                self._pass_over(rest)
                rest, inside_long_line = b"", True

    def _pass_over(self, data: bytes) -> None:
        self.end += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def save(self, folder: Path) -> None:
        """Write the cache beside the index, atomically. Failing to is harmless and only logged."""
        names = np.array([json.dumps(self.sequences)])
        classes = np.array([json.dumps(self.classes)])
        head = np.array([_CACHE_VERSION, self.end, self.checksum], np.int64)
        try:
            with replacing(folder / CACHE_NAME, shared=True, synced=False) as partial, partial.open("wb") as file:
                np.savez(file, head=head, rows=self.rows, names=names, classes=classes)
        except OSError as error:
            logger.info("%s: index cache not written: %s", folder, error)

    def load(self, folder: Path, descriptor: int) -> bool:
        """Take over the cache if it describes a beginning of the open ``samples.jsonl``; False otherwise."""
        length = os.fstat(descriptor).st_size
        try:
            path = folder / CACHE_NAME
            if path.is_symlink() or path.stat().st_size > length + (1 << 20):
                return False  # a row is shorter than its line: a larger cache is not ours
            with np.load(path, allow_pickle=False) as file:
                version, end, checksum = (int(value) for value in file["head"])
                sequences = json.loads(str(file["names"][0]))
                classes = json.loads(str(file["classes"][0]))
                if version != _CACHE_VERSION or not 0 <= end <= length or classes != list(self.classes)[: len(classes)]:
                    return False
                if prefix_checksum(descriptor, end) != checksum:
                    return False
                rows = np.array(file["rows"])
        except (
            OSError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            RuntimeError,
        ):
            return False
        if rows.dtype != _ROW or rows.ndim != 1 or not isinstance(sequences, list):
            return False
        if len(rows) and not _rows_fit(rows, end, len(sequences)):
            return False
        self._rows, self._size = rows, len(rows)
        if not len(rows):
            self._rows = np.zeros(1024, _ROW)
        self.end, self.checksum = end, checksum
        self.sequences = [str(name) for name in sequences]
        self._sequence_ids = {name: number for number, name in enumerate(self.sequences)}
        self._known_sequences.clear()
        return True

    def _words(self, labels: Iterable[str]) -> tuple[int, ...]:
        bits = 0
        for name in labels:
            if name not in self._class_ids:
                raise LineError(f"{UNKNOWN_CLASS} {name[:80]!r}")
            bits |= 1 << self._class_ids[name]
        return tuple((bits >> shift) & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128, 192))

    def _sequence_id(self, name: str) -> int:
        if name not in self._sequence_ids:
            self._sequence_ids[name] = len(self.sequences)
            self.sequences.append(name)
        return self._sequence_ids[name]


def read_line(descriptor: int, offset: int) -> bytes:
    """Read the line that starts at ``offset``, without its newline."""
    size = 1024
    while True:
        block = os.pread(descriptor, size, offset)
        line, newline, _ = block.partition(b"\n")
        if newline or len(block) < size or size > MAX_LINE_BYTES:
            return line
        size *= 4


def prefix_checksum(descriptor: int, length: int) -> int:
    """CRC-32 of the first ``length`` bytes of an open file."""
    checksum = 0
    for block in _blocks(descriptor, length):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _blocks(descriptor: int, length: int) -> Iterator[bytes]:
    position = 0
    while position < length:
        block = os.pread(descriptor, min(_BLOCK, length - position), position)
        if not block:
            return
        position += len(block)
        yield block


def _rows_fit(rows: NDArray[Any], end: int, sequences: int) -> bool:
    offsets = rows["offset"]
    ordered = bool(offsets[0] >= 0 and offsets[-1] < end and np.all(np.diff(offsets) > 0))
    return ordered and bool(np.all((rows["sequence"] >= 0) & (rows["sequence"] < sequences)))
