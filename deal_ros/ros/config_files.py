# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the parameter files, recipes, views and models of this package are."""

from __future__ import annotations

from pathlib import Path


def share_folder() -> Path:
    """Return the installed ``share/deal_ros``, or the checkout where the package is not installed."""
    from ament_index_python.packages import get_package_share_directory

    try:
        return Path(get_package_share_directory("deal_ros"))
    except (LookupError, OSError):  # not installed, or wheels that set no AMENT_PREFIX_PATH
        return Path(__file__).resolve().parents[2]


def config_folder() -> Path:
    """Return the folder of parameter files, presets, recipes and views."""
    return share_folder() / "config"


def bundle_folder(name: str) -> Path:
    """Return the folder of a model bundle: ``name`` is a path, or one word for a bundle that comes with the package."""
    ours = share_folder() / "models" / name
    return ours if name and "/" not in name and ours.is_dir() else Path(name).expanduser()
