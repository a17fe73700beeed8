# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A rosbag2 recording as a stream of raw messages: MCAP or sqlite3, one file or split, compressed or not, whole or not.

Only plain CDR is decoded, with the message definitions that ``rosbags`` has built in. Definitions in the bag are not
used: reading them would mean to compile code from a stranger's file.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path, PurePath
from typing import Any, Protocol

from deal_ros.config import ConfigError, load_yaml
from deal_ros.datasets.bag_scratch import BagError, scratch_copy
from deal_ros.datasets.mcap_stream import (
    MAX_RECORD_BYTES,
    Channel,
    DamageError,
    McapStream,
    RawMessage,
    import_zstd,
    unpack_zstd,
)
from deal_ros.datasets.sqlite_stream import SqliteStream

logger = logging.getLogger(__name__)

SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
"""Files of a recording, as they end."""
_COPY_BLOCK = 1 << 20


class StorageReader(Protocol):
    """What a kind of file must offer."""

    channels: dict[int, Channel]
    counts: dict[str, int]
    position: int

    def __init__(self, path: Path) -> None: ...

    def read_summary(self) -> bool:
        """Learn topics and counts without reading messages; False if that is not possible."""
        ...

    def messages(self, topics: Container[str] | None = None) -> Iterator[RawMessage]:
        """Messages in the order of the file; ``DamageError`` where it ends to make sense."""
        ...


STORAGES: dict[str, type[StorageReader]] = {".mcap": McapStream, ".db3": SqliteStream}
"""File type → reader."""


