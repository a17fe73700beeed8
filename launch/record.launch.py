# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Record what `deal import` reads, to train elsewhere: ``ros2 launch deal_ros record.launch.py bag:=FOLDER``."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess

from deal_ros.ros import launching

ARGUMENTS = (
    *launching.COMMON,
    *launching.CAMERA,
    DeclareLaunchArgument("bag", default_value="", description="Folder of the bag; empty: rosbag2's dated name."),
    DeclareLaunchArgument(
        "storage", default_value="mcap", choices=["mcap", "sqlite3"], description="Storage format of the bag."
    ),
    DeclareLaunchArgument(
        "transport",
        default_value="raw",
        choices=["raw", "compressed"],
        description="compressed: a tenth of the size, where image_transport's plugins run on the camera.",
    ),
)


def build(arguments: launching.Arguments) -> list:
    """`ros2 bag record` on the camera's topics and the labels."""
    topics = arguments.camera_topics()
    suffixes = {"rgb/image": "/compressed", "depth/image": "/compressedDepth"}
    if arguments["transport"] == "compressed":
        topics = {ours: theirs + suffixes.get(ours, "") for ours, theirs in topics.items()}
    namespace = "/" + arguments["namespace"].strip("/")
    names = [*topics.values(), "labels"]
    absolute = [name if name.startswith("/") else f"{namespace.rstrip('/')}/{name}" for name in names]
    command = ["ros2", "bag", "record", "--storage", arguments["storage"]]
    command += ["--output", arguments["bag"]] if arguments["bag"] else []
    command += ["--use-sim-time"] if arguments.flag("use_sim_time") else []
    command += [] if os.environ.get("ROS_DISTRO") == "humble" else ["--topics"]  # Humble only knows them without
    return [ExecuteProcess(cmd=[*command, *absolute], output="screen", sigterm_timeout="30")]


def generate_launch_description() -> LaunchDescription:
    """Read by ``ros2 launch``."""
    return LaunchDescription([*ARGUMENTS, launching.describe(build)])
