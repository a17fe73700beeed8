# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""PASCAL VOC 2012, with the SBD extension (trainaug) where it is there, and depth maps from a folder beside it.

::

    VOC2012/JPEGImages/NAME.jpg
    VOC2012/Annotations/NAME.xml                  image labels; where missing, they are read from the mask
    VOC2012/SegmentationClass/NAME.png            palette PNG, 255 on outlines
    VOC2012/SegmentationClassAug/NAME.png         SBD, for trainaug
    VOC2012/ImageSets/Segmentation/{train,val,trainaug}.txt
    VOC2012/depth/NAME.{png,npz,npy}              precomputed depth, see DepthMaps
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.image_files import DepthKind, DepthMaps, read_bytes, read_ids, read_rgb
from deal_ros.datasets.label_cache import cached_labels
from deal_ros.sample import IGNORE_ID, Sample

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_SOURCES = {
    "train": "VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012",
    "val": "VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012",
    "trainaug": "the SBD extension: put its 10,582 names into ImageSets/Segmentation/trainaug.txt and its masks into"
    " SegmentationClassAug",
}


class VocDataset:
    """One split as samples. Every photograph is a sequence of its own.

    Args:
        root: ``VOC2012``, or a folder that holds it (``VOCdevkit``).
        split: a list in ``ImageSets/Segmentation``: ``train``, ``val``, ``trainaug``, …
        depth_folder: where the depth maps are; ``VOC2012/depth`` by default. Relative paths start at ``VOC2012``.
        depth_kind: see :class:`~deal_ros.datasets.image_files.DepthMaps`.
        depth_unit_m: metres per unit of metric PNGs.

    Raises:
        DatasetError: if a part is missing; the message says where it comes from.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        depth_folder: str | Path | None = None,
        depth_kind: DepthKind = "metric",
        depth_unit_m: float = 0.001,
    ) -> None:
        base = find_voc(root)
        if base is None:
            raise DatasetError(
                f"{root}: not VOC 2012: JPEGImages and ImageSets/Segmentation are missing; unpack {_SOURCES['train']}"
            )
        self.root, self.split = base, split
        folder = None if depth_kind == "none" else base / (depth_folder or "depth")
        self.depth = DepthMaps(folder, depth_kind, depth_unit_m)
        self._names = self._read_list()
        self._labels = cached_labels(
            base,
            f"voc-{split}",
            self._names,
            [base / "Annotations", base / "SegmentationClass", base / "SegmentationClassAug"],
            lambda: [sorted(self._derive_labels(name), key=VOC_CLASSES.index) for name in self._names],
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the 20 classes in VOC's order."""
        return VOC_CLASSES

    def __len__(self) -> int:
        """Return the number of images of the split."""
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """Decode one image with its depth, and its mask where there is one."""
        name = self.sample_id(index)
        rgb = read_rgb(self.root / "JPEGImages" / f"{name}.jpg")
        size = (rgb.shape[0], rgb.shape[1])
        path = self._mask_path(name)
        mask = read_ids(path) if path is not None else None
        if mask is not None and mask.shape != size:
            raise DatasetError(f"{path}: mask must have the size of its image {size}, got {mask.shape}")
        return Sample(
            rgb=rgb,
            depth_m=self.depth.read(name, size),
            labels=self._labels[index],
            mask=mask,
            source=f"VOC2012/{name}",
        )

    def labels(self, index: int) -> frozenset[str]:
        """Classes in the image."""
        return self._labels[index]

    def sample_id(self, index: int) -> str:
        """Return VOC's name of the image."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._names[index]

    def sequence(self, index: int) -> str:
        """Return the image's name: each is a scene of its own."""
        return self.sample_id(index)

    def _read_list(self) -> list[str]:
        folder = self.root / "ImageSets" / "Segmentation"
        path = folder / f"{self.split}.txt"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in folder.glob("*.txt"))) or "none"
            origin = _SOURCES.get(self.split, "the list of image names, one a line")
            raise DatasetError(f"{path}: list is missing; it comes from {origin} (lists here: {known})")
        names = []
        for line in read_bytes(path).decode("utf-8", errors="replace").split("\n"):
            # Some trainaug lists write "/JPEGImages/NAME.jpg /SegmentationClassAug/NAME.png".
            words = line.split()
            if words:
                names.append(Path(words[0]).stem)
        if not names:
            raise DatasetError(f"{path}: has no names")
        if len(longest := max(names, key=len)) > 200:
            raise DatasetError(f"{path}: names must have at most 200 characters, got {longest[:40]!r}…")
        return names

    def _mask_path(self, name: str) -> Path | None:
        for folder in ("SegmentationClass", "SegmentationClassAug"):  # VOC's own is the finer one
            path = self.root / folder / f"{name}.png"
            if path.is_file():
                return path
        return None

    def _derive_labels(self, name: str) -> set[str]:
        path = self.root / "Annotations" / f"{name}.xml"
        if path.is_file():
            return _labels_from_xml(path)
        mask = self._mask_path(name)
        if mask is None:
            raise DatasetError(
                f"{name}: has neither Annotations/{name}.xml nor a mask to read its labels from;"
                f" unpack {_SOURCES['train']}"
            )
        ids = [int(i) for i in np.unique(read_ids(mask)) if 0 < i < IGNORE_ID]
        if ids and ids[-1] > len(VOC_CLASSES):
            raise DatasetError(f"{mask}: ids must be 0..{len(VOC_CLASSES)} or 255, got {ids[-1]}")
        return {VOC_CLASSES[i - 1] for i in ids}


def find_voc(path: str | Path) -> Path | None:
    """Find the VOC2012 folder at or below ``path``, or ``None``."""
    path = Path(path)
    for base in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012"):
        if (base / "JPEGImages").is_dir() and (base / "ImageSets" / "Segmentation").is_dir():
            return base
    return None


class _DoctypeError(Exception):
    pass


class _PlainBuilder(ElementTree.TreeBuilder):
    """Refuses document types, in whatever encoding: entities, which they declare, can grow without end."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse; the parser calls this before anything in the document type is read."""
        raise _DoctypeError(name)


def _labels_from_xml(path: Path) -> set[str]:
    data = read_bytes(path)
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_PlainBuilder()))
    except _DoctypeError as error:
        raise DatasetError(f"{path}: annotations have no document type of their own; this file is refused") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two for unknown encodings
        raise DatasetError(f"{path}: not XML: {error}") from error
    names = {(item.findtext("name") or "").strip() for item in root.findall("object")}
    unknown = sorted(names - set(VOC_CLASSES))
    if unknown:
        raise DatasetError(f"{path}: unknown class {', '.join(unknown)}; known: {', '.join(VOC_CLASSES)}")
    return names
