# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Miniature data sets in the real layouts of VOC, COCO, BOP/HOPE and the sample store, drawn in a second.

They let every recipe run end to end on any machine (``deal run RECIPE --smoke``) and every reader be tested on the
folders and encodings it will meet: palette PNGs, polygons, 16-bit depth, one mask per instance. The scenes are a
tilted, textured table with textured boxes and discs on it, whose depth breaks at their outlines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deal_ros.labels import palette
from deal_ros.sample import IGNORE_ID, Sample

DEPTH_SCALE_MM = 0.1
"""Millimetres per unit in the BOP folders, as HOPE has it."""

VOC_NAMES = ("aeroplane", "bicycle", "bird", "boat")
COCO_NAMES = ((1, "person"), (2, "bicycle"), (13, "stop sign"), (90, "toothbrush"))
"""COCO's ids have gaps, and so have these."""


def miniature_sample(
    ids: Sequence[int],
    names: Sequence[str],
    *,
    seed: int,
    size: tuple[int, int] = (96, 128),
    objects: int | None = None,
) -> Sample:
    """Draw one scene.

    Args:
        ids: classes in view, 1-based into ``names``; one object each.
        names: all class names, in id order.
        seed: of the scene.
        size: height and width in pixels.
        objects: unlabelled distractors beside them; ``None`` draws 0 or 1.

    Returns:
        A sample with labels, true mask and camera matrix. One corner of the depth has no return.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = rng.uniform(0.2, 0.5)
    depth = (1.2 - slope * (ys / height) + 0.05 * (xs / width)).astype(np.float32)
    rgb = _texture(rng, size, rng.integers(60, 160, 3), 18)
    mask = np.zeros(size, np.uint8)
    distractors = int(rng.integers(0, 2)) if objects is None else objects
    for kind in [*([0] * distractors), *ids]:
        shape = _outline(rng, size, round_shape=kind % 2 == 0)
        rgb[shape] = _texture(rng, size, _class_color(kind), 30 + 10 * (kind % 3))[shape]
        depth[shape] = depth[shape].min() - rng.uniform(0.08, 0.2)
        mask[shape] = kind
    depth[: height // 12, : width // 12] = 0
    matrix = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float64)
    labels = frozenset(names[i - 1] for i in np.unique(mask) if i)
    return Sample(rgb, depth, labels=labels, mask=mask, camera_matrix=matrix, stamp_ns=seed, source=f"miniature {seed}")


def write_voc(root: Path, *, per_split: int = 6, seed: int = 0) -> Path:
    """``root/VOC2012`` with train, trainaug and val, XML annotations, and a folder of depth maps in millimetres."""
    base = root / "VOC2012"
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for number, (split, sample, ids) in enumerate(_samples(VOC_NAMES, ("train", "val"), per_split, seed)):
        name = f"2007_{number:06d}"
        lists[split].append(name)
        _write_image(base / "JPEGImages" / f"{name}.jpg", sample.rgb)
        outlined = _with_border(_mask(sample))
        _write_palette(base / "SegmentationClass" / f"{name}.png", outlined)
        _write_image(base / "SegmentationClassAug" / f"{name}.png", outlined)
        _write_image(base / "depth" / f"{name}.png", _millimetres(sample, 1.0))
        _write_text(base / "Annotations" / f"{name}.xml", _voc_xml(name, _mask(sample), ids))
    lists["trainaug"] = lists["train"]
    for split, names in lists.items():
        _write_text(base / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in names))
    return base


def write_coco(root: Path, *, per_split: int = 6, seed: int = 0) -> Path:
    """COCO-2014 folders: images, instance polygons with gapped category ids, depth maps in millimetres."""
    names = [name for _, name in COCO_NAMES]
    content: dict[str, dict[str, Any]] = {}
    for number, (split, sample, ids) in enumerate(_samples(names, ("train2014", "val2014"), per_split, seed), 1):
        part = content.setdefault(split, {"images": [], "annotations": []})
        stem = f"COCO_{split}_{number:012d}"
        _write_image(root / "images" / split / f"{stem}.jpg", sample.rgb)
        _write_image(root / "depth" / split / f"{stem}.png", _millimetres(sample, 1.0))
        height, width = sample.size
        part["images"].append({"id": number, "file_name": f"{stem}.jpg", "height": height, "width": width})
        for kind in ids:
            region = (_mask(sample) == kind).astype(np.uint8)
            contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            polygons = [contour.reshape(-1).astype(float).tolist() for contour in contours if len(contour) >= 3]
            if not polygons:
                continue
            x, y, w, h = (int(v) for v in cv2.boundingRect(region))
            entry = {"id": 10 * number + kind, "image_id": number, "category_id": COCO_NAMES[kind - 1][0]}
            entry |= {"segmentation": polygons, "area": int(region.sum()), "bbox": [x, y, w, h], "iscrowd": 0}
            part["annotations"].append(entry)
    categories = [{"id": number, "name": name, "supercategory": "thing"} for number, name in COCO_NAMES]
    for split, part in content.items():
        _write_text(root / "annotations" / f"instances_{split}.json", json.dumps({**part, "categories": categories}))
    return root


def write_hope(root: Path, *, objects: int = 4, frames: int = 4, seed: int = 0) -> Path:
    """HOPEv2 as BOP lays it out: ``onboarding_static/obj_0000NN_{up,down}`` and two ``val`` scenes of two objects."""
    names = [f"obj_{number:06d}" for number in range(1, objects + 1)]
    for kind in range(1, objects + 1):
        for pose in ("up", "down"):
            scene = root / "onboarding_static" / f"obj_{kind:06d}_{pose}"
            seeds = [seed + 100 * kind + 10 * (pose == "down") + i for i in range(frames)]
            _write_bop_scene(scene, [miniature_sample([kind], names, seed=s, objects=0) for s in seeds])
    for scene_id in (1, 2):
        pairs = [{1 + (i + scene_id) % objects, 1 + (i + 2 * scene_id + 1) % objects} for i in range(frames)]
        first = seed + 9000 + 50 * scene_id
        samples = [miniature_sample(sorted(pair), names, seed=first + i) for i, pair in enumerate(pairs)]
        _write_bop_scene(root / "val" / f"{scene_id:06d}", samples)
    return root


def write_store(root: Path, *, classes: Sequence[str] = ("milk", "ketchup"), per_class: int = 8, seed: int = 0) -> Path:
    """Write a sample store as a robot gathers it: one sequence per class with its label and true masks."""
    from deal_ros.datasets.store import SampleStore

    store = SampleStore.create(root, classes)
    for kind, name in enumerate(classes, 1):
        for number in range(per_class):
            store.append(miniature_sample([kind], classes, seed=seed + 1000 * kind + number), sequence=f"show-{name}")
    store.close()
    return root


def write_rendered(root: Path, *, seed: int = 0) -> Path:
    """Write the folders of ``deal render``: onboarding and tabletop stores for train, val and test."""
    from deal_ros.datasets.store import SampleStore

    names = ("alphabet_soup", "ketchup", "milk")
    for part, split in enumerate(("train", "val", "test")):
        for scenario in ("onboarding", "tabletop"):
            with SampleStore.create(root / scenario / split, names) as store:
                for number in range(12 if split == "train" else 6):
                    kind = 1 + number % 3
                    ids = [kind] if scenario == "onboarding" else sorted({kind, 1 + (number // 3) % 3})
                    sample = miniature_sample(ids, names, seed=seed + 1000 * part + 100 * len(scenario) + number)
                    store.append(sample, sequence=f"{scenario}-{number // 2}")
    # What the reader goes by is there last: without it the folder does not count as whole.
    _write_text(root / "manifest.json", json.dumps({"format": "deal_ros miniature of rendered scenes", "seed": seed}))
    return root


MINIATURES: dict[str, Callable[[Path], Path]] = {
    "voc": write_voc,
    "coco": write_coco,
    "bop": write_hope,
    "store": write_store,
    "rendered": write_rendered,
}
"""Layout → writer."""


def _samples(names: Sequence[str], splits: Sequence[str], per_split: int, seed: int):
    """(split, sample, ids in view); every class is in every split."""
    for part, split in enumerate(splits):
        for number in range(per_split):
            first = 1 + number % len(names)
            ids = sorted({first, 1 + (first + 1) % len(names)}) if number % 3 == 2 else [first]
            sample = miniature_sample(ids, names, seed=seed + 1000 * part + number)
            yield split, sample, [i for i in ids if names[i - 1] in (sample.labels or ())]


def _mask(sample: Sample) -> NDArray[np.uint8]:
    assert sample.mask is not None
    return sample.mask


def _outline(rng: np.random.Generator, size: tuple[int, int], round_shape: bool) -> NDArray[np.bool_]:
    height, width = size
    center = float(rng.uniform(0.3, 0.7) * width), float(rng.uniform(0.35, 0.7) * height)
    radii = float(rng.uniform(0.14, 0.22) * height), float(rng.uniform(0.16, 0.26) * height)
    canvas = np.zeros(size, np.uint8)
    box = (center, (2 * radii[0], 2 * radii[1]), float(rng.uniform(-30, 30)))
    if round_shape:
        cv2.ellipse(canvas, box, 1, -1)
    else:
        cv2.fillPoly(canvas, [np.round(cv2.boxPoints(box)).astype(np.int32)], 1)
    return canvas > 0


def _texture(rng: np.random.Generator, size: tuple[int, int], color: NDArray, contrast: float) -> NDArray[np.uint8]:
    coarse = rng.normal(0, contrast, (max(2, size[0] // 8), max(2, size[1] // 8), 3)).astype(np.float32)
    noise = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.asarray(color, np.float32) + noise, 0, 255).astype(np.uint8)


def _class_color(kind: int) -> NDArray[np.uint8]:
    return palette(254)[kind] if kind else np.array([120, 120, 120], np.uint8)


def _with_border(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """VOC marks outlines as 255."""
    kernel = np.ones((3, 3), np.uint8)
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, kernel) > 0
    return np.where(edge, IGNORE_ID, mask).astype(np.uint8)


def _millimetres(sample: Sample, scale: float) -> NDArray[np.uint16]:
    return np.round(sample.depth_m * 1000 / scale).astype(np.uint16)


def _write_bop_scene(scene: Path, samples: Sequence[Sample]) -> None:
    truth: dict[str, Any] = {}
    info: dict[str, Any] = {}
    cameras: dict[str, Any] = {}
    for number, sample in enumerate(samples):
        _write_image(scene / "rgb" / f"{number:06d}.jpg", sample.rgb)
        _write_image(scene / "depth" / f"{number:06d}.png", _millimetres(sample, DEPTH_SCALE_MM))
        mask = _mask(sample)
        entries: list[dict[str, Any]] = []
        details: list[dict[str, Any]] = []
        for kind in [int(i) for i in np.unique(mask) if i]:
            region = mask == kind
            _write_image(scene / "mask_visib" / f"{number:06d}_{len(entries):06d}.png", region.astype(np.uint8) * 255)
            entries.append({"obj_id": kind, "cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [0.0, 0.0, 1000.0]})
            x, y, w, h = (int(v) for v in cv2.boundingRect(region.astype(np.uint8)))
            pixels = int(region.sum())
            counts = {"px_count_all": pixels, "px_count_valid": pixels, "px_count_visib": pixels}
            details.append({"bbox_visib": [x, y, w, h], "visib_fract": 1.0, **counts})
        truth[str(number)], info[str(number)] = entries, details
        assert sample.camera_matrix is not None
        cameras[str(number)] = {"cam_K": sample.camera_matrix.ravel().tolist(), "depth_scale": DEPTH_SCALE_MM}
    for name, value in (("scene_gt", truth), ("scene_gt_info", info), ("scene_camera", cameras)):
        _write_text(scene / f"{name}.json", json.dumps(value))


def _voc_xml(name: str, mask: NDArray[np.uint8], ids: Sequence[int]) -> str:
    parts = [f"<annotation><filename>{name}.jpg</filename>"]
    parts.append(f"<size><width>{mask.shape[1]}</width><height>{mask.shape[0]}</height><depth>3</depth></size>")
    for kind in ids:
        x, y, w, h = (int(v) for v in cv2.boundingRect((mask == kind).astype(np.uint8)))
        box = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        parts.append(
            f"<object><name>{VOC_NAMES[kind - 1]}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"
        )
    return "".join(parts) + "</annotation>\n"


def _write_image(path: Path, image: NDArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    if not cv2.imwrite(str(path), stored):
        raise OSError(f"{path}: picture could not be written")


def _write_palette(path: Path, mask: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask, mode="P")
    image.putpalette(palette(254).ravel().tolist())
    image.save(path)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
