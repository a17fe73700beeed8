# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests over real DDS."""

import pytest
import ros_graph


@pytest.fixture
def graph(tmp_path):
    with ros_graph.Graph(tmp_path) as graph:
        yield graph
