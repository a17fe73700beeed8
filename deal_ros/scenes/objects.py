# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Geometry of one object: its visible vertices, and the poses in which it rests on a table by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from deal_ros.scenes.assets import available_objects, object_file
from deal_ros.scenes.opengl import import_mujoco

RestingPose = Literal["up", "down"]
VISUAL_GROUP = 1
"""MuJoCo geom group of the meshes to be seen; group 0 holds collision boxes."""
MAX_EXTENT_M = 0.25
"""Objects longer than this are scaled down to it: the camera orbits a table, not a kitchen."""
MAX_CLUTTER_EXTENT_M = 0.14
"""The same for clutter: it stands beside what is to be learnt, not in front of all of it."""
MIN_TIPPING_ANGLE_DEG = 8.0
"""A resting pose that a smaller tilt overturns is not kept: nobody balances a bottle on its cork."""

# Direction in the mesh's own frame that points up when the object stands as it is used. Most HOPE scans are y-up.
_UP_Y = frozenset(
    {"alphabet_soup", "ketchup", "macaroni_and_cheese", "milk", "orange_juice", "salad_dressing", "tomato_sauce"}
)


@dataclass(frozen=True, eq=False)
class ObjectGeometry:
    """Convex hull and scale of an object, enough to set it on a table.

    Args:
        name: class or clutter name.
        scale: factor on the asset's own metres (below 1 only for what is longer than :data:`MAX_EXTENT_M`).
        hull: float64 (N, 3) vertices of the convex hull, scaled, metres, in the asset's body frame.
        up: rotation (3, 3) that sets the object as it is used.
        down: rotation (3, 3) of another resting pose: turned over, or lying where it cannot stand turned over.
    """

    name: str
    scale: float
    hull: NDArray[np.float64]
    up: NDArray[np.float64]
    down: NDArray[np.float64]

    def rotation(self, resting_pose: RestingPose) -> NDArray[np.float64]:
        """Return the (3, 3) matrix of ``"up"`` or ``"down"``; :class:`ValueError` for another word."""
        if resting_pose not in ("up", "down"):
            raise ValueError(f"resting_pose must be 'up' or 'down', got {resting_pose!r}")
        return self.up if resting_pose == "up" else self.down


@lru_cache(maxsize=128)
def load_geometry(name: str) -> ObjectGeometry:
    """Read an object's meshes and find its resting poses.

    Args:
        name: a name of ``available_objects()`` or ``clutter_objects()``.

    Raises:
        AssetError: if the object is unknown or not installed.
        OpenGLError: if MuJoCo, which reads the meshes, is not installed.
    """
    points = _visible_vertices(name)
    longest = float((points.max(axis=0) - points.min(axis=0)).max())
    scale = min(1.0, (MAX_EXTENT_M if name in available_objects() else MAX_CLUTTER_EXTENT_M) / longest)
    hull = ConvexHull(points * scale)
    up_axis = np.array([0.0, 1.0, 0.0] if name in _UP_Y else [0.0, 0.0, 1.0])
    up, down = resting_rotations(hull, up_axis)
    return ObjectGeometry(name, scale, hull.points[hull.vertices], up, down)


