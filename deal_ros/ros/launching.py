# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the launch files share: their arguments, camera presets, and how a node of ours is started.

Needs the ROS package ``launch_ros``, and is imported by launch files only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from deal_ros.config import ConfigError, load_yaml
from deal_ros.installed import config_folder, recipe_file
from deal_ros.ros.transports import large_image_environment

CAMERAS = ("realsense", "orbbec", "oakd", "simulator")
FIRST_MODEL = "tabletop"
_FLAG = ["true", "false", "True", "False"]  # the second pair as Python and Nav2 write them
_TOPICS = {"rgb_topic": "rgb/image", "depth_topic": "depth/image", "camera_info_topic": "rgb/camera_info"}

COMMON = (
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of every node, e.g. one per robot."),
    DeclareLaunchArgument(
        "params_file", default_value="", description="YAML of parameters, layered over config/<node>.yaml."
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=_FLAG, description="Follow /clock, e.g. of a bag."
    ),
    DeclareLaunchArgument(
        "log_level", default_value="info", choices=["debug", "info", "warn", "error"], description="Level of the nodes."
    ),
    DeclareLaunchArgument(
        "large_images",
        default_value="true",
        choices=_FLAG,
        description="Give our nodes Fast DDS transports that keep large images, config/fastdds.xml, unless the"
        " environment names others. A camera driver should have them too.",
    ),
)
CAMERA = (
    DeclareLaunchArgument(
        "camera", default_value="realsense", choices=list(CAMERAS), description="Preset of topic names."
    ),
    DeclareLaunchArgument("rgb_topic", default_value="", description="Colour image; empty: the preset's."),
    DeclareLaunchArgument("depth_topic", default_value="", description="Depth registered to colour; empty: preset's."),
    DeclareLaunchArgument("camera_info_topic", default_value="", description="Colour camera info; empty: preset's."),
)
LEARNING = (
    DeclareLaunchArgument("classes", default_value="", description="Class names in id order: 'milk, ketchup'."),
    DeclareLaunchArgument(
        "data_folder",
        default_value="",
        description="Samples go to <it>/store, models to <it>/models; empty: ~/.ros/deal, with a namespace"
        " ~/.ros/deal/<namespace>.",
    ),
)
MODEL = DeclareLaunchArgument(
    "model",
    default_value="",
    description="Model bundle that the segmenter starts with: a folder, or a name in models. Empty: the last one"
    f" trained; before the first, {FIRST_MODEL} (rendered household objects), unless classes are given.",
)
RECIPE = DeclareLaunchArgument(
    "recipe",
    default_value="",
    description="Training recipe: a file, or the name of one in config/recipes; empty: robot.",
)
RVIZ = DeclareLaunchArgument(
    "rviz", default_value="false", choices=_FLAG, description="Open RViz with config/rviz/deal.rviz."
)
FRAME = DeclareLaunchArgument(
    "frame",
    default_value="",
    description="Fixed frame of RViz: any of TF, or the one that the colour images name; empty: the preset's.",
)


