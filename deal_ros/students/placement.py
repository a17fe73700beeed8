# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A folder of files appears as a whole or not at all, whatever kills the writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deal_ros.files import sync_file, sync_folder, write_file


def place_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` into a folder beside ``folder``, sync them, and rename it to ``folder``.

    A folder that is there is moved aside first and removed last, so that one of the two is always whole.

    Raises:
        OSError: if the disk refuses; what was there is there again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for name, content in files.items():
            write_file(partial / name, content)
            sync_file(partial / name)
        sync_folder(partial)
        old = folder.parent / f".{folder.name}.{os.getpid()}.old"
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # of a process that had this number before and was killed
            folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed writers left beside ``folder``, and put back an old bundle whose successor never came."""
    for left in folder.parent.glob(f".{_literal(folder.name)}.*"):
        process, kind = left.name.removeprefix(f".{folder.name}.").partition(".")[::2]
        if not process.isdigit() or _alive(int(process)):
            continue
        if kind == "old" and not folder.exists():
            left.rename(folder)  # Killed between the two renames: the old bundle is still the valid one.
        elif kind in ("partial", "old"):
            shutil.rmtree(left, ignore_errors=True)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
