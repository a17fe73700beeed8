# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The short form of soak.py: the whole graph with swaps and trainings, every frame accounted for, nothing growing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("ros_soak", Path(__file__).with_name("soak.py"))
soak = importlib.util.module_from_spec(_SPEC)
sys.modules["ros_soak"] = soak
_SPEC.loader.exec_module(soak)


@pytest.mark.slow
def test_the_whole_graph_under_load_loses_no_frame_and_does_not_grow(tmp_path):
    result = soak.soak(tmp_path, seconds=40, rate_hz=20, size=(120, 160), swap_every_s=8, warm_up_s=12)
    # Too short to judge latency, and the allocator settles for longer than this.
    assert not soak.faults(result, growth_mb=60, latency_ratio=None), json.dumps(result, indent=2)
    assert result["swaps"] >= 4
    assert result["trainings"] >= 1
    assert result["frames"]["masked"] > 50
