# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests over real DDS."""

import importlib.util
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("ros_graph", Path(__file__).with_name("graph.py"))
ros_graph = importlib.util.module_from_spec(_SPEC)
sys.modules["ros_graph"] = ros_graph
_SPEC.loader.exec_module(ros_graph)


@pytest.fixture
def graph(tmp_path):
    with ros_graph.Graph(tmp_path) as graph:
        yield graph