class Bag:
    """One recording: a folder as ``ros2 bag record`` makes it, or one of its files.

    Args:
        path: the folder, or a ``.mcap`` or ``.db3`` file (also with ``.zstd``). ``metadata.yaml`` may be missing.

    Raises:
        BagError: if there is nothing to read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage: list[str] = []
        """Where the recording could not be read, one message per file; fills while reading."""
        self.done_bytes = 0
        """How far :meth:`messages` has come, of :attr:`size_bytes`."""
        self._packed_messages = False
        self.files = self._find_files()
        self.size_bytes = sum(file.stat().st_size for file in self.files)
        self._temporary: tuple[Path, Path, tempfile.TemporaryDirectory[str]] | None = None

    @property
    def name(self) -> str:
        """Name of the recording: the folder's or the file's."""
        name = self.path.resolve().name
        for suffix in sorted(SUFFIXES, key=len, reverse=True):
            name = name[: -len(suffix)] if name.endswith(suffix) and not self.path.is_dir() else name
        return name

    def topics(self) -> dict[str, tuple[str, int | None]]:
        """Message type and number of messages by topic; the number is None where the recording does not say.

        Reads the index where there is one, else the whole recording.
        """
        found: dict[str, tuple[str, int | None]] = {}
        for file in self.files:
            reader = self._reader(file)
            if not reader.read_summary():
                with contextlib.suppress(DamageError, OSError):
                    for message in reader.messages():
                        reader.counts[message.topic] = reader.counts.get(message.topic, 0) + 1
            for channel in reader.channels.values():
                if channel.encoding not in ("cdr", ""):
                    continue
                _, before = found.get(channel.topic, ("", 0))
                count = reader.counts.get(channel.topic, 0 if reader.counts else None)
                total = None if before is None or count is None else before + count
                found[channel.topic] = (channel.msgtype, total)
        return found

    def start_ns(self) -> int:
        """Log time of the first message in nanoseconds; 0 for an empty recording."""
        for file in self.files:
            with contextlib.suppress(DamageError, OSError):
                for message in self._reader(file).messages():
                    return message.log_ns
        return 0

    def messages(self, topics: Container[str] | None = None) -> Iterator[RawMessage]:
        """All messages of ``topics`` in the order of recording. Damage ends a file, not the recording."""
        self.damage.clear()
        self.done_bytes = 0
        for file in self.files:
            reader = self._reader(file)
            size, unpacked_size = file.stat().st_size, max(1, self._unpacked(file).stat().st_size)
            start = self.done_bytes
            try:
                for message in reader.messages(topics):
                    self.done_bytes = start + size * reader.position // unpacked_size
                    yield self._plain(message) if self._packed_messages or file.suffix == ".zstd" else message
            except DamageError as error:
                self.damage.append(f"{file.name}: {error}")
            except OSError as error:
                self.damage.append(f"{file.name}: cannot be read: {error.strerror or error}")
            self.done_bytes = start + size

    def _reader(self, file: Path) -> StorageReader:
        unpacked = self._unpacked(file)
        return STORAGES[unpacked.suffix](unpacked)

    def _plain(self, message: RawMessage) -> RawMessage:
        """Decompress a message, and read it while the temporary copy of its file is there."""
        data = message.data
        return message._replace(content=_unpack_message(data) if self._packed_messages else data)

    def _find_files(self) -> list[Path]:
        path = self.path
        if path.is_file():
            if not path.name.endswith(SUFFIXES):
                hint = "; convert a ROS 1 bag with `rosbags-convert`" if path.suffix == ".bag" else ""
                raise BagError(f"{path}: must be a .mcap or .db3 file or a bag folder{hint}")
            with contextlib.suppress(BagError, ConfigError):
                self._read_metadata(path.parent / "metadata.yaml")
            return [path]
        if not path.is_dir():
            raise BagError(f"{path}: no such bag; give a folder made by `ros2 bag record`, or a .mcap or .db3 file")
        files = [path / name for name in self._read_metadata(path / "metadata.yaml")]
        files = [file for file in files if file.is_file()]
        known = {file.name for file in files}
        # A recorder that was killed wrote no metadata.yaml, or one that lacks the last file.
        rest = [file for file in path.iterdir() if file.name.endswith(SUFFIXES) and file.name not in known]
        files += sorted(rest, key=lambda file: _natural(file.name))
        if not files:
            raise BagError(f"{path}: no .mcap or .db3 file in it; is this a bag folder?")
        return files

    def _read_metadata(self, path: Path) -> list[str]:
        try:
            information = load_yaml(path).get("rosbag2_bagfile_information", {})
            self._packed_messages = str(information.get("compression_mode", "")).lower() == "message"
            compression = str(information.get("compression_format") or "zstd")
            names = [PurePath(str(name)).name for name in information.get("relative_file_paths", [])]
        except (ConfigError, AttributeError, TypeError):
            return []  # missing or damaged: the files are found by name
        if compression != "zstd":
            raise BagError(
                f"{path.parent}: compression must be zstd, got {compression[:40]!r}; convert it with"
                f" `ros2 bag convert -i {path.parent} -o convert.yaml`"
            )
        return [name for name in names if name.endswith(SUFFIXES)]

    def _unpacked(self, file: Path) -> Path:
        """Return the file, or for a compressed one a temporary copy, which stays until another file is asked for."""
        if file.suffix != ".zstd":
            return file
        if self._temporary is None or self._temporary[0] != file:
            self.close()
            remedy = f", or decompress it beforehand with `zstd -d {file}`"
            folder = scratch_copy(file, file.stem, self._unpack(file), remedy=remedy)
            self._temporary = (file, Path(folder.name) / file.stem, folder)
        return self._temporary[1]

    def _unpack(self, file: Path) -> Iterator[bytes]:
        zstd = import_zstd()
        try:
            with zstd.open(file, "rb") as packed:
                while block := packed.read(_COPY_BLOCK):
                    yield block
        except (zstd.ZstdError, EOFError, OSError) as error:
            # What came out is read, and the reader finds where it was cut short.
            logger.warning("%s: cannot be decompressed to its end: %s", file, error)

    def close(self) -> None:
        """Remove the temporary copy of a compressed file."""
        if self._temporary is not None:
            self._temporary[2].cleanup()
            self._temporary = None


@functools.lru_cache(maxsize=1)
def typestore() -> Any:
    """Message types of ROS 2; those that matter here have not changed between distributions."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def deserialize(data: bytes, msgtype: str) -> Any:
    """CDR bytes → message.

    Raises:
        BagError: if the bytes are not such a message.
    """
    from rosbags.serde import SerdeError

    try:
        return typestore().deserialize_cdr(data, msgtype)
    except (SerdeError, ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise BagError(f"not a {msgtype}: {error}") from error


def _unpack_message(data: bytes) -> bytes:
    try:
        plain = unpack_zstd(data, MAX_RECORD_BYTES)
    except ValueError as error:
        raise DamageError(f"compressed message: {error}") from error
    if len(plain) > MAX_RECORD_BYTES:
        raise DamageError(f"compressed message: must unpack to at most {MAX_RECORD_BYTES} bytes")
    return plain


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
