# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Scene → compiled MuJoCo model: meshes, small textures, lights, one camera, and the class of every geom."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.scenes.assets import AssetError, object_file, texture_file
from deal_ros.scenes.objects import VISUAL_GROUP
from deal_ros.scenes.opengl import import_mujoco
from deal_ros.scenes.scene import FLOOR_Z_M, Item, Scene, Surface

OBJECT_TEXTURE_SIZE = 512
SURFACE_TEXTURE_SIZE = 512
"""Longest side in texels: the scans' 2048-4096 cost seconds to decode and are never seen at 640x480."""
_TABLE_THICKNESS_M = 0.03
_WALL_TOP_M = 0.6  # above the camera's horizon, and low enough not to shade the table
_SHADOW_MAP_SIZE = 1024


def build_model(scene: Scene, size: tuple[int, int], shadows: bool) -> tuple[Any, NDArray[np.uint8]]:
    """Compile a scene.

    Args:
        scene: what to build.
        size: (height, width) of the off-screen buffer in pixels.
        shadows: whether the first light casts them.

    Returns:
        The ``MjModel`` and uint8 (ngeom,), the class id of each of its geoms.
    """
    mujoco = import_mujoco()
    spec = mujoco.MjSpec()
    spec.visual.global_.offheight, spec.visual.global_.offwidth = size
    spec.visual.quality.offsamples = 0  # antialiasing would blend ids and depths at edges
    spec.visual.quality.shadowsize = _SHADOW_MAP_SIZE
    spec.stat.extent, spec.stat.center = 1.0, [0.0, 0.0, 0.0]
    spec.visual.map.shadowclip = 0.6  # metres around the middle: finer shadows than a whole room's
    spec.visual.map.znear, spec.visual.map.zfar = 0.05, 12.0
    spec.visual.headlight.ambient = [scene.ambient] * 3
    spec.visual.headlight.diffuse = spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    world = spec.worldbody
    for index, light in enumerate(scene.lights):
        world.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=[-3 * d for d in light.direction],
            dir=list(light.direction),
            diffuse=list(light.color),
            specular=[0.15] * 3 if index == 0 else [0.0] * 3,
            ambient=[0.0] * 3,
            castshadow=bool(shadows and index == 0),
        )
    world.add_camera(name="camera", pos=[0, -1, 1], fovy=scene.orbit.vertical_fov_deg)
    _add_room(mujoco, spec, scene)
    class_of_name: dict[str, int] = {}
    for index, item in enumerate(scene.items):
        adder = _add_shape if item.shape is not None else _add_object
        for name in adder(mujoco, spec, item, f"item{index}"):
            class_of_name[name] = item.class_id
    model = spec.compile()
    classes = np.array([class_of_name.get(model.geom(g).name, 0) for g in range(model.ngeom)], np.uint8)
    return model, classes


def _add_room(mujoco: Any, spec: Any, scene: Scene) -> None:
    half_x, half_y = scene.table_half_size_m
    room = scene.room_half_size_m
    tall = (_WALL_TOP_M - FLOOR_Z_M) / 2
    middle_z = FLOOR_Z_M + tall
    slab = _TABLE_THICKNESS_M / 2
    boxes = [
        ("table", scene.table, (0.0, 0.0, -slab), (half_x, half_y, slab), (half_x, half_y)),
        ("floor", scene.floor, (0.0, 0.0, FLOOR_Z_M - 0.05), (room, room, 0.05), (room, room)),
    ]
    for index, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        half = (0.05, room, tall) if x else (room, 0.05, tall)
        boxes.append((f"wall{index}", scene.wall, ((room + 0.05) * x, (room + 0.05) * y, middle_z), half, (room, tall)))
    made: set[tuple[Surface, tuple[float, float]]] = set()
    for name, surface, position, half, covered in boxes:
        key = (surface, covered)
        material = f"{surface.texture}-{covered}"
        if key not in made:
            made.add(key)
            _add_texture(mujoco, spec, material, _picture(texture_file(surface.texture), SURFACE_TEXTURE_SIZE))
            repeat = [2 * extent * surface.repeat_per_m for extent in covered]
            _add_material(mujoco, spec, material, material, [*surface.tint, 1.0], repeat)
        spec.worldbody.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=list(position),
            size=list(half),
            material=material,
            group=VISUAL_GROUP,
        )


