# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COCO 2014 and 2017: image labels and masks from the instance annotations, depth maps from a folder beside them.

::

    images/{train2014,val2014,…}/*.jpg       or the same folders directly below the root
    annotations/instances_{split}.json
    depth/{split}/NAME.{png,npz,npy}         precomputed depth, see DepthMaps

The annotation file of train2014 has 450 MB and becomes gigabytes in memory. It is read once; what is needed goes, one
line per image, into ``.deal_ros/`` beside it, from where single lines are read afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.image_files import DepthKind, DepthMaps, read_rgb
from deal_ros.datasets.label_cache import FOLDER, make_cache_folder, user_cache_folder
from deal_ros.files import replacing
from deal_ros.labels import check_classes
from deal_ros.sample import IGNORE_ID, Sample

_SOURCE = "cocodataset.org (train2014.zip, val2014.zip, annotations_trainval2014.zip, or their 2017 successors)"
_INDEX_VERSION = 1


class CocoDataset:
    """One split as samples; class ids are contiguous in the order of COCO's own, which have gaps.

    Args:
        root: folder with ``annotations``.
        split: ``train2014``, ``val2014``, ``train2017``, ``val2017``, or any other with such an annotation file.
        depth_folder: where the depth maps are; ``depth/{split}`` by default. Relative paths start at ``root``.
        depth_kind: see :class:`~deal_ros.datasets.image_files.DepthMaps`.
        depth_unit_m: metres per unit of metric PNGs.

    Raises:
        DatasetError: if a part is missing or damaged; the message says where it comes from.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train2014",
        *,
        depth_folder: str | Path | None = None,
        depth_kind: DepthKind = "metric",
        depth_unit_m: float = 0.001,
    ) -> None:
        self.root, self.split = Path(root), split
        annotations = self.root / "annotations" / f"instances_{split}.json"
        if not annotations.is_file():
            here = sorted(p.stem[len("instances_") :] for p in (self.root / "annotations").glob("instances_*.json"))
            raise DatasetError(
                f"{annotations}: annotations are missing; get them from {_SOURCE}"
                f" (splits here: {', '.join(here) or 'none'})"
            )
        folders = (self.root / "images" / split, self.root / split)
        found = next((folder for folder in folders if folder.is_dir()), None)
        if found is None:
            raise DatasetError(f"{folders[0]}: images are missing; get them from {_SOURCE}")
        self.images = found
        folder = None if depth_kind == "none" else self.root / (depth_folder or Path("depth") / split)
        self.depth = DepthMaps(folder, depth_kind, depth_unit_m)
        self._index = _open_index(annotations, self.root)
        self._lines, header = _read_index(self._index)
        self._classes: tuple[str, ...] = tuple(header["classes"])
        self._labels = [frozenset(self._classes[i - 1] for i in ids) for ids in header["labels"]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the categories (80 in COCO) by ascending COCO id."""
        return self._classes

    def __len__(self) -> int:
        """Return the number of images, those without any object included."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        """Decode one image with its depth; smaller objects are drawn over larger ones in its mask."""
        record = self._record(index)
        path = self.images / record["file"]
        rgb = read_rgb(path)
        size = (rgb.shape[0], rgb.shape[1])
        if size != (record["height"], record["width"]):
            raise DatasetError(f"{path}: must be {record['height']} x {record['width']} as annotated, got {size}")
        return Sample(
            rgb=rgb,
            depth_m=self.depth.read(path.stem, size),
            labels=self._labels[index],
            mask=draw_mask(record["objects"], size, str(path)),
            source=f"COCO {self.split}/{path.stem}",
        )

    def labels(self, index: int) -> frozenset[str]:
        """Classes in the image."""
        return self._labels[index]

    def sample_id(self, index: int) -> str:
        """Return the image's file name without extension."""
        return Path(self._record(index)["file"]).stem

    def sequence(self, index: int) -> str:
        """Return the image's name: each is a scene of its own."""
        return self.sample_id(index)

    def _record(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        with self._index.open("rb") as file:
            file.seek(int(self._lines[index]))
            line = file.readline()
        try:
            record = json.loads(line)
            if Path(record["file"]).name != record["file"] or not isinstance(record["objects"], list):
                raise ValueError("must name a file without its folder, and its objects")
            if not {"height", "width"} <= set(record):
                raise ValueError("must have height and width")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetError(f"{self._index}: line {index + 2} is damaged ({error}); remove the file") from error
        return record


def find_coco(path: str | Path) -> bool:
    """Whether ``path`` holds COCO annotations."""
    return any((Path(path) / "annotations").glob("instances_*.json"))


def draw_mask(objects: Iterable[dict[str, Any]], size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """Class-id mask uint8 (H, W) of instances: ``{"class", "area", "segmentation"}``, polygons or RLE.

    Raises:
        DatasetError: if a segmentation is none of these, or its RLE has another size.
    """
    mask = np.zeros(size, np.uint8)
    try:
        ordered = sorted(objects, key=lambda entry: -float(entry["area"]))
        parts = [(item["segmentation"], int(item["class"])) for item in ordered]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DatasetError(f"{where}: objects must have class, area and segmentation: {error}") from error
    for segmentation, kind in parts:
        if not 0 < kind < IGNORE_ID:
            raise DatasetError(f"{where}: class must be in 1..{IGNORE_ID - 1}, got {kind}")
        mask[_region(segmentation, size, where)] = kind
    return mask


def _region(segmentation: Any, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        return _polygons(segmentation, size, where)
    if not isinstance(segmentation, dict) or segmentation.get("size") != list(size):
        raise DatasetError(
            f"{where}: segmentation must be polygons or RLE of size {list(size)}, got {str(segmentation)[:80]}"
        )
    counts = segmentation.get("counts")
    runs = decode_rle_text(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(n) is int and n >= 0 for n in runs) or sum(runs) != size[0] * size[1]:
        raise DatasetError(f"{where}: RLE counts must be runs that add up to {size[0] * size[1]} pixels")
    values = np.arange(len(runs)) % 2 == 1  # runs alternate, beginning with background, column by column
    return np.repeat(values, runs).reshape(size[1], size[0]).T


def _polygons(polygons: list[Any], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    usable = []
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64) if isinstance(polygon, list) else np.zeros(0)
        except (ValueError, TypeError, OverflowError):
            points = np.zeros(0)
        # The library reserves memory by the length of the outline: far points must not reach it.
        far = 2 * max(size)
        if points.ndim != 1 or points.size < 6 or points.size % 2 or not (np.abs(points) <= far).all():
            raise DatasetError(
                f"{where}: a polygon must be x, y, … of at least 3 points in or near the image, got {str(polygon)[:80]}"
            )
        usable.append(points)
    if not usable:
        return np.zeros(size, bool)
    try:
        from pycocotools import mask as coco_mask
    except ImportError:
        canvas = np.zeros(size, np.uint8)
        for points in usable:  # OpenCV counts from pixel centres, COCO from pixel corners
            corners = np.round((points.reshape(-1, 2) - 0.5) * 256).astype(np.int32)
            cv2.fillPoly(canvas, [corners], 1, shift=8)
        return canvas > 0
    runs = coco_mask.frPyObjects([points.tolist() for points in usable], *size)
    return np.asarray(coco_mask.decode(coco_mask.merge(runs)), bool)


def decode_rle_text(text: str) -> list[int]:
    """Run lengths of COCO's compressed RLE.

    Each number is written five bits at a time, lowest first, as characters from '0' on whose sixth bit says that more
    follow; from the fourth run on it is the difference to the run before the last.

    Example:
        >>> decode_rle_text("7330;")
        [7, 3, 3, 3, 14]
    """
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more and position < len(text):
            code = ord(text[position]) - 48
            if not 0 <= code < 64 or shift > 40:
                raise DatasetError(f"RLE text has an unknown character or too long a number at {text[position]!r}")
            value |= (code & 31) << shift
            more = bool(code & 32)
            shift += 5
            position += 1
            if not more and code & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _open_index(annotations: Path, root: Path) -> Path:
    """Open the index of an annotation file, made anew if there is none of this very file."""
    status = annotations.stat()
    name = f"coco-{annotations.stem}-{status.st_size:x}-{status.st_mtime_ns:x}-v{_INDEX_VERSION}.jsonl"
    folders = (root / FOLDER, user_cache_folder(root))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    header, records = _digest(annotations)
    failure: OSError | None = None
    for folder in folders:
        try:
            return _write_index(folder, name, header, records)
        except OSError as error:
            failure = error
    raise DatasetError(f"{folders[1]}: the index of {annotations.name} cannot be written: {failure}") from failure


def _digest(annotations: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        content = json.loads(annotations.read_bytes())
        categories = sorted(content["categories"], key=lambda item: item["id"])
        classes = check_classes(str(item["name"]) for item in categories)
        numbers = {item["id"]: number for number, item in enumerate(categories, 1)}
        records: dict[Any, dict[str, Any]] = {
            item["id"]: {
                "file": Path(str(item["file_name"])).name,
                "height": int(item["height"]),
                "width": int(item["width"]),
                "objects": [],
            }
            for item in content["images"]
        }
        for item in content["annotations"]:
            kind, area = numbers[item["category_id"]], float(item["area"])
            entry = {"class": kind, "area": area, "segmentation": item["segmentation"]}
            records[item["image_id"]]["objects"].append(entry)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DatasetError(
            f"{annotations}: not COCO instance annotations ({type(error).__name__}: {error}); get them from {_SOURCE}"
        ) from error
    labels = [sorted({entry["class"] for entry in record["objects"]}) for record in records.values()]
    return {"classes": list(classes), "labels": labels}, list(records.values())


def _write_index(folder: Path, name: str, header: dict[str, Any], records: Sequence[dict[str, Any]]) -> Path:
    make_cache_folder(folder)
    with replacing(folder / name, shared=True, synced=False) as partial, partial.open("wb") as file:
        file.write(json.dumps(header, separators=(",", ":")).encode() + b"\n")
        for record in records:
            file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    return folder / name


def _read_index(path: Path) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Byte offsets (N,) of the records, and the header."""
    offsets = []
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline())
            classes = check_classes(header["classes"])
            if not all(1 <= number <= len(classes) for ids in header["labels"] for number in ids):
                raise ValueError("labels must be numbers of classes")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetError(f"{path}: is damaged ({error}); remove the file") from error
        position = file.tell()
        for line in file:
            offsets.append(position)
            position += len(line)
    if len(offsets) != len(header["labels"]):
        raise DatasetError(f"{path}: must have {len(header['labels'])} records, got {len(offsets)}; remove the file")
    return np.asarray(offsets, np.int64), header
