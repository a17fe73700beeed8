# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Launch files: what they name exists (read from the sources, anywhere), and they run (where `ros2 launch` is)."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from deal_ros.config import load_yaml
from deal_ros.ros.tables import TABLES

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
SHARED = ast.parse((ROOT / "deal_ros" / "ros" / "launching.py").read_text())
WITHOUT_LAUNCH = "" if importlib.util.find_spec("launch_ros") else "launch_ros comes with a ROS installation only"


def starts(path: Path) -> list[ast.Call]:
    """The calls of `launching.start` in a launch file."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) == "launching.start"]


def declared(path: Path) -> set[str]:
    """Names of the arguments that a launch file declares, the shared groups resolved."""
    groups: dict[str, list[str]] = {}
    for statement in SHARED.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            groups[statement.targets[0].id] = arguments_in(statement.value)
    names: list[str] = []
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "ARGUMENTS":
            names += arguments_in(statement.value)
            for item in ast.walk(statement.value):
                text = ast.unparse(item)
                if isinstance(item, ast.Starred) or text in {
                    f"launching.{group}" for group in ("RECIPE", "MODEL", "RVIZ", "FRAME")
                }:
                    names += groups[text.removeprefix("*").removeprefix("launching.")]
                elif text == "launching.LEARNING[1]":
                    names.append("data_folder")
    return set(names)


def constant(name: str):
    """Value of a constant that the launch files share."""
    values = (s.value for s in SHARED.body if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == name)
    return ast.literal_eval(next(values))


def arguments_in(expression: ast.AST) -> list[str]:
    calls = [node for node in ast.walk(expression) if isinstance(node, ast.Call)]
    return [ast.literal_eval(c.args[0]) for c in calls if ast.unparse(c.func) == "DeclareLaunchArgument"]


@pytest.mark.no_ros
def test_all_six_are_there():
    names = {path.name.removesuffix(".launch.py") for path in LAUNCH_FILES}
    assert names == {"simulate", "record", "collect", "train", "onboard", "view"}


@pytest.mark.no_ros
@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_has_a_description(path):
    assert {"namespace", "params_file", "use_sim_time", "log_level", "large_images"} <= declared(path)
    for tree in (SHARED, ast.parse(path.read_text())):
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            if ast.unparse(call.func) == "DeclareLaunchArgument":
                given = {keyword.arg for keyword in call.keywords}
                assert {"default_value", "description"} <= given, ast.unparse(call)


@pytest.mark.no_ros
@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_nodes_and_parameters_exist(path):
    for call in starts(path):
        executable = ast.literal_eval(call.args[1])
        assert executable in TABLES
        assert (ROOT / "deal_ros" / "ros" / "nodes" / f"{executable}.py").is_file()
        assert (ROOT / "config" / f"{executable}.yaml").is_file()
        rows = {row.name for row in TABLES[executable]}
        shared = set(ast.literal_eval(call.args[2])) if len(call.args) > 2 else set()
        given = shared | {keyword.arg for keyword in call.keywords}
        assert given <= rows, f"{executable} has no parameter {given - rows}"
        # An argument that every learning launch file offers must reach each node that has it.
        assert shared == rows & {"store", "models_folder", "classes", "recipe", "fallback_model"}


@pytest.mark.no_ros
def test_onboard_starts_what_a_robot_runs():
    path = ROOT / "launch" / "onboard.launch.py"
    assert {ast.literal_eval(call.args[1]) for call in starts(path)} == {"sample_collector", "trainer", "segmenter"}
    assert {"camera", "rgb_topic", "depth_topic", "camera_info_topic", "model", "rviz", "recipe"} <= declared(path)


@pytest.mark.no_ros
def test_the_model_before_the_first_training_comes_along():
    assert (ROOT / "models" / constant("FIRST_MODEL") / "bundle.json").is_file()


@pytest.mark.no_ros
@pytest.mark.parametrize("path", sorted((ROOT / "config" / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_name_relative_topics(path):
    values = load_yaml(path)
    assert values.keys() == {"rgb_topic", "depth_topic", "camera_info_topic", "frame"}
    for name in ("rgb_topic", "depth_topic", "camera_info_topic"):
        assert not values[name].startswith("/"), "an absolute name would ignore the namespace"
    assert path.stem in constant("CAMERAS")


@pytest.fixture
def arguments():
    """Makes the arguments of a launch file from what a person gives."""
    if WITHOUT_LAUNCH:
        pytest.skip(WITHOUT_LAUNCH)
    from launch import LaunchContext

    from deal_ros.ros import launching

    def make(**given: str) -> launching.Arguments:
        context = LaunchContext()
        context.launch_configurations.update({"camera": "realsense", **given})
        return launching.Arguments(context)

    return make


@pytest.mark.parametrize(
    ("given", "frame"),
    [
        ({"camera": "oakd"}, "oak_rgb_camera_optical_frame"),
        ({"camera": "realsense"}, "camera_color_optical_frame"),
        ({"camera": "oakd", "frame": "base_link"}, "base_link"),
    ],
)
def test_rviz_starts_in_the_frame_of_the_camera(arguments, given, frame):
    from launch import LaunchContext
    from launch.utilities import perform_substitutions

    from deal_ros.ros import launching

    node = launching.rviz(arguments(**given))
    command = [perform_substitutions(LaunchContext(), part) for part in node.cmd[1:5]]
    assert command[0::2] == ["-d", "-f"]
    assert command[3] == frame


@pytest.mark.parametrize("text", ["true", "True"])
def test_flags_may_be_spelt_as_nav2_does(arguments, text):
    from deal_ros.ros import launching

    given = arguments(use_sim_time=text)
    assert given.flag("use_sim_time")
    assert given.overrides() == {"use_sim_time": True}
    declared = {argument.name: argument for argument in (*launching.COMMON, launching.RVIZ)}
    assert all(text in declared[name].choices for name in ("use_sim_time", "large_images", "rviz"))
    assert not arguments(use_sim_time=text.replace("rue", "alse")).flag("use_sim_time")


@pytest.fixture(scope="module")
def ros2(tmp_path_factory) -> dict[str, str]:
    """Environment of a workspace with this package, built by colcon."""
    if WITHOUT_LAUNCH:
        pytest.skip(WITHOUT_LAUNCH)
    workspace = tmp_path_factory.mktemp("workspace")
    build = [sys.executable, "-m", "colcon", "build", "--base-paths", str(ROOT), "--packages-select", "deal_ros"]
    prefix = os.environ.get("AMENT_PREFIX_PATH", sys.prefix)
    environment = {**os.environ, "AMENT_PREFIX_PATH": prefix}
    subprocess.run(build, cwd=workspace, env=environment, check=True, capture_output=True)
    script = f"source {workspace}/install/setup.bash >&2 && env -0"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=True)
    pairs = (entry.split("=", 1) for entry in done.stdout.decode().split("\0") if "=" in entry)
    return dict(pairs)


def launch(environment: dict[str, str], log: Path, *arguments: str) -> subprocess.Popen:
    """`ros2 launch deal_ros …` with its output in ``log``."""
    code = "import sys; from ros2cli.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "launch", "deal_ros", *arguments]
    with log.open("wb") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)


def end(process: subprocess.Popen, limit_s: float = 15.0) -> int:
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_ros2_launch_lists_the_arguments(ros2, tmp_path, path):
    log = tmp_path / "log"
    assert launch(ros2, log, path.name, "--show-args").wait(60) == 0
    for name in declared(path):
        assert f"'{name}'" in log.read_text()


def test_a_params_file_beats_our_defaults_and_given_arguments_beat_it(ros2, tmp_path):
    """Whatever rank its entries have: rcl prefers a node's own section to /** even of a file that comes later."""
    import rclpy
    import ros_graph
    from rcl_interfaces.srv import GetParameters

    params = tmp_path / "params.yaml"
    every = {"models_folder": str(tmp_path / "mine"), "fallback_model": ""}
    one = {"store": str(tmp_path / "mine" / "store"), "classes": ["vase"]}
    sections = {"/**": {"ros__parameters": every}, "/**/sample_collector": {"ros__parameters": one}}
    params.write_text(yaml.safe_dump(sections))
    ros_graph.join()
    node = rclpy.create_node("asking")
    arguments = ("namespace:=robot9", f"params_file:={params}", "classes:=milk", "camera:=simulator")
    child = launch(ros2, tmp_path / "log", "onboard.launch.py", *arguments)

    def values(of: str, *names: str) -> list:
        client = node.create_client(GetParameters, f"/robot9/{of}/get_parameters")
        assert client.wait_for_service(60), (tmp_path / "log").read_text()[-3000:]
        future = client.call_async(GetParameters.Request(names=list(names)))
        rclpy.spin_until_future_complete(node, future, timeout_sec=30)
        return [v.string_value or list(v.string_array_value) for v in future.result().values]

    try:
        assert values("sample_collector", "store", "classes") == [one["store"], ["milk"]]
        assert values("trainer", "models_folder") == [every["models_folder"]]
        assert values("segmenter", "models_folder", "fallback_model") == [every["models_folder"], []]
    finally:
        node.destroy_node()
        code = end(child)
    assert code == 0