class Arguments:
    """The launch arguments as text, with what follows from them.

    Args:
        context: where launch keeps the values.
    """

    def __init__(self, context: LaunchContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> str:
        """Value of a declared argument, ``""`` where this launch file does not declare it."""
        return str(LaunchConfiguration(name, default="").perform(self._context)).strip()

    def flag(self, name: str) -> bool:
        """Value of an argument that is true or false."""
        return self[name].lower() == "true"

    def camera_topics(self) -> dict[str, str]:
        """Our input names → the camera's topics, from the preset and the arguments that override it."""
        values = preset(self["camera"] or "simulator")
        return {ours: self[name] or values[name] for name, ours in _TOPICS.items()}

    def defaults(self) -> dict[str, Any]:
        """Parameters below the user's file: recipe, model before the first training, folders of a namespace's own."""
        namespace = self["namespace"].strip("/")
        folders = self._folders(f"~/.ros/deal/{namespace}") if namespace else {}
        fallback = "" if self["classes"] else FIRST_MODEL  # its classes would not be those that were asked for
        recipe = str(recipe_file("robot"))
        return {"recipe": recipe, "fallback_model": fallback, **folders}

    def overrides(self) -> dict[str, Any]:
        """Parameters above the user's file: arguments that were really given."""
        given: dict[str, Any] = {"use_sim_time": True} if self.flag("use_sim_time") else {}
        if self["data_folder"]:
            given.update(self._folders(self["data_folder"]))
        if self["classes"]:
            given["classes"] = [name.strip() for name in self["classes"].split(",")]
        return given

    def can_learn(self) -> bool:
        """Whether anybody said what to learn: now, in a file of parameters, or to a store that is there."""
        folders = {**self._folders("~/.ros/deal"), **self.defaults(), **self.overrides()}
        there = (Path(folders["store"]).expanduser() / "store.json").is_file()
        return bool(self["classes"] or self["params_file"]) or there

    def recipe(self) -> str:
        """Return the recipe file; a bare name means one of ours."""
        return str(recipe_file(self["recipe"])) if self["recipe"] else ""

    def _folders(self, base: str) -> dict[str, str]:
        return {"store": f"{base}/store", "models_folder": f"{base}/models"}


def preset(camera: str) -> dict[str, Any]:
    """Topic names and colour frame of a camera, from ``config/presets``.

    Raises:
        ConfigError: on an unknown camera or an incomplete file.
    """
    if camera not in CAMERAS:
        raise ConfigError(f"camera must be one of {', '.join(CAMERAS)}, got {camera!r}")
    path = config_folder() / "presets" / f"{camera}.yaml"
    values = load_yaml(path)
    missing = {*_TOPICS, "frame"} - values.keys()
    if missing:
        raise ConfigError(f"{path}: lacks {', '.join(sorted(missing))}")
    return values


def start(arguments: Arguments, executable: str, parameters: Sequence[str] = (), **given: Any) -> Node:
    """One node of this package.

    Args:
        arguments: of the launch file.
        executable: ``camera_simulator``, ``sample_collector``, ``trainer`` or ``segmenter``; also the node's name.
        parameters: which of the shared ones (``store``, ``models_folder``, ``classes``, ``recipe``) this node has.
        given: further parameters; empty text means "not given".
    """
    wanted = {"use_sim_time", *parameters}
    layers: list[Any] = [str(config_folder() / f"{executable}.yaml")]
    layers.append(_for_every_node({key: value for key, value in arguments.defaults().items() if key in wanted}))
    if arguments["params_file"]:
        layers.append(str(Path(arguments["params_file"]).expanduser()))
    layers.append({key: value for key, value in arguments.overrides().items() if key in wanted})
    layers.append({key: value for key, value in given.items() if value not in ("", None)})
    camera = arguments.camera_topics() if executable in {"sample_collector", "segmenter"} else {}
    secure = os.environ.get("ROS_SECURITY_ENABLE", "").lower() == "true"
    enclave = ["--enclave", f"/deal_ros/{executable}"] if secure else []
    remappings = [pair for ours, theirs in camera.items() for pair in _remap(ours, theirs)]
    return Node(
        package="deal_ros",
        executable=executable,
        name=executable,
        namespace=arguments["namespace"],
        parameters=[layer for layer in layers if layer],
        remappings=remappings,
        arguments=["--ros-args", "--log-level", arguments["log_level"] or "info", *enclave],
        output="screen",
        # Long enough for a node that is about to write; ours end within two seconds.
        sigterm_timeout="5",
    )


def _for_every_node(parameters: dict[str, Any]) -> str:
    """Write a parameter file of the lowest rank, ``/**``.

    launch_ros writes what it is given as a mapping under the node's full name, and rcl prefers that to any ``/**`` of a
    file that comes later: a user's file could not override it.
    """
    if not parameters:
        return ""
    with tempfile.NamedTemporaryFile("w", prefix="deal_ros_", suffix=".yaml", delete=False) as file:
        json.dump({"/**": {"ros__parameters": parameters}}, file)
    return file.name


def _remap(ours: str, theirs: str) -> list[tuple[str, str]]:
    """Remappings of a topic and of its compressed form, none where the names are the same."""
    if ours == theirs:
        return []
    suffix = {"rgb/image": "/compressed", "depth/image": "/compressedDepth"}.get(ours)
    return [(ours, theirs), *([(ours + suffix, theirs + suffix)] if suffix else [])]


def rviz(arguments: Arguments) -> Node:
    """Return RViz with the prepared view, its topics moved into the namespace."""
    path = config_folder() / "rviz" / "deal.rviz"
    camera = arguments.camera_topics()
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=arguments["namespace"],
        arguments=["-d", str(path), "-f", arguments["frame"] or preset(arguments["camera"])["frame"]],
        # The file names topics absolutely, as RViz wants them; relative targets follow the namespace.
        remappings=[(topic, camera.get(topic.lstrip("/"), topic.lstrip("/"))) for topic in rviz_topics(path)],
        parameters=[{"use_sim_time": arguments.flag("use_sim_time")}],
        output="log",
    )


def rviz_topics(path: Path) -> list[str]:
    """Every topic that an RViz file subscribes to."""

    def walk(value: Any) -> list[str]:
        if isinstance(value, dict):
            topic = value.get("Topic")
            own = [topic["Value"]] if isinstance(topic, dict) and topic.get("Value") else []
            return own + [name for item in value.values() for name in walk(item)]
        return [name for item in value for name in walk(item)] if isinstance(value, list) else []

    return sorted(set(walk(load_yaml(path).get("Visualization Manager", {}).get("Displays", []))))


def describe(build: Callable[[Arguments], list[Any]]) -> OpaqueFunction:
    """Run ``build`` once the arguments have values; sets the transports before the nodes that it returns."""

    def run(context: LaunchContext) -> list[Any]:
        arguments = Arguments(context)
        actions = build(arguments)
        transports = large_image_environment() if arguments.flag("large_images") else {}
        return [*(SetEnvironmentVariable(name, value) for name, value in transports.items()), *actions]

    return OpaqueFunction(function=run)
