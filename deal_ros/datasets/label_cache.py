# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image labels derived once and kept as JSON: reading ten thousand annotations takes a minute, this a moment."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from deal_ros.files import replacing

logger = logging.getLogger(__name__)

_VERSION = 1
FOLDER = ".deal_ros"


def cached_labels(
    root: Path, key: str, names: Sequence[str], sources: Sequence[Path], compute: Callable[[], list[list[str]]]
) -> list[frozenset[str]]:
    """Labels of ``names``: from the cache if it is of these names and of these sources as they are now, else computed.

    Args:
        root: of the data set; the cache goes to ``root/.deal_ros``, or below ``$XDG_CACHE_HOME`` (``~/.cache``) where
            the data set may not be written to.
        key: file name of the cache, unique within the data set.
        names: of the images, in order.
        sources: files and folders that the labels are derived from; a change of time or size makes the cache stale.
        compute: gives the labels, one list per name.
    """
    stamp = _stamp(names, sources)
    folders = (root / FOLDER, user_cache_folder(root))
    for folder in folders:
        labels = _read(folder / f"{key}.json", stamp, len(names))
        if labels is not None:
            return labels
    computed = compute()
    for folder in folders:
        try:
            _write(folder, f"{key}.json", {"version": _VERSION, "stamp": stamp, "labels": computed})
            break
        except OSError as error:
            logger.debug("%s: labels not cached: %s", folder, error)
    return [frozenset(item) for item in computed]


def _stamp(names: Sequence[str], sources: Sequence[Path]) -> str:
    digest = hashlib.sha256("\n".join(names).encode())
    for path in sources:
        try:
            status = path.stat()
            digest.update(f"|{path.name} {status.st_mtime_ns} {status.st_size}".encode())
        except OSError:
            digest.update(f"|{path.name} missing".encode())
    return digest.hexdigest()


def _read(path: Path, stamp: str, count: int) -> list[frozenset[str]] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != _VERSION or values["stamp"] != stamp or len(values["labels"]) != count:
            return None
        return [frozenset(str(name) for name in item) for item in values["labels"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # not there, older, or damaged: derived anew


def _write(folder: Path, name: str, values: dict[str, object]) -> None:
    make_cache_folder(folder)
    with replacing(folder / name, shared=True, synced=False) as partial:
        partial.write_text(json.dumps(values, separators=(",", ":")), encoding="utf-8")


def make_cache_folder(folder: Path) -> None:
    """Make the folder of a cache; a link in its place, which could lead anywhere, is an ``OSError``."""
    if folder.is_symlink():
        raise OSError(f"{folder}: is a link")
    folder.mkdir(parents=True, exist_ok=True)


def user_cache_folder(root: Path) -> Path:
    """Where caches of the data set at ``root`` go if it may not be written to."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "deal_ros" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
