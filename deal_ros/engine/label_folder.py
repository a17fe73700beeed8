# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A folder of label maps: ``<sample id>.png`` with class ids (0 background, 255 ignored), and labels.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.datasets.image_files import read_png8
from deal_ros.files import replacing, write_json
from deal_ros.sample import IGNORE_ID

INDEX = "labels.json"
FORMAT = "deal_ros label maps 1"


class LabelFolder:
    """Label maps on disk, for a data set's classes.

    Args:
        path: the folder.
        classes: class names in id order; must be those the maps were made with.

    Raises:
        DatasetError: if labels.json is missing (the stage did not finish) or names other classes.
    """

    def __init__(self, path: str | Path, classes: Sequence[str]) -> None:
        self.path = Path(path)
        self.info = read_index(self.path)
        self.version = hashlib.sha256(json.dumps(self.info, sort_keys=True).encode()).hexdigest()[:12]
        """Twelve hexadecimal digits that differ where the maps were made otherwise."""
        self._num_classes = len(classes)
        if list(self.info["classes"]) != list(classes):
            raise DatasetError(
                f"{self.path}: label maps must be for the classes {', '.join(classes)},"
                f" got {', '.join(map(str, self.info['classes']))}; make them anew"
            )

    def has(self, sample_id: str) -> bool:
        """Whether there is a map for this sample."""
        return map_path(self.path, sample_id).is_file()

    def indices(self, dataset: SampleDataset) -> list[int]:
        """Positions of the samples that have a map.

        Raises:
            DatasetError: if none has.
        """
        found = [i for i in range(len(dataset)) if self.has(dataset.sample_id(i))]
        if not found:
            raise DatasetError(
                f"{self.path}: no label map belongs to a sample of this data set; make them from the same data"
            )
        return found

    def read(self, sample_id: str) -> NDArray[np.uint8]:
        """Read the map, uint8 (H, W).

        Raises:
            DatasetError: if it is missing or not such a map.
        """
        return read_map(map_path(self.path, sample_id), self._num_classes)


def check_size(mask: NDArray[np.uint8], size: tuple[int, ...], name: str) -> None:
    """Refuse a map of another size than its image's (H, W).

    Raises:
        DatasetError: naming the sample and the remedy.
    """
    if mask.shape != tuple(size):
        raise DatasetError(
            f"label map of {name} must be {tuple(size)}, the size of its image, got {mask.shape}; make the labels anew"
            " from this data set"
        )


def map_path(folder: Path, sample_id: str) -> Path:
    """Where a sample's map is."""
    return folder / f"{sample_id}.png"


def read_map(path: Path, num_classes: int) -> NDArray[np.uint8]:
    """Read one label map.

    Raises:
        DatasetError: if it is missing, no 8-bit grey PNG, or holds other ids.
    """
    mask = read_png8(path)
    largest = int(np.max(mask, initial=0, where=mask != IGNORE_ID))
    if largest > num_classes:
        raise DatasetError(f"{path}: ids must be 0..{num_classes} or {IGNORE_ID}, got {largest}")
    return mask


def write_map(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write one label map, whole or not at all.

    Raises:
        OSError: if the disk refuses.
    """
    done, data = cv2.imencode(".png", mask)
    if not done:
        raise OSError(f"{path}: label map could not be encoded")
    with replacing(path, shared=True, synced=False) as partial:
        partial.write_bytes(data.tobytes())


def write_index(folder: Path, info: Mapping[str, Any]) -> None:
    """Write labels.json: from now on the folder counts as finished."""
    write_json(folder / INDEX, {"format": FORMAT, **info})


def read_index(folder: Path) -> dict[str, Any]:
    """Read labels.json.

    Raises:
        DatasetError: if it is missing or something else.
    """
    path = folder / INDEX
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: not there; run the stage that writes these label maps to its end first") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not readable: {error}; remove the folder and make the labels anew") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT or not isinstance(info.get("classes"), list):
        raise DatasetError(f"{path}: must be a {FORMAT!r}; make the labels anew")
    return info
