# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What comes with the package beside its code: parameter files, presets, recipes, views and models."""

from __future__ import annotations

from pathlib import Path


def share_folder() -> Path:
    """Return the checkout that this code is of, or the ``share/deal_ros`` of the prefix that it is installed in."""
    here = Path(__file__).resolve()
    candidates = [here.parents[1], *(folder / "share" / "deal_ros" for folder in here.parents)]
    return next((folder for folder in candidates if (folder / "package.xml").is_file()), here.parents[1])


def config_folder() -> Path:
    """Return the folder of parameter files, presets, recipes and views."""
    return share_folder() / "config"


def recipe_file(name: str | Path) -> Path:
    """Return the file of a recipe: ``name`` is a path, or one word for a recipe that comes with the package."""
    return _ours(str(name), config_folder() / "recipes" / f"{name}.yaml")


def bundle_folder(name: str | Path) -> Path:
    """Return the folder of a model bundle: ``name`` is a path, or one word for a bundle that comes with the package."""
    return _ours(str(name), share_folder() / "models" / str(name))


def _ours(name: str, ours: Path) -> Path:
    return ours if name and "/" not in name and ours.exists() else Path(name).expanduser()
