# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Scene: everything that a picture depends on, as plain numbers. Two machines with the same Scene show the same thing.

World frame: metres, z up, table top at z = 0. A scene is made from a seed and a split; textures, light directions,
clutter objects and random streams of train, val and test are disjoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deal_ros.scenes.assets import Split

Vector = tuple[float, float, float]
Shape = Literal["box", "cylinder", "ellipsoid"]
FLOOR_Z_M = -0.75


@dataclass(frozen=True)
class CameraPose:
    """Where the camera is and what it looks at (world frame, metres); the image's up is world up."""

    position: Vector
    target: Vector

    def rotation(self) -> NDArray[np.float64]:
        """Rotation (3, 3), optical frame (x right, y down, z forward; REP 103) → world.

        Raises:
            ValueError: if the camera looks straight up or down, where up in the image is undefined.
        """
        forward = np.subtract(self.target, self.position)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        if np.linalg.norm(right) < 1e-6 * max(float(np.linalg.norm(forward)), 1e-9):
            raise ValueError(f"camera must not look straight up or down, got {self}")
        forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward], axis=1)


@dataclass(frozen=True)
class Orbit:
    """A closed path around a target: phase 0..1 is once around.

    Args:
        target: what the camera looks at, world frame, metres.
        distance_m: mean distance of camera and target; it breathes by 8 %.
        elevation_deg: mean height above the table plane as an angle.
        elevation_swing_deg: amplitude of the elevation, twice up and down per turn.
        azimuth_deg: where phase 0 lies.
        direction: +1 counter-clockwise, -1 clockwise seen from above.
        vertical_fov_deg: vertical field of view of the camera.
    """

    target: Vector
    distance_m: float
    elevation_deg: float
    elevation_swing_deg: float
    azimuth_deg: float
    direction: int
    vertical_fov_deg: float = 42.0

    def pose(self, phase: float) -> CameraPose:
        """Camera pose at ``phase``; whole turns do not matter."""
        turn = 2 * math.pi * (phase % 1.0)
        azimuth = math.radians(self.azimuth_deg) + self.direction * turn
        elevation = math.radians(self.elevation_deg + self.elevation_swing_deg * math.sin(2 * turn))
        distance = self.distance_m * (1 + 0.08 * math.sin(3 * turn))
        x, y, z = self.target
        flat = distance * math.cos(elevation)
        position = (x + flat * math.cos(azimuth), y + flat * math.sin(azimuth), z + distance * math.sin(elevation))
        return CameraPose(position, self.target)


@dataclass(frozen=True)
class Surface:
    """A texture laid on a plane: its name, how often it repeats per metre, and an RGB factor on its colour."""

    texture: str
    repeat_per_m: float
    tint: Vector


@dataclass(frozen=True)
class Light:
    """A distant light: unit direction in which it shines, and RGB intensity 0..1."""

    direction: Vector
    color: Vector


@dataclass(frozen=True)
class Item:
    """One thing on the table.

    Args:
        name: object name of the assets, or a procedural shape's own name.
        class_id: its id in masks, 1..K; 0 for what no class covers.
        position: of the item's origin, metres.
        quaternion: w, x, y, z, item frame → world.
        scale: factor on the asset's size; half extents of a shape are in ``half_size_m``.
        shape: set for procedural clutter only.
        half_size_m: half extents of the shape: x, y, z (cylinder: radius, radius, half height).
        texture_seed: pattern of the shape's procedural texture.
    """

    name: str
    class_id: int
    position: Vector
    quaternion: tuple[float, float, float, float]
    scale: float = 1.0
    shape: Shape | None = None
    half_size_m: Vector = (0.0, 0.0, 0.0)
    texture_seed: int = 0


@dataclass(frozen=True)
class Scene:
    """A table in a room with things on it, lit, and a camera path around it. Made by ``onboarding_scene`` and others.

    Args:
        name: readable and unique for its arguments; data sets use it as the sequence.
        split: train, val or test.
        seed: what it was made from.
        classes: names in id order; ``Item.class_id`` counts from 1 into it.
        items: what stands on the table.
        table, floor, wall: surfaces.
        table_half_size_m: half extents of the table top.
        room_half_size_m: distance of the walls from the middle.
        ambient: light from everywhere, 0..1.
        lights: key light first.
        orbit: the camera's path.
    """

    name: str
    split: Split
    seed: int
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    table: Surface
    floor: Surface
    wall: Surface
    table_half_size_m: tuple[float, float]
    room_half_size_m: float
    ambient: float
    lights: tuple[Light, ...]
    orbit: Orbit

    @property
    def labels(self) -> frozenset[str]:
        """Names of all classes on the table, seen or hidden."""
        return frozenset(self.classes[item.class_id - 1] for item in self.items if item.class_id)

    def to_mapping(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return dataclasses.asdict(self)

    def checksum(self) -> str:
        """SHA-256 of the scene with lengths and angles rounded to 1e-6, so that last bits of libm do not matter."""
        text = json.dumps(_rounded(self.to_mapping()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) + 0.0  # + 0.0 turns -0.0 into 0.0
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
