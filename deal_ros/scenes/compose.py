# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Make scenes: one object to be learnt on a table, or a table full of them. Same arguments, same scene."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.labels import check_classes
from deal_ros.scenes.assets import SPLITS, Split, available_objects, check_split, clutter_objects, surface_textures
from deal_ros.scenes.objects import RestingPose, load_geometry, resting_height
from deal_ros.scenes.scene import Item, Light, Orbit, Scene, Shape, Surface, Vector

MAX_DISTRACTORS = 2
_DISTRACTOR_SCALE = 0.65  # in onboarding scenes: beside the object, not in front of all of it
_GAP_M = 0.006  # free space kept between footprints
# Where the key light comes from: disjoint sectors, degrees.
_LIGHT_SECTORS: dict[Split, tuple[float, float]] = {"train": (0, 180), "val": (200, 255), "test": (280, 335)}
Outline = NDArray[np.float32]


def onboarding_scene(
    object_name: str,
    resting_pose: RestingPose = "up",
    seed: int = 0,
    split: Split = "train",
    *,
    distractors: int | None = None,
    classes: Sequence[str] | None = None,
) -> Scene:
    """One object on a textured table with the camera orbiting it: how a robot is shown something new.

    Args:
        object_name: which object; it must be in ``classes``.
        resting_pose: ``"up"`` as it is used, or ``"down"``, turned over.
        seed: ≥ 0; other seeds give other textures, light, paths and distractors.
        split: train, val or test.
        distractors: 0-2 things beside it that no class covers; ``None`` draws the number.
        classes: class names in id order; all available objects by default.

    Raises:
        ValueError: if an argument is out of range, with the range.
        AssetError: if the objects are not installed.
    """
    names = _check_classes(classes)
    if object_name not in names:
        raise ValueError(f"object_name must be one of the classes {', '.join(names)}, got {object_name!r}")
    if distractors is not None and not 0 <= distractors <= MAX_DISTRACTORS:
        raise ValueError(f"distractors must be 0..{MAX_DISTRACTORS}, got {distractors}")
    rng = _stream(seed, split, f"onboarding/{object_name}/{resting_pose}")
    count = int(rng.integers(0, MAX_DISTRACTORS + 1)) if distractors is None else distractors
    table = _Table(rng, radius_m=0.17)
    table.add(object_name, names.index(object_name) + 1, resting_pose, spread_m=0.02)
    _add_clutter(table, count, split, rng, _DISTRACTOR_SCALE)
    longest = float(np.ptp(load_geometry(object_name).hull, axis=0).max())
    distance = float(rng.uniform(0.19, 0.28) + 0.95 * longest)
    return _furnish(f"onboarding-{object_name}-{resting_pose}-{split}-{seed}", seed, split, names, table, distance, rng)


def tabletop_scene(
    object_names: Sequence[str],
    clutter: int = 2,
    seed: int = 0,
    split: Split = "train",
    *,
    classes: Sequence[str] | None = None,
) -> Scene:
    """Several objects close together, hiding one another, among things that no class covers.

    Args:
        object_names: 1-12 objects; a name may occur twice.
        clutter: 0-8 things that no class covers.
        seed: ≥ 0.
        split: train, val or test.
        classes: class names in id order; all available objects by default.

    Raises:
        ValueError: if an argument is out of range, with the range.
        AssetError: if the objects are not installed.
    """
    names = _check_classes(classes)
    unknown = [name for name in object_names if name not in names]
    if unknown:
        raise ValueError(f"object_names must be among the classes {', '.join(names)}, got {', '.join(unknown)}")
    if not 1 <= len(object_names) <= 12 or not 0 <= clutter <= 8:
        raise ValueError(f"object_names must be 1..12 and clutter 0..8, got {len(object_names)} and {clutter}")
    rng = _stream(seed, split, "tabletop/" + ",".join(object_names))
    table = _Table(rng, radius_m=0.1 + 0.035 * math.sqrt(len(object_names) + clutter))
    for name in object_names:
        table.add(name, names.index(name) + 1, "up" if rng.random() < 0.75 else "down")
    _add_clutter(table, clutter, split, rng)
    distance = float(rng.uniform(0.42, 0.56) + 0.6 * table.radius_m)
    return _furnish(f"tabletop-{split}-{seed}", seed, split, names, table, distance, rng)


