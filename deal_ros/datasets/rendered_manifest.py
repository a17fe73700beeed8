# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a rendered data set: what it was made from, and how to tell whether two machines made the same.

Three levels are recorded per scene. ``scene`` is a checksum of the scene's numbers and must be equal everywhere.
``pixels`` is a checksum of colour, depth and mask before compression; it is equal where MuJoCo, the OpenGL library and
its version are, and is not asked for otherwise. ``class_pixels`` and ``mean_depth_mm`` describe the pictures and must
agree within a tolerance that no visible difference would pass: OpenGL leaves rasterisation of edges and filtering of
textures to the library.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deal_ros.config import to_mapping
from deal_ros.datasets.base import DatasetError
from deal_ros.files import replace_file, write_json
from deal_ros.sample import IGNORE_ID, Sample
from deal_ros.scenes import Scene, asset_versions

FORMAT = "deal_ros rendered scenes"
VERSION = 1
MANIFEST = "manifest.json"
RECORDS = "scenes.jsonl"
MEAN_DEPTH_TOLERANCE_MM = 1.0
CLASS_PIXEL_TOLERANCE = 0.02


class ManifestError(DatasetError):
    """A folder that cannot be rendered into, or a manifest that cannot be read."""


@dataclass(frozen=True)
class SceneRecord:
    """What became of one scene.

    Args:
        name: of the scene, and the sequence of its samples.
        frames: how many samples it gave.
        scene: checksum of its numbers (``Scene.checksum``).
        pixels: SHA-256 of its frames' rgb, depth in 0.1 mm, and mask.
        class_pixels: class id → pixels in all frames.
        mean_depth_mm: over all frames, without holes.
    """

    name: str
    frames: int
    scene: str
    pixels: str
    class_pixels: dict[str, int]
    mean_depth_mm: float


def summarize(scene: Scene, samples: Sequence[Sample]) -> SceneRecord:
    """Describe a rendered scene; the samples need masks."""
    digest = hashlib.sha256()
    counts = np.zeros(256, np.int64)
    depth_sum, depth_count = 0.0, 0
    for sample in samples:
        assert sample.mask is not None
        digest.update(sample.rgb.tobytes())
        digest.update(np.round(sample.depth_m * 10_000).astype("<u4").tobytes())
        digest.update(sample.mask.tobytes())
        counts += np.bincount(sample.mask.ravel(), minlength=256)
        valid = sample.depth_m[sample.depth_m > 0]
        depth_sum += float(valid.sum(dtype=np.float64))
        depth_count += valid.size
    present = {str(i): int(counts[i]) for i in range(1, IGNORE_ID) if counts[i]}
    mean_mm = round(1000 * depth_sum / max(depth_count, 1), 3)
    return SceneRecord(scene.name, len(samples), scene.checksum(), digest.hexdigest(), present, mean_mm)


def check_resumable(out: Path, config: Any) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ManifestError: if it is no folder, is not empty and has no manifest, or its manifest has another configuration.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ManifestError(f"{out}: must be a folder")
    if not (out / MANIFEST).exists():
        if any(out.iterdir()):
            raise ManifestError(f"{out}: must be empty or hold {MANIFEST} of an earlier run; choose another folder")
        return
    found, wanted = read_manifest(out)["config"], json.loads(json.dumps(to_mapping(config)))
    if found != wanted:
        keys = sorted(key for key in wanted if found.get(key) != wanted[key]) or sorted(set(found) - set(wanted))
        raise ManifestError(
            f"{out}: was rendered with other settings ({', '.join(keys)}); use the same ones to go on, or a new folder"
        )


