# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""rosbag2's sqlite3 files read in the order of recording, up to where they were cut short or damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

from deal_ros.datasets.bag_scratch import scratch_copy
from deal_ros.datasets.mcap_stream import MAX_RECORD_BYTES, Channel, DamageError, RawMessage

_COPY_BLOCK = 1 << 20


class SqliteStream:
    """Reads one ``.db3`` file in the order of recording.

    Args:
        path: the file. A ``-wal`` file beside it (the recorder was killed) is taken into account.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.counts: dict[str, int] = {}
        self.position = 0
        self._mended: tempfile.TemporaryDirectory[str] | None = None

    def read_summary(self) -> bool:
        """Read the table of topics."""
        try:
            with self._connect() as database:
                self._define(database)
                query = "SELECT topic_id, count(*) FROM messages GROUP BY topic_id"
                for number, count in database.execute(query):
                    if number in self.channels:
                        self.counts[self.channels[number].topic] = count
        except (sqlite3.Error, DamageError, OverflowError, UnicodeError):
            self.counts.clear()
        return bool(self.channels)

    def messages(self, topics: Container[str] | None = None) -> Iterator[RawMessage]:
        """All messages of ``topics``; raises :class:`DamageError` where the file ends to make sense."""
        size, number = self.path.stat().st_size, 0
        try:
            with self._connect() as database:
                self._define(database)
                wanted = {n for n, channel in self.channels.items() if topics is None or channel.topic in topics}
                data_if_wanted = f"CASE WHEN topic_id IN ({','.join(map(str, wanted))}) THEN data END"  # others: unread
                query = f"SELECT rowid, topic_id, timestamp, {data_if_wanted} FROM messages ORDER BY rowid"
                rows = database.execute(query)
                largest = max(1, self._largest_row(database))
                for number, topic_id, log_ns, data in rows:
                    self.position = min(size, size * number // largest)
                    if topic_id in wanted:
                        if not isinstance(data, bytes) or not isinstance(log_ns, int):
                            raise DamageError(f"row {number}: data must be bytes and timestamp a number")
                        yield RawMessage(self.channels[topic_id].topic, log_ns, data)
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise DamageError(f"behind row {number}: {error}") from error

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        killed = Path(f"{self.path}-wal").exists()
        path = self.path if killed else self._as_long_as_it_says()
        uri = f"{path.resolve().as_uri()}?mode=ro{'' if killed else '&immutable=1'}"
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            if hasattr(database, "setlimit"):  # Python 3.11
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_BYTES)
            yield database
        finally:
            database.close()

    def _as_long_as_it_says(self) -> Path:
        """Return the file or, if cut short, a copy with a hole at its end: sqlite opens none shorter than it says."""
        with self.path.open("rb") as file:
            head = file.read(100)
        size = self.path.stat().st_size
        if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
            raise DamageError("not an sqlite3 file")
        page = int.from_bytes(head[16:18], "big")
        length = int.from_bytes(head[28:32], "big") * (65536 if page == 1 else page)
        if length <= size:
            return self.path
        if self._mended is None:
            self._mended = scratch_copy(self.path, self.path.name, self._blocks(), least_bytes=size)
            os.truncate(Path(self._mended.name) / self.path.name, length)
        return Path(self._mended.name) / self.path.name

    def _blocks(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while block := file.read(_COPY_BLOCK):
                    yield block
        except OSError as error:
            raise DamageError(f"cannot be read: {error.strerror or error}") from error

    def _define(self, database: sqlite3.Connection) -> None:
        # A view or a virtual table of that name could compute for ever.
        query = "SELECT count(*) FROM sqlite_master WHERE name IN ('topics', 'messages') AND type = 'table'"
        query += " AND sql NOT LIKE '%VIRTUAL%' AND sql NOT LIKE '%GENERATED%'"
        if database.execute(query).fetchone()[0] != 2:
            raise DamageError("not a rosbag2 file: it lacks the tables 'topics' and 'messages'")
        for number, topic, msgtype, encoding in database.execute(
            "SELECT id, name, type, serialization_format FROM topics"
        ):
            self.channels[int(number)] = Channel(str(topic), str(msgtype), str(encoding))

    @staticmethod
    def _largest_row(database: sqlite3.Connection) -> int:
        try:
            return int(database.execute("SELECT max(rowid) FROM messages").fetchone()[0] or 0)
        except sqlite3.Error:
            return 0
