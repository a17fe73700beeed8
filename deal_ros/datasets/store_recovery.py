# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Who may write to a sample store, and what is done about samples that a dead writer left half-way."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from deal_ros.datasets.store_files import INCOMING, StoreError, remove_files

logger = logging.getLogger(__name__)

_ID_FIELD = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9_\-]{1,80})"')
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,79}")
_BLOCK = 1 << 22


def explain(error: OSError) -> str:
    """Say what an error of the file system means to the person who runs the robot, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full; free some space, nothing stored is lost"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write ({error.strerror}); choose a folder of yours"
    return str(error)


def lock(path: Path) -> int:
    """Take the lock of a store for as long as the returned descriptor is open; the system frees it on any death.

    Raises:
        StoreError: if another process has it, or the folder cannot be written.
    """
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened for writing: {explain(error)}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{path}: another process writes to this store; stop it first") from error
    return descriptor


def write_intent(path: Path, names: Sequence[str]) -> None:
    """Note which samples are about to come or go; :func:`sweep` finishes the job if we do not."""
    (path / INCOMING / f"{names[0]}.json").write_text(json.dumps(list(names)), encoding="utf-8")


def forget_intent(path: Path, names: Sequence[str]) -> None:
    """Remove the intent: the samples are in, or gone."""
    (path / INCOMING / f"{names[0]}.json").unlink(missing_ok=True)


def sweep(path: Path, descriptor: int) -> None:
    """Remove files of samples that were announced in ``incoming/`` but have no line. The caller holds the lock.

    Args:
        path: the store.
        descriptor: its open ``samples.jsonl``.
    """
    found = sorted((path / INCOMING).iterdir())
    if not found:
        return
    names = {name for item in found if item.suffix == ".json" for name in _intended(item)}
    if names:
        remove_files(path, sorted(names - _committed(descriptor, names)))
    for item in found:
        if item.is_file() or item.is_symlink():
            item.unlink(missing_ok=True)


def sweep_if_nobody_writes(path: Path) -> None:
    """Sweep before a reader opens the store, if that is possible and no writer is at work."""
    try:
        if not any((path / INCOMING).iterdir()):
            return
        holder = lock(path)
    except (OSError, StoreError):
        return
    try:
        descriptor = os.open(path / "samples.jsonl", os.O_RDONLY | os.O_NOFOLLOW)
        try:
            sweep(path, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.info("%s: not swept: %s", path, error)
    finally:
        os.close(holder)


def _intended(path: Path) -> set[str]:
    try:
        values = json.loads(path.read_bytes()) if not path.is_symlink() else []
    except (OSError, ValueError, RecursionError):
        return set()  # the writer died while it wrote the intent: no file had been moved yet
    names = values if isinstance(values, list) else []
    return {name for name in names if isinstance(name, str) and _ID.fullmatch(name)}


def _committed(descriptor: int, names: set[str]) -> set[str]:
    """Those of ``names`` that occur as an id anywhere in the file, in broken lines too: in doubt a sample stays."""
    seen: set[str] = set()
    position, rest = 0, b""
    while block := os.pread(descriptor, _BLOCK, position):
        position += len(block)
        whole, newline, rest = (rest + block).rpartition(b"\n")
        seen.update(name for found in _ID_FIELD.findall(whole) if (name := found.decode()) in names)
        if len(rest) > _BLOCK:
            rest = rest[-_BLOCK:]
    return seen
