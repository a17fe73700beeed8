# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Gather labelled samples from a camera: ``ros2 launch deal_ros collect.launch.py camera:=realsense``."""

from launch import LaunchDescription

from deal_ros.ros import launching

ARGUMENTS = (*launching.COMMON, *launching.CAMERA, *launching.LEARNING)


def build(arguments: launching.Arguments) -> list:
    """Start the collector alone."""
    return [launching.start(arguments, "sample_collector", ("store", "classes"))]


def generate_launch_description() -> LaunchDescription:
    """Read by ``ros2 launch``."""
    return LaunchDescription([*ARGUMENTS, launching.describe(build)])
