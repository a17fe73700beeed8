# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""MCAP files read from front to back, for recordings that were cut short, damaged, or come from strangers.

The readers at hand need the index at the end of the file, which a recording lacks when the robot was switched off, and
decompress without a limit. This one needs no index, holds one chunk at a time, never decompresses more than a chunk
declares, checks its CRC, and says at which byte a file ends to make sense. Format: https://mcap.dev/spec.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAGIC = b"\x89MCAP0\r\n"
MAX_RECORD_BYTES = 1 << 28
"""Largest accepted record or decompressed chunk, 256 MiB: a raw image of 67 million pixels fits."""
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END, _STATISTICS = 1, 2, 3, 4, 5, 6, 15, 11
_LENGTH = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQI")


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


class RawMessage(NamedTuple):
    """One message as recorded. ``log_ns`` is when it was received, in nanoseconds."""

    topic: str
    log_ns: int
    data: bytes


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
                file.seek(start)
                counts: dict[int, int] = {}
                for opcode, content in _records(file, size):
                    if opcode == _STATISTICS:
                        counts = _channel_counts(content)
                    self._define(opcode, content)
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
            start = file.tell()
            try:
                for opcode, content in _records(file, size):
                    if opcode in (_DATA_END, _FOOTER):
                        return
                    if opcode == _MESSAGE:
                        if found := self._message(content, 0, len(content), topics):
                            yield found
                    elif opcode == _CHUNK:
                        yield from self._chunk(content, topics)
                    else:
                        self._define(opcode, content)
                    start = self.position = file.tell()
            except (ValueError, struct.error) as error:
                raise DamageError(f"byte {start} of {size}: {error}") from error
            raise DamageError(f"byte {start} of {size}: the file ends without an end mark, it was cut short")

    def _chunk(self, content: bytes, topics: Container[str] | None) -> Iterator[RawMessage]:
        _, _, size, checksum = _CHUNK_HEAD.unpack_from(content)
        compression, position = _text(content, _CHUNK_HEAD.size)
        (length,) = struct.unpack_from("<Q", content, position)
        packed = memoryview(content)[position + 8 : position + 8 + length]
        if len(packed) != length:
            raise ValueError("chunk is cut short")
        data = decompress(packed, compression, size)
        if checksum and zlib.crc32(data) != checksum:
            raise ValueError("chunk has a wrong checksum")
        found: list[RawMessage] = []
        position = 0
        while position < len(data):
            opcode, length = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            if length > len(data) - position:
                raise ValueError("record within a chunk reaches beyond it")
            if opcode == _MESSAGE:
                if message := self._message(data, position, length, topics):
                    found.append(message)
            else:
                self._define(opcode, bytes(data[position : position + length]))
            position += length
        found.sort(key=lambda message: message.log_ns)
        yield from found

    def _message(
        self, data: bytes | memoryview, start: int, length: int, topics: Container[str] | None
    ) -> RawMessage | None:
        if length < _MESSAGE_HEAD.size:
            raise ValueError(f"message record must have at least {_MESSAGE_HEAD.size} bytes, has {length}")
        number, _, log_ns, _ = _MESSAGE_HEAD.unpack_from(data, start)
        channel = self.channels.get(number)
        if channel is None:
            raise ValueError(f"message on channel {number}, which was never declared")
        if topics is not None and channel.topic not in topics:
            return None
        return RawMessage(channel.topic, log_ns, bytes(data[start + _MESSAGE_HEAD.size : start + length]))

    def _define(self, opcode: int, content: bytes) -> None:
        if opcode == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            self._schemas[number] = _text(content, 2)[0]
        elif opcode == _CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            topic, position = _text(content, 4)
            encoding, _ = _text(content, position)
            self.channels[number] = Channel(topic, self._schemas.get(schema, ""), encoding)


def decompress(data: bytes | memoryview, compression: str, size: int) -> bytes | memoryview:
    """Decompress to exactly ``size`` bytes, and never to more.

    Raises:
        ValueError: on another size, damaged data, a size beyond the limit, or an unknown compression.
    """
    if size > MAX_RECORD_BYTES:
        raise ValueError(f"chunk must have at most {MAX_RECORD_BYTES} bytes, declares {size}")
    raw: bytes | memoryview = data
    if compression == "":
        pass
    elif compression == "zstd":
        raw = unpack_zstd(data, size)
    elif compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        try:
            raw = LZ4FrameDecompressor().decompress(data, max_length=size + 1)
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


def _records(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Opcode and content of each record up to the end of the file or the closing magic."""
    while True:
        head = file.read(_LENGTH.size)
        if not head or head[:8] == MAGIC:
            return
        if len(head) < _LENGTH.size:
            raise ValueError("record is cut short")
        opcode, length = _LENGTH.unpack(head)
        if length > size - file.tell():
            raise ValueError(f"record of {length} bytes reaches beyond the end of the file, it was cut short")
        if opcode not in (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END, _FOOTER, _STATISTICS):
            file.seek(length, os.SEEK_CUR)
            continue
        if length > MAX_RECORD_BYTES:
            raise ValueError(f"record must have at most {MAX_RECORD_BYTES} bytes, has {length}")
        yield opcode, file.read(length)


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