def write_manifest(out: Path, config: Any, classes: Sequence[str], opengl: str, *, complete: bool) -> None:
    """Write ``manifest.json``, with all records when ``complete``; ``opengl`` names the library that rendered."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "complete": complete,
        "config": to_mapping(config),
        "classes": list(classes),
        "assets": asset_versions(),
        "renderer": {"mujoco": importlib.metadata.version("mujoco"), "opengl": opengl},
        "stores": {},
    }
    if complete:
        for path in sorted(out.glob(f"*/*/{RECORDS}")):
            folder = path.parent
            values["stores"][str(folder.relative_to(out))] = [dataclasses.asdict(r) for r in read_records(folder)]
    write_json(out / MANIFEST, values)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read ``manifest.json`` of a rendered data set: the file, or the folder that it is in.

    Raises:
        ManifestError: if it cannot be read or is not such a manifest.
    """
    path = Path(path)
    file = path / MANIFEST if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{file}: cannot be read: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("version") != VERSION:
        raise ManifestError(f"{file}: must be the manifest (version {VERSION}) of a data set made by `deal render`")
    if not isinstance(values.get("config"), dict) or not isinstance(values.get("stores"), dict):
        raise ManifestError(f"{file}: 'config' and 'stores' must be mappings")
    return values


def compare_manifests(first: str | Path, second: str | Path) -> list[str]:
    """Differences between two rendered data sets, in words; none means: the same benchmark.

    Scenes must be equal. Pixels must be equal where both were rendered with the same MuJoCo and OpenGL library, and
    agree within 1 mm of mean depth and 2 % of each class's pixels (or 20) otherwise.

    Raises:
        ManifestError: if one of them cannot be read or is not complete.
    """
    a, b = read_manifest(first), read_manifest(second)
    for path, values in ((first, a), (second, b)):
        if not values.get("complete"):
            raise ManifestError(f"{path}: rendering has not finished; start the same `deal render` again to go on")
    differences = []
    if a["assets"] != b["assets"]:
        differences.append(f"assets differ: {a['assets']} and {b['assets']}")
    same_renderer = a["renderer"] == b["renderer"]
    for store in sorted(set(a["stores"]) | set(b["stores"])):
        left, right = a["stores"].get(store, []), b["stores"].get(store, [])
        if len(left) != len(right):
            differences.append(f"{store}: {len(left)} and {len(right)} scenes")
        for x, y in zip(left, right):
            differences.extend(f"{store}/{x['name']}: {text}" for text in _differences(x, y, same_renderer))
    return differences


def _differences(x: dict[str, Any], y: dict[str, Any], same_renderer: bool) -> Iterator[str]:
    if x["scene"] != y["scene"]:
        yield f"another scene ({y['name']})"
        return
    if x["pixels"] == y["pixels"]:
        return
    if same_renderer:
        yield "same scene and renderer, other pixels"
    if abs(x["mean_depth_mm"] - y["mean_depth_mm"]) > MEAN_DEPTH_TOLERANCE_MM:
        yield f"mean depth {x['mean_depth_mm']} and {y['mean_depth_mm']} mm"
    for key in sorted(set(x["class_pixels"]) | set(y["class_pixels"]), key=int):
        left, right = x["class_pixels"].get(key, 0), y["class_pixels"].get(key, 0)
        if abs(left - right) > max(20, CLASS_PIXEL_TOLERANCE * max(left, right)):
            yield f"class {key} covers {left} and {right} pixels"


def read_records(folder: Path) -> list[SceneRecord]:
    """Read the records of one store, up to the first line that is not whole."""
    path = folder / RECORDS
    records: list[SceneRecord] = []
    if not path.exists():
        return records
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(SceneRecord(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return records


def append_record(folder: Path, record: SceneRecord) -> None:
    """Add a line, after the scene's samples are committed."""
    with (folder / RECORDS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(record), sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_records(folder: Path, count: int) -> None:
    """Keep the first ``count`` records."""
    records = read_records(folder)[:count]
    text = "".join(json.dumps(dataclasses.asdict(record), sort_keys=True) + "\n" for record in records)
    replace_file(folder / RECORDS, text)