class _Table:
    """Sets things down where they fit: by their outlines on the table, drawn at random, wider where it is full."""

    def __init__(self, rng: np.random.Generator, radius_m: float) -> None:
        self.rng, self.radius_m = rng, radius_m
        self.items: list[Item] = []
        self._outlines: list[Outline] = []

    def add(
        self, name: str, class_id: int, pose: RestingPose, spread_m: float | None = None, shrink: float = 1.0
    ) -> None:
        geometry = load_geometry(name)
        yaw = self.rng.uniform(0, 2 * math.pi)
        rotation = _about_z(yaw) @ geometry.rotation(pose)
        points = shrink * geometry.hull @ rotation.T
        x, y = self._place(points[:, :2], spread_m)
        height = shrink * resting_height(geometry.hull, rotation)
        self.items.append(Item(name, class_id, (x, y, height), _quaternion(rotation), shrink * geometry.scale))

    def add_shape(self, number: int, shrink: float = 1.0) -> None:
        rng = self.rng
        shape: Shape = ("box", "box", "cylinder", "ellipsoid")[int(rng.integers(4))]  # type: ignore[assignment]
        half = shrink * rng.uniform(0.015, 0.045, 3)
        if shape != "box":
            half[1] = half[0]
        if shape == "ellipsoid":  # lies on its flat side
            half[2] = min(half[2], half[0])
        yaw = rng.uniform(0, 2 * math.pi)
        corners = np.array([(sx * half[0], sy * half[1]) for sx in (-1, 1) for sy in (-1, 1)])
        x, y = self._place(corners @ _about_z(yaw)[:2, :2].T, None)
        quaternion = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
        size: Vector = (float(half[0]), float(half[1]), float(half[2]))
        seed = int(rng.integers(2**31))
        self.items.append(Item(f"{shape}-{number}", 0, (x, y, size[2]), quaternion, 1.0, shape, size, seed))

    def _place(self, footprint: NDArray[np.float64], spread_m: float | None) -> tuple[float, float]:
        outline = cv2.convexHull(footprint.astype(np.float32))[:, 0]
        middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
        grown = outline + _GAP_M * (outline - middle) / np.linalg.norm(outline - middle, axis=1, keepdims=True)
        reach = self.radius_m if spread_m is None else spread_m
        for _ in range(400):
            radius, angle = reach * math.sqrt(self.rng.random()), self.rng.uniform(0, 2 * math.pi)
            shift = np.array([radius * math.cos(angle), radius * math.sin(angle)], np.float32) - middle
            moved = (grown + shift).astype(np.float32)
            if all(_apart(moved, other) for other in self._outlines):
                self._outlines.append(moved)
                return float(shift[0]), float(shift[1])
            reach *= 1.01  # 400 tries widen the search by 53 times: there is always room in the end
        raise RuntimeError("no free place on the table")


def _apart(first: Outline, second: Outline) -> bool:
    """Whether two convex polygons (N, 2) do not touch: some edge of one separates them (separating axis theorem)."""
    for a, b in ((first, second), (second, first)):
        edges = np.roll(a, -1, axis=0) - a
        normals = np.stack([edges[:, 1], -edges[:, 0]])  # (2, N)
        mine, other = a @ normals, b @ normals  # (points, N)
        if ((mine.max(axis=0) < other.min(axis=0)) | (other.max(axis=0) < mine.min(axis=0))).any():
            return True
    return False


