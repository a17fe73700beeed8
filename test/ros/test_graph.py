# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The graph of the running nodes is what the contract, the prepared views and the SROS2 policy say."""

from __future__ import annotations

import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import ros_graph
import yaml

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "config" / "sros2" / "policy.xml"
NODES = ("camera_simulator", "sample_collector", "trainer", "segmenter")
# In the contract, and there only under a condition that this test does not set up.
CONDITIONAL = {
    "rgb/image/compressed": "rgb_transport: compressed",
    "depth/image/compressedDepth": "depth_transport: compressedDepth",
    "depth/image": "the segmenter looks at depth only while somebody wants segmentation/points",
    "clock": "use_sim_time: true",
}
if importlib.util.find_spec("vision_msgs") is None:
    CONDITIONAL["segmentation/label_info"] = "vision_msgs is not installed"

# Of every node, and of ROS itself.
UNDRAWN = {"diagnostics", "rosout", "parameter_events", "~/transition_event"}


def viewed_topics() -> dict[str, set[str]]:
    """Topics that the prepared views show, by file."""
    rviz = yaml.safe_load((ROOT / "config" / "rviz" / "deal.rviz").read_text())
    shown = {d["Topic"]["Value"] for d in rviz["Visualization Manager"]["Displays"] if "Topic" in d}
    text = json.loads((ROOT / "config" / "foxglove" / "deal.json").read_text())

    def strings(value):
        if isinstance(value, dict):
            return [*value, *(s for item in value.values() for s in strings(item))]
        return [value] if isinstance(value, str) else []

    foxglove = {s for s in strings(text["configById"]) if s.startswith("/")}
    nav2 = (ROOT / "config" / "nav2" / "semantic_costmap.yaml").read_text()
    camera = yaml.safe_load(nav2)["local_costmap"]["local_costmap"]["ros__parameters"]["semantic_layer"]["camera"]
    return {"rviz": shown, "foxglove": foxglove, "nav2": {v for k, v in camera.items() if k.endswith("_topic")}}


def test_rviz_shows_the_four_views():
    assert viewed_topics()["rviz"] == {
        "/rgb/image",
        "/segmentation/overlay",
        "/segmentation/color",
        "/segmentation/points",
    }


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> dict[str, dict[str, set[str]]]:
    """Topics and services of each of our nodes, started with its own parameter file in namespace /robot."""
    folder = tmp_path_factory.mktemp("graph")
    own = {
        "camera_simulator": {"width": 64, "height": 48, "views": 1},
        "sample_collector": {"classes": ["milk", "butter"], "store": str(folder / "store")},
        "trainer": {"store": str(folder / "store"), "models_folder": str(folder / "models")},
        "segmenter": {"models_folder": str(folder / "models")},
    }
    with ros_graph.Graph(folder) as graph:
        for name, parameters in own.items():
            graph.start(name, "/robot", files=[ROOT / "config" / f"{name}.yaml"], **parameters)

        def whole():
            """All names, once each node's topics have come: they follow its name."""
            found = look(graph.node)
            complete = all(found.get(name, {}).get("publish", set()) & topics for name, topics in MARKS.items())
            return found if complete else None

        return graph.wait(whole, "the names of all four nodes")


# A topic that each node has once it is active.
MARKS = {
    "camera_simulator": {"rgb/image"},
    "sample_collector": {"collection/status"},
    "trainer": {"training/status"},
    "segmenter": {"segmentation/mask"},
}


def look(node) -> dict[str, dict[str, set[str]]]:
    """Names relative to /robot; ``~/`` for a node's own; absolute ones without their slash."""
    result = {}
    names = {name for name, space in node.get_node_names_and_namespaces() if space == "/robot"}
    for name in names & set(NODES):
        asked = {
            "publish": node.get_publisher_names_and_types_by_node(name, "/robot"),
            "subscribe": node.get_subscriber_names_and_types_by_node(name, "/robot"),
            "reply": node.get_service_names_and_types_by_node(name, "/robot"),
        }
        result[name] = {kind: {relative(full, name) for full, _ in entries} for kind, entries in asked.items()}
    return result


def relative(full: str, node: str) -> str:
    own = f"/robot/{node}/"
    return f"~/{full.removeprefix(own)}" if full.startswith(own) else full.removeprefix("/robot/").lstrip("/")


def policy() -> dict[str, dict[str, set[str]]]:
    """What the policy allows each node."""
    result = {}
    for profile in ElementTree.parse(POLICY).iter("profile"):
        allowed: dict[str, set[str]] = {"publish": set(), "subscribe": set(), "reply": set()}
        for rules in profile:
            for kind, value in rules.attrib.items():
                assert value == "ALLOW"
                allowed[kind] |= {rule.text.lstrip("/") for rule in rules}
        result[profile.get("node")] = allowed
    return result


def test_the_policy_gives_each_node_what_it_needs_and_no_more(graph):
    allowed = policy()
    assert allowed.keys() == set(NODES)
    for name in NODES:
        for kind in ("publish", "subscribe", "reply"):
            missing = graph[name][kind] - allowed[name][kind]
            spare = allowed[name][kind] - graph[name][kind] - CONDITIONAL.keys()
            assert not missing, f"{name} cannot {kind} {missing}"
            assert not spare - {"~/get_type_description"}, f"{name} may {kind} {spare} and never does"


def test_every_viewed_topic_is_published(graph):
    published = {f"/{topic}" for name in NODES for topic in graph[name]["publish"]}
    published |= {f"/{topic}" for topic in CONDITIONAL}
    listened = {f"/{topic}" for name in NODES for topic in graph[name]["subscribe"]}
    for view, topics in viewed_topics().items():
        assert topics <= published | (listened if view == "foxglove" else set()), view


def drawn_edges() -> list[tuple[str, set[str], str]]:
    """Publisher, topics and subscriber of each solid line of the picture in docs/topics.md."""
    text = (ROOT / "docs" / "topics.md").read_text().split("```mermaid")[1].split("```")[0]
    found = re.findall(r'^ *(\w+) -- "([^"]+)" --> (\w+)', text, re.M)
    return [(start, {topic.lstrip("/") for topic in topics.split("<br/>")}, end) for start, topics, end in found]


def test_the_drawn_graph_is_the_running_one(graph):
    roles = {"camera": "camera_simulator"}
    edges = drawn_edges()
    for start, topics, end in edges:
        for node, kind in ((roles.get(start, start), "publish"), (roles.get(end, end), "subscribe")):
            if node in NODES:
                named = graph[node][kind] | (CONDITIONAL.keys() if kind == "publish" else set())
                assert topics <= named, f"{node} does not {kind} {topics - named}"
    for node in set(NODES) - {"camera_simulator"}:
        drawn = set().union(*(topics for start, topics, _ in edges if start == node))
        missing = graph[node]["publish"] - drawn - CONDITIONAL.keys() - UNDRAWN
        assert not missing, f"{node} also publishes {missing}"


def test_nothing_but_diagnostics_and_ros_itself_is_absolute(graph):
    for name in NODES:
        # What is below the namespace or the node is relative; the rest keeps its place whatever the namespace.
        known = {"diagnostics", "parameter_events", "rosout", "clock"}
        topics = graph[name]["publish"] | graph[name]["subscribe"]
        assert {topic for topic in topics if "/" not in topic} - known <= {"labels", "model"}
