# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How samples get into a store: files first, synced and renamed, then their lines; or not at all."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deal_ros.datasets.store_files import INCOMING, EncodedSample, StoreError, file_name, remove_files, take_over
from deal_ros.datasets.store_index import MAX_LINE_BYTES, Entry, LineError
from deal_ros.datasets.store_recovery import explain, forget_intent, write_intent
from deal_ros.files import sync_file, sync_folder, write_all, write_file

logger = logging.getLogger(__name__)

_SYNCS = 16
"""Files synced at once: the disk takes about as long for all of them as for one."""


def name_samples(path: Path, samples: Sequence[EncodedSample], classes: Sequence[str], newest: str) -> list[Entry]:
    """Give new samples their ids and lines.

    Args:
        path: the store.
        samples: what comes in.
        classes: class names in id order.
        newest: id of the newest sample, empty if there is none.

    Returns:
        Their lines; ids are a running number and a checksum of the origin, so that an id which undo freed differs
        from the one that takes its place.

    Raises:
        StoreError: if a sample has something that a line cannot say: an endless text, an infinite matrix.
    """
    number = newest.split("-")[0]
    serial = int(number) + 1 if number.isdecimal() else 0
    entries = []
    for sample in samples:
        origin = zlib.crc32(f"{sample.stamp_ns} {sample.source} {sample.sequence}".encode(errors="replace"))
        while (path / file_name("depth", f"{serial:08d}-{origin:08x}", "png")).exists():
            serial += 1
        entry = Entry(
            id=f"{serial:08d}-{origin:08x}",
            stamp_ns=sample.stamp_ns,
            labels=None if sample.labels is None else tuple(name for name in classes if name in sample.labels),
            camera_matrix=sample.camera_matrix,
            frame_id=sample.frame_id,
            source=sample.source,
            sequence=sample.sequence,
            rgb=sample.files["rgb"][0],
            size=sample.size,
            mask="mask" in sample.files,
        )
        _check(path, entry)
        entries.append(entry)
        serial += 1
    return entries


def commit(path: Path, index: int, end: int, entries: Sequence[Entry], samples: Sequence[EncodedSample]) -> None:
    """Write samples and then their lines, or leave nothing behind. The intent stays: the caller forgets it.

    Args:
        path: the store.
        index: its open ``samples.jsonl``.
        end: where its last line ends.
        entries: the new lines.
        samples: the files, in the same order.

    Raises:
        StoreError: if it could not be written.
    """
    names = [entry.id for entry in entries]
    try:
        _write(path, index, end, entries, samples)
    except OSError as error:
        _roll_back(path, index, end, names)
        raise StoreError(f"{path}: sample not stored: {explain(error)}") from error
    except BaseException:
        _roll_back(path, index, end, names)
        raise


def cut_torn_line(index: int, end: int) -> None:
    """Remove a line that was begun and never ended; whole ones end at ``end``."""
    if os.fstat(index).st_size > end:
        os.ftruncate(index, end)
        os.fsync(index)


def _write(path: Path, index: int, end: int, entries: Sequence[Entry], samples: Sequence[EncodedSample]) -> None:
    cut_torn_line(index, end)
    write_intent(path, [entry.id for entry in entries])
    moves = []
    for entry, sample in zip(entries, samples):
        for kind, (extension, data) in sample.files.items():
            temporary = path / INCOMING / f"{entry.id}.{kind}.{extension}"
            if isinstance(data, Path):
                take_over(data, temporary)
            else:
                write_file(temporary, data)
            moves.append((temporary, path / file_name(kind, entry.id, extension)))
    folders = {final.parent for _, final in moves}
    with ThreadPoolExecutor(min(_SYNCS, len(moves)), "sync") as pool:
        list(pool.map(sync_file, [temporary for temporary, _ in moves]))
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for temporary, final in moves:
            temporary.replace(final)
        list(pool.map(sync_folder, folders))
    write_all(index, b"".join(entry.to_line() for entry in entries))
    os.fsync(index)


def _roll_back(path: Path, index: int, end: int, names: Sequence[str]) -> None:
    try:
        cut_torn_line(index, end)
        remove_files(path, names)
        forget_intent(path, names)
    except OSError as error:
        # What is left is swept at the next append (the line) and the next opening (the files).
        logger.warning("%s: a sample that failed could not be swept yet: %s", path, error)


def _check(path: Path, entry: Entry) -> None:
    line = entry.to_line()
    try:
        if len(line) > MAX_LINE_BYTES:
            raise LineError(f"its line must have at most {MAX_LINE_BYTES} bytes, has {len(line)}; shorten its texts")
        Entry.from_line(line)
    except LineError as error:
        raise StoreError(f"{path}: sample not stored: {error}") from error