def _add_clutter(table: _Table, count: int, split: Split, rng: np.random.Generator, shrink: float = 1.0) -> None:
    things = list(clutter_objects(split))
    for number in range(count):
        if rng.random() < 0.35:
            pose: RestingPose = "down" if rng.random() < 0.5 else "up"
            table.add(things[int(rng.integers(len(things)))], 0, pose, shrink=shrink)
        else:
            table.add_shape(number, shrink)


def _furnish(
    name: str,
    seed: int,
    split: Split,
    classes: tuple[str, ...],
    table: _Table,
    distance_m: float,
    rng: np.random.Generator,
) -> Scene:
    textures = list(surface_textures(split))
    table_texture, floor_texture, wall_texture = (textures[i] for i in rng.permutation(len(textures))[:3])
    top = max(float(item.position[2]) for item in table.items)
    orbit = Orbit(
        target=(float(rng.uniform(-0.02, 0.02)), float(rng.uniform(-0.02, 0.02)), float(0.5 * top)),
        distance_m=distance_m,
        elevation_deg=float(rng.uniform(32, 50)),
        elevation_swing_deg=float(rng.uniform(6, 12)),
        azimuth_deg=float(rng.uniform(0, 360)),
        direction=1 if rng.random() < 0.5 else -1,
    )
    low, high = _LIGHT_SECTORS[split]
    warmth = float(rng.uniform(-0.08, 0.08))
    key, fill = float(rng.uniform(0.4, 0.6)), float(rng.uniform(0.2, 0.32))
    azimuth = float(rng.uniform(low, high))
    lights = (
        Light(_shining_from(azimuth, float(rng.uniform(45, 75))), (key * (1 + warmth), key, key * (1 - warmth))),
        Light(_shining_from(azimuth + float(rng.uniform(120, 240)), float(rng.uniform(30, 60))), (fill, fill, fill)),
    )
    return Scene(
        name=name,
        split=split,
        seed=seed,
        classes=classes,
        items=tuple(table.items),
        table=_surface(table_texture, rng, (1.0, 2.5)),
        floor=_surface(floor_texture, rng, (0.6, 1.2)),
        wall=_surface(wall_texture, rng, (0.5, 1.0)),
        table_half_size_m=(float(rng.uniform(0.42, 0.7)), float(rng.uniform(0.42, 0.7))),
        room_half_size_m=float(rng.uniform(1.4, 2.4)),
        ambient=float(rng.uniform(0.32, 0.46)),
        lights=lights,
        orbit=orbit,
    )


def _surface(texture: str, rng: np.random.Generator, repeat: tuple[float, float]) -> Surface:
    red, green, blue = (float(c) for c in rng.uniform(0.8, 1.0, 3))
    return Surface(texture, float(rng.uniform(*repeat)), (red, green, blue))


def _check_classes(classes: Sequence[str] | None) -> tuple[str, ...]:
    objects = available_objects()
    names = check_classes(objects if classes is None else classes)
    unknown = [name for name in names if name not in objects]
    if unknown:
        raise ValueError(f"classes must be available objects ({', '.join(objects)}), got {', '.join(unknown)}")
    return names


def _stream(seed: int, split: Split, what: str) -> np.random.Generator:
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    return np.random.default_rng([SPLITS.index(check_split(split)), seed, zlib.crc32(what.encode())])


def _shining_from(azimuth_deg: float, elevation_deg: float) -> Vector:
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat = math.cos(elevation)
    return (-flat * math.cos(azimuth), -flat * math.sin(azimuth), -math.sin(elevation))


def _about_z(angle: float) -> NDArray[np.float64]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Rotation (3, 3) → w, x, y, z with w ≥ 0: the eigenvector of the largest eigenvalue (Bar-Itzhack 2000)."""
    m = rotation
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    vector = np.linalg.eigh(k)[1][:, -1]
    largest = vector[int(np.argmax(np.abs(vector)))] if abs(vector[0]) < 1e-9 else vector[0]
    w, x, y, z = (float(value) for value in (vector if largest > 0 else -vector))
    return w, x, y, z
