# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Train on gathered samples, announce the model: ``ros2 launch deal_ros train.launch.py recipe:=FILE``."""

from launch import LaunchDescription

from deal_ros.ros import launching

ARGUMENTS = (*launching.COMMON, launching.LEARNING[1], launching.RECIPE)


def build(arguments: launching.Arguments) -> list:
    """Start the trainer alone; its ``~/start`` service begins the work."""
    return [launching.start(arguments, "trainer", ("store", "models_folder", "recipe"), recipe=arguments.recipe())]


def generate_launch_description() -> LaunchDescription:
    """Read by ``ros2 launch``."""
    return LaunchDescription([*ARGUMENTS, launching.describe(build)])