@pytest.mark.gl
def test_onboard_shows_masks_before_anything_is_taught(ros2, tmp_path):
    import rclpy
    import ros_graph
    from sensor_msgs.msg import Image

    ros_graph.join()
    node = rclpy.create_node("looking_on")
    masks: list[Image] = []
    node.create_subscription(Image, "/segmentation/mask", masks.append, 1)
    children = [launch(ros2, tmp_path / "camera.log", "simulate.launch.py", "objects:=milk, ketchup")]
    arguments = ("camera:=simulator", f"data_folder:={tmp_path}")
    children.append(launch(ros2, tmp_path / "onboard.log", "onboard.launch.py", *arguments))
    try:
        deadline = time.monotonic() + 90
        while not masks and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.2)
        assert masks, (tmp_path / "onboard.log").read_text()[-3000:]
        assert "[ERROR]" not in (tmp_path / "onboard.log").read_text()
    finally:
        node.destroy_node()
        codes = [end(child) for child in children]
    assert codes == [0, 0]


@pytest.mark.gl
def test_two_robots_side_by_side(ros2, tmp_path):
    """Simulator and onboard in two namespaces: each robot has its own topics, folders and samples."""
    import rclpy
    import ros_graph
    from std_msgs.msg import String

    from deal_ros.ros.qos import LATCHED

    children = []
    ros_graph.join()
    node = rclpy.create_node("looking_on")
    status: dict[str, dict] = {}
    try:
        for robot, objects in (("robot1", "milk, butter"), ("robot2", "ketchup, popcorn")):
            params = tmp_path / f"{robot}.yaml"
            text = {"width": 160, "height": 120, "views": 6, "rate_hz": 5.0, "min_view_change": 0.0}
            params.write_text(yaml.safe_dump({"/**": {"ros__parameters": text}}))
            common = (f"namespace:={robot}", f"params_file:={params}")
            children.append(
                launch(ros2, tmp_path / f"{robot}_camera.log", "simulate.launch.py", f"objects:={objects}", *common)
            )
            arguments = (f"classes:={objects}", "camera:=simulator", f"data_folder:={tmp_path / robot}")
            children.append(launch(ros2, tmp_path / f"{robot}.log", "onboard.launch.py", *arguments, *common))

            def heard(message, robot=robot):
                status[robot] = json.loads(message.data)

            node.create_subscription(String, f"/{robot}/collection/status", heard, LATCHED)
            publisher = node.create_publisher(String, f"/{robot}/labels", LATCHED)
            publisher.publish(String(data=objects.split(",")[0]))
        wanted = {
            f"/{robot}/{name}"
            for robot in ("robot1", "robot2")
            for name in ("camera_simulator", "sample_collector", "trainer", "segmenter")
        }
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.2)
            found = {f"{space.rstrip('/')}/{name}" for name, space in node.get_node_names_and_namespaces()}
            samples = {robot: sum(entry["counts"].values()) for robot, entry in status.items()}
            if wanted <= found and len(samples) == 2 and min(samples.values()) >= 2:
                break
        else:
            logs = "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in tmp_path.glob("*.log"))
            pytest.fail(f"missing {wanted - found}, samples {status}\n{logs}")
        assert status["robot1"]["counts"].keys() == {"milk", "butter"}
        assert status["robot2"]["counts"].keys() == {"ketchup", "popcorn"}
        for robot in ("robot1", "robot2"):
            assert (tmp_path / robot / "store" / "store.json").is_file()
            assert (tmp_path / robot / "models").is_dir()
    finally:
        node.destroy_node()
        codes = [end(child) for child in children]
    assert codes == [0, 0, 0, 0]
