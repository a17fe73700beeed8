# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""All a robot runs: collector, trainer, segmenter: ``ros2 launch deal_ros onboard.launch.py camera:=realsense``."""

from launch import LaunchDescription

from deal_ros.ros import launching

ARGUMENTS = (
    *launching.COMMON,
    *launching.CAMERA,
    *launching.LEARNING,
    launching.RECIPE,
    launching.MODEL,
    launching.RVIZ,
    launching.FRAME,
)


def build(arguments: launching.Arguments) -> list:
    """Collector, trainer and segmenter, each a process of its own, and RViz if wanted.

    Where nobody said yet what to learn, there is nothing to collect or to train, and only the segmenter starts.
    """
    nodes = [launching.start(arguments, "segmenter", ("models_folder", "fallback_model"), model=arguments["model"])]
    if arguments.can_learn():
        nodes += [
            launching.start(arguments, "sample_collector", ("store", "classes")),
            launching.start(arguments, "trainer", ("store", "models_folder", "recipe"), recipe=arguments.recipe()),
        ]
    return [*nodes, launching.rviz(arguments)] if arguments.flag("rviz") else nodes


def generate_launch_description() -> LaunchDescription:
    """Read by ``ros2 launch``."""
    return LaunchDescription([*ARGUMENTS, launching.describe(build)])
