# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the parameter files, recipes and views of this package are."""

from __future__ import annotations

from pathlib import Path


def config_folder() -> Path:
    """Return the installed ``share/deal_ros/config``, or that of the checkout where the package is not installed."""
    from ament_index_python.packages import get_package_share_directory

    try:
        return Path(get_package_share_directory("deal_ros")) / "config"
    except (LookupError, OSError):  # not installed, or wheels that set no AMENT_PREFIX_PATH
        return Path(__file__).resolve().parents[2] / "config"
