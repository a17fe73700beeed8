# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""RViz with colour image, overlay, mask and semantic cloud: ``ros2 launch deal_ros view.launch.py``."""

from launch import LaunchDescription

from deal_ros.ros import launching

ARGUMENTS = (*launching.COMMON, *launching.CAMERA, launching.FRAME)


def build(arguments: launching.Arguments) -> list:
    """Start RViz alone."""
    return [launching.rviz(arguments)]


def generate_launch_description() -> LaunchDescription:
    """Read by ``ros2 launch``."""
    return LaunchDescription([*ARGUMENTS, launching.describe(build)])
