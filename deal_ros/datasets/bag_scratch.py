# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Temporary copies of recordings that cannot be read where they are: compressed ones, and databases cut short."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from deal_ros.datasets.base import DatasetError

_DISK_MARGIN_BYTES = 1 << 28


class BagError(DatasetError):
    """A bag that cannot be used at all; the message names the remedy."""


def scratch_copy(
    source: Path, name: str, blocks: Iterable[bytes], least_bytes: int = 0, remedy: str = ""
) -> tempfile.TemporaryDirectory[str]:
    """Write a temporary copy of a recording.

    Args:
        source: the recording, for messages.
        name: of the copy.
        blocks: its contents. They handle errors of reading themselves: an ``OSError`` means a full disk here.
        least_bytes: length of the copy as far as it is known.
        remedy: what else helps against a full disk.

    Returns:
        The folder that holds the copy, which goes with it.

    Raises:
        BagError: if the disk for temporary files is full. That is no damage of the recording: with more space the
            import begins anew.
    """
    folder = None
    try:
        folder = tempfile.TemporaryDirectory(prefix="deal_bag_")
        free = shutil.disk_usage(folder.name).free
        with (Path(folder.name) / name).open("wb") as copy:
            for block in blocks:
                if free < least_bytes + _DISK_MARGIN_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                copy.write(block)
                free, least_bytes = shutil.disk_usage(folder.name).free, 0
    except BaseException as error:
        where = Path(folder.name).parent if folder is not None else "the folder for temporary files"
        if folder is not None:
            folder.cleanup()
        if not isinstance(error, OSError):
            raise
        raise BagError(
            f"{source}: a temporary copy does not fit into {where} ({error.strerror or error});"
            f" set TMPDIR to a larger disk{remedy}"
        ) from error
    return folder
