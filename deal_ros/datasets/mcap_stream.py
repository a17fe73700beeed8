# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""MCAP files read from front to back, for recordings that were cut short, damaged, or come from strangers.

The readers at hand need the index at the end of the file, which a recording lacks when the robot was switched off, and
decompress without a limit. This one needs no index, holds one chunk at a time, never decompresses more than a chunk
declares, checks its CRC, and says at which byte a file ends to make sense. What is not compressed stays in the file
until somebody asks for it: most frames of a recording are passed over unread. Format: https://mcap.dev/spec.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

MAGIC = b"\x89MCAP0\r\n"
MAX_RECORD_BYTES = 1 << 28
"""Largest accepted record or decompressed chunk, 256 MiB: a raw image of 67 million pixels fits."""
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END, _STATISTICS = 1, 2, 3, 4, 5, 6, 15, 11
_LENGTH = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQI")
_USED = (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS)
_STAMP_END = 12  # behind the encapsulation, at the beginning of the header
_SMALL_BYTES = 4096
_BLOCK = 1 << 16


class DamageError(ValueError):
    """A file ends to make sense; the message says at which byte and why. Everything before it was delivered."""


@dataclass(frozen=True)
class Channel:
    """A topic of the file.

    Args:
        topic: its name.
        msgtype: message type, ``package/msg/Name``.
        encoding: serialization; ``cdr`` for ROS 2.
    """

    topic: str
    msgtype: str
    encoding: str


