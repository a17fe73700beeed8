# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The sample store: labelled RGB-D frames gathered on a robot, in a folder that a person can read.

::

    store.json        format version, ordered class names, metres per depth unit
    rgb/<id>.jpg      colour (or .png)
    depth/<id>.png    16-bit depth, millimetres unless store.json says otherwise, 0 = no return
    mask/<id>.png     class ids, only where there is truth
    samples.jsonl     one line per committed sample: id, stamp, labels, sequence, source, camera matrix
    index.npz         a cache of samples.jsonl; may be deleted at any time
    incoming/         samples on their way in; swept at the next opening
    lock              held by the one process that writes

A sample is written to ``incoming/``, synced, renamed into place, and only then its line is appended and synced. So a
line means a whole sample, whatever happens: a full disk, SIGKILL, or the plug pulled.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deal_ros.datasets.store_commit import commit, cut_torn_line, name_samples
from deal_ros.datasets.store_files import (
    INCOMING,
    EncodedSample,
    StoreError,
    encode_sample,
    read_sample,
    remove_files,
)
from deal_ros.datasets.store_header import StoreHeader, is_blank, no_links_out
from deal_ros.datasets.store_index import Entry, LineError, StoreIndex, prefix_checksum, read_line
from deal_ros.datasets.store_recovery import explain, forget_intent, lock, sweep, sweep_if_nobody_writes, write_intent
from deal_ros.images import MILLIMETRE
from deal_ros.labels import LabelError
from deal_ros.sample import Sample

logger = logging.getLogger(__name__)

_CACHE_LAG = 20_000
"""Lines parsed behind the cache that make a new cache worth writing."""


