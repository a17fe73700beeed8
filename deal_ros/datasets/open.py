# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Open whatever data set lies in a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.datasets.bop import BopDataset, find_bop
from deal_ros.datasets.coco import CocoDataset, find_coco
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.voc import VocDataset, find_voc

RENDERED_MANIFEST = "manifest.json"


def _open_store(path: str | Path) -> SampleDataset:
    return SampleStore.open(path)


def _open_rendered(path: str | Path, scenario: str = "onboarding", split: str = "train") -> SampleDataset:
    from deal_ros.datasets.rendered import open_rendered

    return open_rendered(path, scenario, split)  # type: ignore[arg-type]


OPENERS: dict[str, Callable[..., SampleDataset]] = {
    "store": _open_store,
    "rendered": _open_rendered,
    "voc": VocDataset,
    "coco": CocoDataset,
    "bop": BopDataset,
}
"""Layout → what opens it; its keyword arguments are the options of ``open_dataset``."""


def recognize(path: str | Path) -> str | None:
    """Recognize the layout of the data set in a folder, a key of :data:`OPENERS`; ``None`` if it is none of them."""
    path = Path(path)
    if SampleStore.is_store(path):
        return "store"
    if (path / RENDERED_MANIFEST).is_file() and any(path.glob("*/*/store.json")):
        return "rendered"
    if find_voc(path) is not None:
        return "voc"
    if find_coco(path):
        return "coco"
    return "bop" if find_bop(path) else None


def open_dataset(path: str | Path, **options: Any) -> SampleDataset:
    """Open the data set in ``path``, whichever layout it has.

    Args:
        path: a folder.
        options: of the layout: ``split`` and depth options for VOC, COCO and BOP, ``scenario`` and ``split`` for
            rendered scenes, none for a sample store.

    Raises:
        DatasetError: if there is no data set, or an option is not one of its layout.

    Example:
        >>> open_dataset("/no/such/folder")
        Traceback (most recent call last):
        ...
        deal_ros.datasets.base.DatasetError: /no/such/folder: no such folder
    """
    path = Path(path)
    if not path.is_dir():
        raise DatasetError(f"{path}: no such folder" if not path.exists() else f"{path}: must be a folder")
    layout = recognize(path)
    if layout is None:
        raise DatasetError(
            f"{path}: no data set that is known: a sample store has store.json, rendered scenes manifest.json, VOC 2012"
            " JPEGImages and ImageSets/Segmentation, COCO annotations/instances_*.json, BOP SPLIT/SCENE/scene_gt.json;"
            " a ROS bag becomes a store by `deal import`"
        )
    opener = OPENERS[layout]
    known = list(inspect.signature(opener).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise DatasetError(
            f"{path}: {layout} data has no option {', '.join(unknown)}; known: {', '.join(known) or 'none'}"
        )
    return opener(path, **options)
