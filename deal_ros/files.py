# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or as they were before, whatever kills the writer: a full disk, a signal, a power cut."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, *, shared: bool = False, synced: bool = True) -> Iterator[Path]:
    """Give the name of a file to write; at the end it takes the place of ``path``, or nothing has happened.

    Args:
        path: what is replaced; its folder must be there.
        shared: whether several writers may be at it at once; each then has a file of its own. Without, what a killed
            writer left is written over by the next one.
        synced: whether to wait for the disk. Not for what can be made again.

    Raises:
        OSError: as the system says.
    """
    owner = f".{os.getpid()}-{threading.get_native_id()}" if shared else ""
    partial = path.with_name(f".{path.name}{owner}.partial")
    try:
        yield partial
        if synced:
            sync_file(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if synced:
        sync_folder(path.parent)


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a small file, and its folder if that is missing; text becomes UTF-8.

    Raises:
        OSError: as the system says; what was there is there as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        write_file(partial, content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any, *, indent: int = 2) -> None:
    """:func:`replace_file` with :func:`json_ready` values.

    Raises:
        OSError: as the system says; what was there is there as before.
    """
    text = json.dumps(json_ready(value), indent=indent, ensure_ascii=False, allow_nan=False)
    replace_file(path, text + "\n")


def json_ready(value: Any) -> Any:
    """Values as JSON can say them: scalars of NumPy and torch as Python's, paths as text, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_file(path: Path, data: bytes) -> None:
    """Write a file without waiting for the disk: many written together are synced in less time than one by one.

    Raises:
        OSError: as the system says, also for a symbolic link; the file may then be there in part.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """``os.write`` until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_file(path: Path) -> None:
    """Wait until the disk has a file."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder: renames survive a power cut from then on."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
