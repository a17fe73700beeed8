# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Any data set in the BOP layout, HOPEv2's static onboarding among them.

::

    ROOT/SPLIT/SCENE/rgb/000000.jpg (or .png), or gray/
    ROOT/SPLIT/SCENE/depth/000000.png             16-bit, × depth_scale = millimetres, 0 = invalid
    ROOT/SPLIT/SCENE/mask_visib/000000_000000.png image and object number; white where the object is seen
    ROOT/SPLIT/SCENE/{scene_gt,scene_gt_info,scene_camera}.json

HOPEv2 calls its scenes ``onboarding_static/obj_000001_up`` and ``…_down``: two sides of each object, each a sequence.
Splits are made of whole sequences or sides, never of single frames, which would be near duplicates of one another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.image_files import DepthKind, DepthMaps, read_bytes, read_ids, read_png16, read_rgb
from deal_ros.labels import check_classes
from deal_ros.sample import IGNORE_ID, Sample

Side = Literal["up", "down"]
_SOURCE = "bop.felk.cvut.cz/datasets"
_SIDE = re.compile(r"obj_\d+_(up|down)")


@dataclass(frozen=True)
class _Frame:
    scene: Path
    number: int
    objects: tuple[int, ...]  # class of each annotated object, in the order of mask files
    visible: tuple[bool, ...]