class SampleStore:
    """A :class:`~deal_ros.datasets.base.SampleDataset` that grows. Make one with :meth:`create` or :meth:`open`.

    One process may write, any number may read. Methods may be called from several threads.

    Example:
        >>> import tempfile, numpy as np
        >>> frame = Sample(np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32), frozenset({"milk"}))
        >>> with SampleStore.create(tempfile.mkdtemp() + "/kitchen", ["milk", "ketchup"]) as store:
        ...     name = store.append(frame, sequence="monday")
        ...     len(store), store.counts(), store[0].labels
        (1, {'milk': 1, 'ketchup': 0}, frozenset({'milk'}))
    """

    def __init__(self, path: Path, writable: bool) -> None:
        """Use :meth:`create`, :meth:`open` or :meth:`open_or_create`."""
        self.path = path
        self.writable = writable
        self._mutex = threading.RLock()
        self._descriptors: list[int] = []
        self._release = weakref.finalize(self, _close_all, self._descriptors)  # also of a store that nobody closes
        if writable:
            self._descriptors.append(lock(path))
        self._file = -1
        self._index = StoreIndex(())
        self._cached = 0
        self._counts: list[int] = []
        try:
            self._header = StoreHeader.read(path)
            self._open_index()
        except BaseException:
            self.close()
            raise

    # --- making and opening -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: str | Path, classes: Sequence[str], *, image_format: str = "jpg", depth_unit_m: float = MILLIMETRE
    ) -> SampleStore:
        """Make a new, empty store and open it for writing.

        Args:
            path: folder to make; it may exist if it is empty.
            classes: class names in id order; :meth:`add_classes` can append more later. May be empty.
            image_format: ``jpg`` (quality 95) or ``png`` (lossless, about five times larger).
            depth_unit_m: metres per unit of the 16-bit depth files; 0.001 reaches 65 m in millimetres.

        Raises:
            StoreError: if the folder has something in it or cannot be written.
            LabelError: if a class name is unusable.
        """
        path = Path(path)
        header = StoreHeader(tuple(classes), depth_unit_m, image_format)
        try:
            path.mkdir(parents=True, exist_ok=True)
            for item in path.iterdir():
                if not is_blank(item):
                    raise StoreError(f"{path}: a new store needs an empty folder, found {item.name!r}; choose another")
            for name in ("rgb", "depth", INCOMING):
                (path / name).mkdir(exist_ok=True)
            (path / "samples.jsonl").touch()
            # last: a folder is a store from the moment that store.json is there
            header.write(path)
        except OSError as error:
            raise StoreError(f"{path}: the store cannot be made: {explain(error)}") from error
        return cls.open(path, writable=True)

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> SampleStore:
        """Open a store. Sweeps what an interrupted writer left behind, unless a writer is at work.

        Raises:
            StoreError: if it is not a store, cannot be read, or (``writable``) another process writes to it.
        """
        path = Path(path)
        if not (path / "store.json").is_file():
            raise StoreError(f"{path}: not a sample store: store.json is missing; make one with `deal import`")
        if not writable:
            sweep_if_nobody_writes(path)
        return cls(path, writable)

    @classmethod
    def open_or_create(cls, path: str | Path, classes: Sequence[str] = (), **options: Any) -> SampleStore:
        """Open for writing, or create; ``classes`` that an existing store lacks are appended to its list.

        Args:
            path: the folder.
            classes: class names that must be known.
            options: of :meth:`create`; an existing store keeps its own.
        """
        path = Path(path)
        if not (path / "store.json").exists():
            return cls.create(path, classes, **options)
        store = cls.open(path, writable=True)
        try:
            store.add_classes(classes)
        except BaseException:
            store.close()
            raise
        return store

    @staticmethod
    def is_store(path: str | Path) -> bool:
        """Whether there is a sample store at ``path``."""
        return (Path(path) / "store.json").is_file()

    def close(self) -> None:
        """Give up the lock and the files. Closing twice is fine."""
        with self._mutex:
            if self._file >= 0:
                if self.writable and len(self) - self._cached > _CACHE_LAG:
                    self._index.save(self.path)
                self._file = -1
            self._release()

    def __enter__(self) -> SampleStore:
        """Return itself; closes at the end of the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers of a data loader open the store for themselves, read-only."""
        return _reopen, (self.path,)

    # --- reading: the SampleDataset protocol --------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order: ``classes[i]`` has id ``i + 1`` in masks."""
        return self._header.classes

    @property
    def depth_unit_m(self) -> float:
        """Metres per unit of the depth files."""
        return self._header.depth_unit_m

    @property
    def image_format(self) -> str:
        """File type of new colour images."""
        return self._header.image_format

    @property
    def broken_lines(self) -> tuple[str, ...]:
        """Lines of ``samples.jsonl`` that were passed over, with the reason; empty for a healthy store."""
        return tuple(self._index.broken)

    @property
    def index(self) -> StoreIndex:
        """Return the index, for tools that look at stamps, labels or sequences of all samples at once."""
        return self._index

    def __len__(self) -> int:
        """Return the number of committed samples."""
        return len(self._index)

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample.

        Raises:
            IndexError: beyond the end.
            StoreError: if one of its files is missing or damaged.
        """
        return read_sample(self.path, self.entry(index), self._header.depth_unit_m)

    def entry(self, index: int) -> Entry:
        """Return the line of a sample, parsed.

        Raises:
            IndexError: beyond the end.
            StoreError: if the line is broken.
        """
        row = self._row(index)
        where = f"{self.path}/samples.jsonl: byte {row['offset']}"
        try:
            line = read_line(self._file, int(row["offset"]))
            if zlib.crc32(line) != row["checksum"]:
                raise StoreError(f"{where}: sample {index} has been undone since the store was opened; begin anew")
            return Entry.from_line(line)
        except (LineError, OSError) as error:
            raise StoreError(f"{where}: {error}") from error

    def entries(self) -> Iterator[Entry]:
        """All lines in order, in constant memory."""
        return (self.entry(index) for index in range(len(self)))

    def labels(self, index: int) -> frozenset[str] | None:
        """Return the labels alone; looks at memory only."""
        self._row(index)
        return self._index.labels(index)

    def sample_id(self, index: int) -> str:
        """Return the name of the sample's files."""
        return self.entry(index).id

    def sequence(self, index: int) -> str:
        """Return the recording that the sample belongs to."""
        return self._index.sequences[int(self._row(index)["sequence"])]

    def counts(self) -> dict[str, int]:
        """Count the samples per class, in id order."""
        return {name: int(count) for name, count in zip(self.classes, self._counts)}

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, sample: Sample, sequence: str = "") -> str:
        """Commit one sample; when this returns, it is on disk.

        Args:
            sample: its labels must be among :attr:`classes`, or ``None``.
            sequence: the recording it belongs to; splits never cut through one.

        Returns:
            The id of the sample.

        Raises:
            LabelError: on an unknown class.
            StoreError: if it could not be written (the disk is full, say). Nothing committed is lost, nothing torn is
                left, and the next append works as soon as the cause is gone.
        """
        self.check(sample.labels, sequence)
        return self.append_encoded([self.encode(sample, sequence)])[0]

    def encode(
        self, sample: Sample, sequence: str = "", encoded: Mapping[str, tuple[str, bytes]] | None = None
    ) -> EncodedSample:
        """Compress a sample as this store wants it, without writing; may run in many threads.

        Args:
            sample: what to store.
            sequence: the recording it belongs to.
            encoded: files that need no compressing, see :func:`~deal_ros.datasets.store_files.encode_sample`.
        """
        return encode_sample(sample, sequence, self._header.image_format, self._header.depth_unit_m, encoded)

    def check(self, labels: frozenset[str] | None, sequence: str) -> None:
        """Refuse what could not be written.

        Raises:
            LabelError: on an unknown class.
            StoreError: on an unusable sequence name.
        """
        unknown = sorted((labels or frozenset()) - set(self.classes))
        if unknown:
            known = ", ".join(self.classes) or "none"
            raise LabelError(f"unknown class {', '.join(unknown)}; known: {known}; add_classes adds new ones")
        if len(sequence) > 256 or not (sequence.isprintable() or sequence == ""):
            raise StoreError(f"sequence must be a printable text of at most 256 characters, got {sequence[:80]!r}")

    def append_encoded(self, samples: Sequence[EncodedSample]) -> list[str]:
        """Commit several samples at once (one sync of folders and index for all); see :meth:`append`."""
        with self._mutex:
            self._need_writable()
            for sample in samples:
                self.check(sample.labels, sample.sequence)
            if not samples:
                return []
            newest = self.sample_id(len(self) - 1) if len(self) else ""
            entries = name_samples(self.path, samples, self.classes, newest)
            commit(self.path, self._file, self._index.end, entries, samples)
            for entry in entries:
                self._index.add_line(entry.to_line())
                for name in entry.labels or ():
                    self._counts[self.classes.index(name)] += 1
            names = [entry.id for entry in entries]
            forget_intent(self.path, names)
            return names

    def undo(self, count: int = 1) -> list[str]:
        """Remove the newest samples; returns their ids, newest first.

        Raises:
            StoreError: if it cannot be written.
        """
        with self._mutex:
            self._need_writable()
            size = max(0, len(self) - max(0, count))
            if size == len(self):
                return []
            names = [self.entry(index).id for index in range(len(self) - 1, size - 1, -1)]
            end = int(self._index.rows["offset"][size])
            try:
                write_intent(self.path, names)
                os.ftruncate(self._file, end)
                self._index.cut(size, end, prefix_checksum(self._file, end))
                self._cached = min(self._cached, size)
                self._count()
                os.fsync(self._file)
            except OSError as error:
                raise StoreError(f"{self.path}: undo failed: {explain(error)}") from error
            remove_files(self.path, names)
            forget_intent(self.path, names)
            return names

    def add_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Append class names that are new; ids of the others stay. Returns all names.

        Raises:
            LabelError: if a name is unusable or there are too many.
            StoreError: if it cannot be written.
        """
        with self._mutex:
            new = [name for name in dict.fromkeys(names) if name not in self.classes]
            if not new:
                return self.classes
            self._need_writable()
            header = dataclasses.replace(self._header, classes=(*self.classes, *new))
            try:
                header.write(self.path)
            except OSError as error:
                raise StoreError(f"{self.path}: classes not added: {explain(error)}") from error
            self._header = header
            self._index.set_classes(header.classes)
            self._count()
            return header.classes

    def save_cache(self) -> None:
        """Write the cache of the index now; :meth:`close` does it by itself where it is worth it."""
        with self._mutex:
            self._index.save(self.path)
            self._cached = len(self)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _open_index(self) -> None:
        no_links_out(self.path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT if self.writable else os.O_RDONLY
        try:
            self._file = os.open(self.path / "samples.jsonl", flags | os.O_NOFOLLOW, 0o644)
            self._descriptors.append(self._file)
            self._index = StoreIndex(self.classes)
            self._index.load(self.path, self._file)
            self._cached = len(self._index)
            self._index.read(self._file)
            if self.writable:
                for name in ("rgb", "depth", INCOMING):
                    (self.path / name).mkdir(exist_ok=True)
                cut_torn_line(self._file, self._index.end)
                sweep(self.path, self._file)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {explain(error)}") from error
        for message in self._index.broken:
            logger.warning("%s/samples.jsonl: line passed over: %s", self.path, message)
        self._count()
        if len(self._index) - self._cached > _CACHE_LAG:
            self.save_cache()

    def _count(self) -> None:
        self._counts = [int(self._index.has_label(number).sum()) for number in range(len(self.classes))]

    def _row(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._index.rows[index]

    def _need_writable(self) -> None:
        if not self.writable or self._file < 0:
            raise StoreError(f"{self.path}: opened for reading, or closed; open it with writable=True")


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _reopen(path: Path) -> SampleStore:
    return SampleStore.open(path)
