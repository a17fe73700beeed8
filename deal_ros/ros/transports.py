# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Transports that keep large images: Fast DDS loses them between processes by default (docs/on_your_robot.md)."""

from __future__ import annotations

import os

from deal_ros.installed import config_folder

_FAST_DDS_3, _FAST_DDS_2 = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
_CHOICES = (_FAST_DDS_3, _FAST_DDS_2, "FASTDDS_BUILTIN_TRANSPORTS")


def large_image_environment() -> dict[str, str]:
    """Return the variable that gives a process our transports; none where the user has chosen some."""
    if any(os.environ.get(name) for name in _CHOICES):
        return {}
    name = _FAST_DDS_2 if os.environ.get("ROS_DISTRO") in ("humble", "jazzy") else _FAST_DDS_3
    return {name: str(config_folder() / "fastdds.xml")}