class BopDataset:
    """The annotated frames of a split, scene after scene.

    Args:
        root: of the data set, for example ``hopev2``.
        split: a folder with scenes: ``onboarding_static``, ``val``, ``train_pbr``, …
        side: take only scenes ``obj_…_up`` or ``obj_…_down``: train on one side, validate on the other.
        scenes: take only scenes that match one of these patterns, for example ``("obj_00000?_up",)``.
        names: class names by object id, ``{1: "alphabet soup"}``; ``obj_000001`` … by default.
        min_visible: objects of which less is seen (``visib_fract``) are not labelled, and are 255 in the mask.
        depth_folder: depth maps computed elsewhere, for data without its own: ``FOLDER/SCENE/000000.png`` below
            ``root``. By default each scene's own ``depth`` is used.
        depth_kind: of ``depth_folder``, see :class:`~deal_ros.datasets.image_files.DepthMaps`; ``none`` does without.
        depth_unit_m: metres per unit of metric PNGs in ``depth_folder``; the data set's own depth has ``depth_scale``.

    Raises:
        DatasetError: if a part is missing or damaged; the message says where it comes from, or what to use instead.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "onboarding_static",
        *,
        side: Side | None = None,
        scenes: str | Sequence[str] = (),
        names: dict[int, str] | None = None,
        min_visible: float = 0.1,
        depth_folder: str | Path | None = None,
        depth_kind: DepthKind = "metric",
        depth_unit_m: float = 0.001,
    ) -> None:
        self.root, self.split = Path(root), split
        if not (self.root / split).is_dir():
            known = ", ".join(sorted({p.parent.parent.name for p in self.root.glob("*/*/scene_gt.json")})) or "none"
            raise DatasetError(f"{self.root / split}: no such split; splits here: {known}; get more from {_SOURCE}")
        if side not in (None, "up", "down"):
            raise DatasetError(f"side must be 'up', 'down' or none, got {side!r}")
        if not 0 <= min_visible <= 1:
            raise DatasetError(f"min_visible must be in 0..1, got {min_visible}")
        self._depth_folder = self.root / depth_folder if depth_folder is not None else None
        self._depth_kind, self._depth_unit_m = depth_kind, depth_unit_m
        if depth_kind == "none" or self._depth_folder is not None:
            DepthMaps(self._depth_folder, depth_kind, depth_unit_m)  # refuses a wrong kind or a missing folder now
        self._ids = _object_ids(self.root)
        self._classes = check_classes((names or {}).get(number, f"obj_{number:06d}") for number in self._ids)
        self._frames: list[_Frame] = []
        self._cameras: dict[Path, dict[str, Any]] = {}
        patterns = [scenes] if isinstance(scenes, str) else list(scenes)
        for scene in _scenes(self.root / split, side, patterns):
            self._add_scene(scene, min_visible)
        if not self._frames:
            raise DatasetError(f"{self.root / split}: no annotated frame (side {side}, scenes {patterns or 'all'})")

    @property
    def classes(self) -> tuple[str, ...]:
        """One class per object of the data set, by ascending id; the same for all its splits."""
        return self._classes

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        """Decode one frame with its depth and visible masks."""
        frame = self._frame(index)
        rgb = read_rgb(_image(frame.scene, frame.number))
        size = (rgb.shape[0], rgb.shape[1])
        camera = self._camera(frame)
        return Sample(
            rgb=rgb,
            depth_m=self._depth(frame, camera, size),
            labels=self.labels(index),
            mask=_mask(frame, size),
            camera_matrix=np.array(camera["cam_K"], np.float64).reshape(3, 3),  # nine numbers, see _camera
            source=f"{self.split}/{frame.scene.name}/{frame.number:06d}",
        )

    def labels(self, index: int) -> frozenset[str]:
        """Objects that are seen well enough."""
        frame = self._frame(index)
        return frozenset(self._classes[kind - 1] for kind, seen in zip(frame.objects, frame.visible) if seen)

    def sample_id(self, index: int) -> str:
        """Split, scene and image number."""
        frame = self._frame(index)
        return f"{self.split}-{frame.scene.name}-{frame.number:06d}"

    def sequence(self, index: int) -> str:
        """Return split and scene; for static onboarding that is one side of one object."""
        return f"{self.split}/{self._frame(index).scene.name}"  # many data sets number their scenes anew in each split

    def _frame(self, index: int) -> _Frame:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._frames[index]

    def _add_scene(self, scene: Path, min_visible: float) -> None:
        truth = _read_json(scene / "scene_gt.json")
        info = _read_json(scene / "scene_gt_info.json") if (scene / "scene_gt_info.json").is_file() else {}
        self._cameras[scene] = _read_json(scene / "scene_camera.json")
        for key in _image_numbers(truth, scene / "scene_gt.json"):
            try:
                kinds = tuple(self._ids.index(int(item["obj_id"])) + 1 for item in truth[key])
                details = info.get(key) or [{}] * len(kinds)
                seen = tuple(float(d.get("visib_fract", 1.0)) >= max(min_visible, 1e-9) for d in details)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise DatasetError(f"{scene}/scene_gt.json: image {key}: {type(error).__name__}: {error}") from error
            if len(seen) != len(kinds):
                raise DatasetError(f"{scene}/scene_gt_info.json: image {key} must have {len(kinds)} entries")
            self._frames.append(_Frame(scene, int(key), kinds, seen))

    def _camera(self, frame: _Frame) -> dict[str, Any]:
        camera = self._cameras[frame.scene].get(str(frame.number))
        matrix = camera.get("cam_K") if isinstance(camera, dict) else None
        numbers = [n for n in matrix if type(n) in (int, float) and abs(n) < 1e9] if isinstance(matrix, list) else []
        if not isinstance(camera, dict) or len(numbers) != 9 or len(matrix or ()) != 9:
            raise DatasetError(f"{frame.scene}/scene_camera.json: image {frame.number} must have cam_K, nine numbers")
        return camera

    def _depth(self, frame: _Frame, camera: dict[str, Any], size: tuple[int, int]) -> NDArray[np.float32]:
        name = f"{frame.number:06d}"
        if self._depth_kind == "none":
            return np.zeros(size, np.float32)
        if self._depth_folder is not None:
            maps = DepthMaps(self._depth_folder / frame.scene.name, self._depth_kind, self._depth_unit_m)
            return maps.read(name, size)
        path = frame.scene / "depth" / f"{name}.png"
        scale = camera.get("depth_scale")
        if not path.is_file() or not isinstance(scale, (int, float)) or not 0 < scale < 1000:
            what = "depth_scale is missing in scene_camera.json" if path.is_file() else "depth is missing"
            raise DatasetError(
                f"{path}: {what}; HOPEv2's static onboarding may come without depth: compute maps with a depth"
                " estimator and name their folder with depth_folder=…, or use depth_kind='none'"
            )
        raw = read_png16(path)
        if raw.shape != size:
            raise DatasetError(f"{path}: depth must have the size of its image {size}, got {raw.shape}")
        return raw.astype(np.float32) * np.float32(scale / 1000)


def find_bop(path: str | Path) -> bool:
    """Whether ``path`` holds BOP scenes."""
    return next(Path(path).glob("*/*/scene_gt.json"), None) is not None


def _scenes(folder: Path, side: Side | None, patterns: Sequence[str]) -> list[Path]:
    chosen = []
    for scene in sorted(folder.iterdir()):
        if not (scene / "scene_gt.json").is_file():
            continue
        match = _SIDE.fullmatch(scene.name)
        if side is not None and (match is None or match.group(1) != side):
            continue
        if not patterns or any(fnmatchcase(scene.name, pattern) for pattern in patterns):
            chosen.append(scene)
    return chosen


def _object_ids(root: Path) -> list[int]:
    """Ids of all objects of the data set: from its models, else from the truth of all its splits."""
    for path in sorted(root.glob("models*/models_info.json")):
        return _numbers(_read_json(path), path)
    ids: set[int] = set()
    for path in root.glob("*/*/scene_gt.json"):
        for items in _read_json(path).values():
            for item in items if isinstance(items, list) else []:
                if isinstance(item, dict) and type(item.get("obj_id")) is int:
                    ids.add(item["obj_id"])
    if not ids:
        raise DatasetError(f"{root}: no object in any scene_gt.json, and no models/models_info.json; see {_SOURCE}")
    return sorted(ids)


def _image(scene: Path, number: int) -> Path:
    for folder in ("rgb", "gray"):
        for extension in (".jpg", ".png", ".tif"):
            path = scene / folder / f"{number:06d}{extension}"
            if path.is_file():
                return path
    raise DatasetError(f"{scene}/rgb/{number:06d}.jpg (or .png, or in gray/): image is missing; see {_SOURCE}")


def _mask(frame: _Frame, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    folder = frame.scene / "mask_visib"
    if not folder.is_dir():
        return None
    mask = np.zeros(size, np.uint8)
    for index, (kind, seen) in enumerate(zip(frame.objects, frame.visible)):
        path = folder / f"{frame.number:06d}_{index:06d}.png"
        region = read_ids(path)
        if region.shape != size:
            raise DatasetError(f"{path}: mask must have the size of its image {size}, got {region.shape}")
        mask[region > 0] = kind if seen else IGNORE_ID
    return mask


def _image_numbers(truth: dict[str, Any], path: Path) -> list[str]:
    """Sort the keys by the numbers that they are."""
    numbers = _numbers(truth, path)
    if len(numbers) != len(set(numbers)):
        raise DatasetError(f"{path}: has an image number twice")
    return sorted(truth, key=int)


def _numbers(values: dict[str, Any], path: Path) -> list[int]:
    wrong = [key for key in values if not (key.isascii() and key.isdigit() and len(key) <= 12)]
    if wrong:
        raise DatasetError(f"{path}: keys must be numbers, got {wrong[0]!r:.40}")
    return sorted(int(key) for key in values)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DatasetError(f"{path}: must be a mapping by image number, got {type(values).__name__}")
    return values