def _add_shape(mujoco: Any, spec: Any, item: Item, name: str) -> list[str]:
    kinds = {
        "box": mujoco.mjtGeom.mjGEOM_BOX,
        "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
        "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    }
    assert item.shape is not None
    x, y, z = item.half_size_m
    _add_texture(mujoco, spec, name, _png(procedural_texture(item.texture_seed)), cube=True)
    _add_material(mujoco, spec, name, name, [1.0] * 4, [1.0, 1.0])
    spec.worldbody.add_geom(
        name=name,
        type=kinds[item.shape],
        pos=list(item.position),
        quat=list(item.quaternion),
        size=[x, z, 0.0] if item.shape == "cylinder" else [x, y, z],
        material=name,
        group=VISUAL_GROUP,
    )
    return [name]


def _add_object(mujoco: Any, spec: Any, item: Item, name: str) -> list[str]:
    file = object_file(item.name)
    source = mujoco.MjSpec.from_file(str(file))
    meshes = {mesh.name: mesh for mesh in source.meshes}
    materials = {material.name: material for material in source.materials}
    pictures = {texture.name: texture for texture in source.textures}
    body = spec.worldbody.add_body(name=name, pos=list(item.position), quat=list(item.quaternion))
    names = []
    for index, geom in enumerate(source.geoms):
        if geom.group != VISUAL_GROUP or geom.type != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        part = f"{name}.{index}"
        mesh = meshes[geom.meshname]
        path = file.parent / source.meshdir / mesh.file
        if not path.is_file():
            raise AssetError(f"{path}: mesh of {item.name} is missing")
        spec.add_mesh(
            name=part,
            file=str(path.resolve()),
            scale=[factor * item.scale for factor in mesh.scale],
            refpos=list(mesh.refpos),
            refquat=list(mesh.refquat),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        rgba = list(geom.rgba)
        material = materials.get(geom.material)
        if material is not None:
            rgba = list(material.rgba)
            used = material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB]
            if used:
                picture = file.parent / source.texturedir / pictures[used].file
                _add_texture(mujoco, spec, part, _picture(picture, OBJECT_TEXTURE_SIZE))
            _add_material(mujoco, spec, part, part if used else "", rgba, [1.0, 1.0])
        body.add_geom(
            name=part,
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=part,
            pos=[value * item.scale for value in geom.pos],
            quat=list(geom.quat),
            rgba=rgba,
            material=part if material is not None else "",
            group=VISUAL_GROUP,
            contype=0,
            conaffinity=0,
        )
        names.append(part)
    return names


def _add_material(mujoco: Any, spec: Any, name: str, texture: str, rgba: list[float], repeat: list[float]) -> None:
    material = spec.add_material(
        name=name, rgba=rgba, texrepeat=repeat, specular=0.15, shininess=0.2, reflectance=0.0, texuniform=False
    )
    if texture:
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture


def _add_texture(mujoco: Any, spec: Any, name: str, png: bytes, cube: bool = False) -> None:
    file = f"{name}.png"
    spec.assets = {**spec.assets, file: png}
    kind = mujoco.mjtTexture.mjTEXTURE_CUBE if cube else mujoco.mjtTexture.mjTEXTURE_2D
    spec.add_texture(name=name, type=kind, file=file)  # a square picture covers all six faces of a cube


@lru_cache(maxsize=96)
def _picture(path: Path, longest: int) -> bytes:
    """PNG, shrunk so that its longest side is at most ``longest``; kept, since scenes share textures."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise AssetError(f"{path}: texture cannot be read")
    factor = longest / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return _png(picture)


def _png(bgr: NDArray[Any]) -> bytes:
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def procedural_texture(seed: int, size: int = 64) -> NDArray[np.uint8]:
    """Draw a random pattern RGB uint8 (size, size, 3): plain, striped, checked or dotted in two or three colours."""
    rng = np.random.default_rng(seed)
    first, second, third = rng.integers(20, 236, (3, 3))
    rows, columns = np.mgrid[0:size, 0:size]
    period = int(rng.integers(6, 24))
    kind = int(rng.integers(4))
    if kind == 0:
        pattern = np.zeros((size, size), bool)
    elif kind == 1:
        pattern = ((rows if rng.random() < 0.5 else rows + columns) // period) % 2 == 1
    elif kind == 2:
        pattern = (rows // period + columns // period) % 2 == 1
    else:
        middle = period / 2
        pattern = np.hypot(rows % period - middle, columns % period - middle) < 0.35 * period
    picture = np.where(pattern[..., None], second, first)
    band = int(rng.integers(0, size // 2))
    if rng.random() < 0.5:  # a label around it
        picture[band : band + size // 5] = third
    return picture.astype(np.uint8)
