# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``store.json``: what holds for a whole sample store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from deal_ros.datasets.store_files import INCOMING, StoreError
from deal_ros.files import write_json
from deal_ros.images import MILLIMETRE
from deal_ros.labels import check_classes

FILE_NAME = "store.json"
FORMAT = "deal_ros sample store"
VERSION = 1
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class StoreHeader:
    """The contents of ``store.json``.

    Args:
        classes: class names in id order.
        depth_unit_m: metres per unit of the 16-bit depth files.
        image_format: file type of new colour images, ``jpg`` or ``png``.

    Raises:
        StoreError: if a value is out of range.
        LabelError: if a class name is unusable.
    """

    classes: tuple[str, ...] = ()
    depth_unit_m: float = MILLIMETRE
    image_format: str = "jpg"

    def __post_init__(self) -> None:
        """Check values; an empty list of classes may grow later."""
        if self.classes:
            check_classes(self.classes)
        if self.image_format not in ("jpg", "png"):
            raise StoreError(f"image_format must be 'jpg' or 'png', got {self.image_format!r:.80}")
        if type(self.depth_unit_m) not in (int, float) or not 1e-6 <= self.depth_unit_m <= 1:
            raise StoreError(f"depth_unit_m must be in 1e-6..1 metres, got {self.depth_unit_m!r:.80}")

    def write(self, folder: Path) -> None:
        """Put it into a store, atomically.

        Raises:
            OSError: if it cannot be written.
        """
        values = {
            "format": FORMAT,
            "version": VERSION,
            "classes": list(self.classes),
            "depth_unit_m": self.depth_unit_m,
            "image_format": self.image_format,
        }
        write_json(folder / FILE_NAME, values)

    @classmethod
    def read(cls, folder: Path) -> StoreHeader:
        """Read it from a store.

        Raises:
            StoreError: if it is missing, damaged, or of a newer format.
        """
        path = folder / FILE_NAME
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise StoreError(f"must be smaller than {_MAX_BYTES} bytes")
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise StoreError(f"'format' must be {FORMAT!r}; this is not a sample store")
            if values.get("version") != VERSION:
                raise StoreError(f"version must be {VERSION}, got {values.get('version')!r:.80}; update deal_ros")
            classes = values["classes"]
            if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
                raise StoreError("'classes' must be a list of names")
            return cls(tuple(classes), values["depth_unit_m"], values["image_format"])
        except KeyError as error:
            raise StoreError(f"{path}: cannot be used: {error} is missing; restore it from a backup") from error
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{path}: cannot be used: {error}; restore it from a backup") from error


def is_blank(item: Path) -> bool:
    """Whether an interrupted creation of a store may have left this file or folder."""
    if item.name in ("rgb", "depth", INCOMING):
        return not any(item.iterdir())
    return item.name == f".{FILE_NAME}.new" or (item.name in ("lock", "samples.jsonl") and item.stat().st_size == 0)


def no_links_out(folder: Path) -> None:
    """Refuse a store whose folders lead elsewhere.

    Raises:
        StoreError: if one is a link out of the store.
    """
    root = folder.resolve()
    for name in ("rgb", "depth", "mask", INCOMING):
        if not (folder / name).resolve().is_relative_to(root):
            raise StoreError(f"{folder}/{name}: must lie within the store, it is a link to elsewhere")
