# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A simulated RGB-D camera over scanned household objects: ``ros2 launch deal_ros simulate.launch.py``."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable

from deal_ros.ros import launching

ARGUMENTS = (
    *launching.COMMON,
    DeclareLaunchArgument(
        "scenario",
        default_value="onboarding",
        choices=["onboarding", "tabletop"],
        description="onboarding: one object at a time; tabletop: several, with clutter.",
    ),
    DeclareLaunchArgument("objects", default_value="", description="Class names in id order: 'milk, ketchup'."),
    DeclareLaunchArgument("gl", default_value="", description="MUJOCO_GL: osmesa or egl; empty: as the environment."),
)


def build(arguments: launching.Arguments) -> list:
    """Start the simulator alone."""
    objects = [name.strip() for name in arguments["objects"].split(",") if name.strip()]
    node = launching.start(arguments, "camera_simulator", scenario=arguments["scenario"], objects=objects or None)
    gl = [SetEnvironmentVariable("MUJOCO_GL", arguments["gl"])] if arguments["gl"] else []
    return [*gl, node]


def generate_launch_description() -> LaunchDescription:
    """Read by ``ros2 launch``."""
    return LaunchDescription([*ARGUMENTS, launching.describe(build)])