class Stretch(NamedTuple):
    """Bytes that are still in their file.

    Args:
        path: the file.
        start: where in it they begin.
        length: how many they are.
        head: the first of them.
    """

    path: Path
    start: int
    length: int
    head: bytes

    def read(self) -> bytes:
        """All of them; may be called in any thread.

        Raises:
            DamageError: if the file cannot be read, or not so far any more.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.start)
                data = file.read(self.length)
        except OSError as error:
            raise DamageError(f"{self.path.name}: cannot be read: {error.strerror or error}") from error
        if len(data) < self.length:
            raise DamageError(f"{self.path.name}: has become shorter while it was read")
        return data


class RawMessage(NamedTuple):
    """One message as recorded.

    Args:
        topic: its topic.
        log_ns: when it was received, in nanoseconds.
        content: its CDR, or where that is.
    """

    topic: str
    log_ns: int
    content: bytes | Stretch

    @property
    def data(self) -> bytes:
        """The CDR; read now where it is still in the file, which may raise :class:`DamageError`."""
        return self.content.read() if isinstance(self.content, Stretch) else self.content

    @property
    def stamp_ns(self) -> int:
        """Stamp in nanoseconds of a message that begins with its header, straight from CDR. 0 if there is none."""
        head = self.content.head if isinstance(self.content, Stretch) else self.content
        if len(head) < _STAMP_END:
            return 0
        seconds, nanoseconds = struct.unpack_from("<iI" if head[1] & 1 else ">iI", head, 4)
        return int(seconds) * 1_000_000_000 + int(nanoseconds)


class McapStream:
    """Reads one file. Iterate :meth:`messages`; :attr:`channels` fills while reading.

    Args:
        path: the ``.mcap`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.counts: dict[str, int] = {}
        """Messages per topic as the file's statistics say; only after :meth:`read_summary`."""
        self._schemas: dict[int, str] = {}
        self.position = 0
        """Bytes read so far."""

    def read_summary(self) -> bool:
        """Read topics and counts from the index at the end; False if there is none that makes sense."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - 37))
                tail = file.read(37)
                if len(tail) < 37 or tail[-8:] != MAGIC or _LENGTH.unpack(tail[:9]) != (_FOOTER, 20):
                    return False
                (start,) = struct.unpack("<Q", tail[9:17])
                if not 0 < start < size:
                    return False
                counts: dict[int, int] = {}
                source = _FileBytes(self.path, file)
                for opcode, place, length in _records(source, start, size - len(MAGIC)):
                    if opcode == _STATISTICS:
                        counts = _channel_counts(source.read(place, length))
                    self._define(source, opcode, place, length)
        except (OSError, ValueError, struct.error):
            return False
        for number, count in counts.items():
            if number in self.channels:
                topic = self.channels[number].topic
                self.counts[topic] = self.counts.get(topic, 0) + count
        return bool(self.channels)

    def messages(self, topics: Container[str] | None = None) -> Iterator[RawMessage]:
        """All messages of ``topics`` (None: every topic) in the order of the file, within a chunk by log time.

        Raises:
            DamageError: where the file ends to make sense.
            OSError: if it cannot be read.
        """
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(8) != MAGIC:
                raise DamageError("not an MCAP file: it does not begin with the MCAP magic")
            source, start = _FileBytes(self.path, file), len(MAGIC)
            try:
                for opcode, place, length in _records(source, start, size):
                    if opcode in (_DATA_END, _FOOTER):
                        return
                    if opcode == _MESSAGE:
                        if found := self._message(source, place, length, topics):
                            yield found
                    elif opcode == _CHUNK:
                        yield from self._chunk(source, place, length, topics)
                    else:
                        self._define(source, opcode, place, length)
                    start = self.position = place + length
            except (ValueError, struct.error) as error:
                raise DamageError(f"byte {start} of {size}: {error}") from error
            raise DamageError(f"byte {start} of {size}: the file ends without an end mark, it was cut short")

    def _chunk(self, file: _FileBytes, start: int, length: int, topics: Container[str] | None) -> Iterator[RawMessage]:
        head = file.read(start, min(length, _SMALL_BYTES))
        _, _, size, checksum = _CHUNK_HEAD.unpack_from(head)
        compression, position = _text(head, _CHUNK_HEAD.size)
        (packed_length,) = struct.unpack_from("<Q", head, position)
        start, rest = start + position + 8, length - position - 8
        if packed_length > rest:
            raise ValueError("chunk is cut short")
        source: _Bytes = file
        if compression:
            source = _MemoryBytes(decompress(file.read(start, packed_length), compression, size))
            start = 0
        elif size != packed_length:
            raise ValueError(f"chunk declares {size} bytes and has {packed_length}")
        if checksum and source.checksum(start, size) != checksum:
            raise ValueError("chunk has a wrong checksum")
        found: list[RawMessage] = []
        for opcode, place, length in _records(source, start, start + size):
            if opcode == _MESSAGE:
                if message := self._message(source, place, length, topics):
                    found.append(message)
            else:
                self._define(source, opcode, place, length)
        found.sort(key=lambda message: message.log_ns)
        yield from found

    def _message(self, source: _Bytes, start: int, length: int, topics: Container[str] | None) -> RawMessage | None:
        if length < _MESSAGE_HEAD.size:
            raise ValueError(f"message record must have at least {_MESSAGE_HEAD.size} bytes, has {length}")
        number, _, log_ns, _ = _MESSAGE_HEAD.unpack(source.read(start, _MESSAGE_HEAD.size))
        channel = self.channels.get(number)
        if channel is None:
            raise ValueError(f"message on channel {number}, which was never declared")
        if topics is not None and channel.topic not in topics:
            return None
        content = source.content(start + _MESSAGE_HEAD.size, length - _MESSAGE_HEAD.size)
        return RawMessage(channel.topic, log_ns, content)

    def _define(self, source: _Bytes, opcode: int, start: int, length: int) -> None:
        if opcode == _SCHEMA:
            content = source.read(start, length)
            (number,) = struct.unpack_from("<H", content)
            self._schemas[number] = _text(content, 2)[0]
        elif opcode == _CHANNEL:
            content = source.read(start, length)
            number, schema = struct.unpack_from("<HH", content)
            topic, position = _text(content, 4)
            encoding, _ = _text(content, position)
            self.channels[number] = Channel(topic, self._schemas.get(schema, ""), encoding)


class _Bytes(Protocol):
    """Bytes by their place: of a file, or of a decompressed chunk."""

    def read(self, start: int, length: int) -> bytes: ...

    def content(self, start: int, length: int) -> bytes | Stretch: ...

    def checksum(self, start: int, length: int) -> int: ...


class _FileBytes:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def read(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(length)
        if len(data) < length:
            raise ValueError("the file has become shorter while it was read")
        return data

    def content(self, start: int, length: int) -> bytes | Stretch:
        if length <= _SMALL_BYTES:
            return self.read(start, length)
        return Stretch(self._path, start, length, self.read(start, _STAMP_END))

    def checksum(self, start: int, length: int) -> int:
        checksum = 0
        for position in range(start, start + length, _BLOCK):
            checksum = zlib.crc32(self.read(position, min(_BLOCK, start + length - position)), checksum)
        return checksum


class _MemoryBytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]

    content = read

    def checksum(self, start: int, length: int) -> int:
        return zlib.crc32(self._data)


def decompress(data: bytes, compression: str, size: int) -> bytes:
    """Decompress to exactly ``size`` bytes, and never to more.

    Raises:
        ValueError: on another size, damaged data, a size beyond the limit, or an unknown compression.
    """
    if size > MAX_RECORD_BYTES:
        raise ValueError(f"chunk must have at most {MAX_RECORD_BYTES} bytes, declares {size}")
    if compression == "zstd":
        raw = unpack_zstd(data, size)
    elif compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        try:
            raw = bytes(LZ4FrameDecompressor().decompress(data, max_length=size + 1))
        except (RuntimeError, EOFError) as error:
            raise ValueError(f"damaged lz4 data: {error}") from error
    else:
        raise ValueError(f"chunk compression must be zstd, lz4 or none, got {compression[:20]!r}")
    if len(raw) != size:
        raise ValueError(f"chunk declares {size} bytes and has {'more' if len(raw) > size else len(raw)}")
    return raw


def unpack_zstd(data: bytes | memoryview, limit: int) -> bytes:
    """Decompress one zstd frame to at most ``limit + 1`` bytes: a result longer than ``limit`` was cut.

    Raises:
        ValueError: if the data are damaged.
    """
    zstd = import_zstd()
    try:
        return bytes(zstd.ZstdDecompressor().decompress(data, max_length=limit + 1))
    except (zstd.ZstdError, EOFError, MemoryError) as error:
        raise ValueError(f"damaged zstd data: {error}") from error


def import_zstd():
    """Import the standard library's zstd, or its backport, which ``rosbags`` brings along."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from backports import zstd  # type: ignore[no-redef,unused-ignore]
    return zstd


def _records(source: _Bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Opcode, place and length of each record from ``start`` to ``end``."""
    while start < end:
        if end - start < _LENGTH.size:
            raise ValueError("record is cut short")
        opcode, length = _LENGTH.unpack(source.read(start, _LENGTH.size))
        start += _LENGTH.size
        if length > end - start:
            raise ValueError(f"record of {length} bytes reaches beyond the end of its file or chunk, it was cut short")
        if length > MAX_RECORD_BYTES and opcode in _USED:
            raise ValueError(f"record must have at most {MAX_RECORD_BYTES} bytes, has {length}")
        yield opcode, start, length
        start += length


def _text(content: bytes, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", content, position)
    position += 4
    if length > len(content) - position:
        raise ValueError("text reaches beyond its record")
    return content[position : position + length].decode("utf-8", "replace"), position + length


def _channel_counts(content: bytes) -> dict[int, int]:
    (length,) = struct.unpack_from("<I", content, 42)
    if length > len(content) - 46:
        raise ValueError("statistics are cut short")
    return dict(struct.iter_unpack("<HQ", content[46 : 46 + length - length % 10]))
