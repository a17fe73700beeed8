# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/topics.md names every key of the status topics, and every topic and service that the nodes' sources name."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from deal_ros.datasets.keyframes import REASONS, KeyframeSelector
from deal_ros.datasets.store import SampleStore
from deal_ros.ros.collection import Collection, Limits
from deal_ros.ros.training import TrainingStatus

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "topics.md").read_text()


def keys_of(heading):
    """Keys in the first column of a table."""
    section = TEXT.split(f"## `{heading}`")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_training_status_is_documented():
    assert keys_of("training/status") == {field.name for field in fields(TrainingStatus)}


def test_collection_status_is_documented(tmp_path):
    store = SampleStore.create(tmp_path / "store", ["milk"])
    collection = Collection(store, KeyframeSelector(), Limits())
    keys = set(json.loads(collection.to_json(active=True, pair_rate_hz=0.0)))
    collection.close()
    assert keys_of("collection/status") == keys
    assert all(f"`{reason}`" in TEXT for reason in REASONS[3:])


@pytest.mark.parametrize("node", ["camera_simulator", "sample_collector", "trainer", "segmenter"])
def test_every_topic_and_service_in_the_source_is_documented(node):
    source = (ROOT / "deal_ros" / "ros" / "nodes" / f"{node}.py").read_text()
    source = re.sub(r'^""".*?"""', "", source, flags=re.S | re.M)
    names = set(re.findall(r'"((?:rgb|depth|ground_truth|segmentation|training|collection)/\w+|labels|model)"', source))
    services = {name.replace("~", node) for name in re.findall(r'"(~/\w+)"', source)}
    assert services
    missing = {name for name in names | services if f"`{name}`" not in TEXT}
    assert not missing