def resting_rotations(
    hull: ConvexHull, up_axis: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two rotations in which a convex body rests on a plane: nearest to upright, and nearest to upside down.

    The body is let go in six orientations and rolls over its hull's edges until its centre of mass lies above the
    facet it stands on (quasi-static settling, Goldberg et al. 1999, *Part pose statistics*). Poses that a tilt of
    :data:`MIN_TIPPING_ANGLE_DEG` overturns are dropped if a safer one exists.

    Args:
        hull: convex hull of the body; density is taken as uniform.
        up_axis: unit vector (3,), the body's own up.

    Returns:
        Rotations (3, 3), body → table frame with z up, for "up" and "down". They differ by 45° or more unless the
        body has one stable face only.
    """
    center = _center_of_mass(hull)
    floors = [_settle(hull, center, direction) for direction in (*np.eye(3), *-np.eye(3))]
    stable = [n for n in floors if _tipping_angle_deg(hull, center, n) >= MIN_TIPPING_ANGLE_DEG]
    if not stable:
        stable = [max(floors, key=lambda n: _tipping_angle_deg(hull, center, n))]
    below = max(stable, key=lambda n: float(-n @ up_axis))
    turned = math.cos(math.radians(45))
    others = [n for n in stable if n @ below < turned]
    if others:
        above = min(others, key=lambda n: float(n @ below))
    else:  # round bodies roll at any tilt where they lie: take the lowest centre of mass
        lying = [n for n in floors if n @ below < turned] or [below]
        above = min(lying, key=lambda n: _center_height(hull, center, n))
    return _rotation_between(below, np.array([0.0, 0, -1])), _rotation_between(above, np.array([0.0, 0, -1]))


def resting_height(points: NDArray[np.float64], rotation: NDArray[np.float64]) -> float:
    """Height of the body's origin above the table, in metres, when its lowest point (N, 3) touches it."""
    return float(-(points @ rotation.T)[:, 2].min())


def _visible_vertices(name: str) -> NDArray[np.float64]:
    mujoco = import_mujoco(rendering=False)
    spec = mujoco.MjSpec.from_file(str(object_file(name)))
    for material in list(spec.materials):
        material.textures = [""] * len(material.textures)
    for texture in list(spec.textures):
        spec.delete(texture)  # decoding the pictures would take ten times as long as the meshes
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    parts = []
    for geom in range(model.ngeom):
        if model.geom_group[geom] == VISUAL_GROUP and model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            mesh = model.geom_dataid[geom]
            start = model.mesh_vertadr[mesh]
            vertices = model.mesh_vert[start : start + model.mesh_vertnum[mesh]].astype(np.float64)
            parts.append(vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    return np.concatenate(parts)


def _center_of_mass(hull: ConvexHull) -> NDArray[np.float64]:
    inside = hull.points[hull.vertices].mean(axis=0)
    corners = hull.points[hull.simplices] - inside  # (F, 3 corners, 3)
    volumes = np.abs(np.linalg.det(corners))
    return inside + (corners.sum(axis=1) / 4 * volumes[:, None]).sum(axis=0) / volumes.sum()


def _settle(hull: ConvexHull, center: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outward normal (3,) of the facet on which the body comes to rest when let go with ``down`` pointing down."""
    normals, offsets = hull.equations[:, :3], hull.equations[:, 3]
    heights = -(normals @ center + offsets)  # centre of mass above each facet's plane, > 0
    facing = normals @ down
    with np.errstate(divide="ignore"):
        facet = int(np.argmin(np.where(facing > 1e-9, heights / facing, np.inf)))  # where the ray along down leaves
    for _ in range(len(normals)):
        foot = center + normals[facet] * heights[facet]
        corners = hull.points[hull.simplices[facet]]
        outside = [_beyond_edge(foot, corners, opposite, normals[facet]) for opposite in range(3)]
        if max(outside) <= 1e-9:
            break
        # Neighbour k of a simplex lies across the edge opposite corner k; rolling lowers the centre of mass.
        facet = int(hull.neighbors[facet][int(np.argmax(outside))])
    return normals[facet]


def _beyond_edge(
    point: NDArray[np.float64], corners: NDArray[np.float64], opposite: int, normal: NDArray[np.float64]
) -> float:
    """Signed distance in metres by which ``point`` lies outside the edge opposite a corner, in the facet's plane."""
    start, end = corners[(opposite + 1) % 3], corners[(opposite + 2) % 3]
    outward = np.cross(end - start, normal)
    length = float(np.linalg.norm(outward))
    if length < 1e-12:
        return -math.inf
    if outward @ (corners[opposite] - start) > 0:
        outward = -outward
    return float(outward @ (point - start)) / length


def _center_height(hull: ConvexHull, center: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    return float(((hull.points[hull.vertices] - center) @ normal).max())


def _tipping_angle_deg(hull: ConvexHull, center: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Smallest tilt that overturns the body standing on the side with outward normal (3,)."""
    rotation = _rotation_between(normal, np.array([0.0, 0, -1]))
    points = (hull.points[hull.vertices] - center) @ rotation.T
    floor = points[:, 2].min()
    contact = points[points[:, 2] < floor + 1e-3, :2]  # a millimetre: scanned bottoms are not quite flat
    outline = cv2.convexHull(contact.astype(np.float32))
    margin = cv2.pointPolygonTest(outline, (0.0, 0.0), True)
    return math.degrees(math.atan2(margin, -floor))


def _rotation_between(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest rotation (3, 3) that turns unit vector ``source`` into unit vector ``target`` (Rodrigues)."""
    axis, cosine = np.cross(source, target), float(source @ target)
    if cosine < -1 + 1e-9:  # opposite: half a turn about any axis across
        across = np.cross(source, np.eye(3)[int(np.argmin(np.abs(source)))])
        across /= np.linalg.norm(across)
        return 2 * np.outer(across, across) - np.eye(3)
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)
