# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest
import torch
from torch.nn import functional as F

from deal_ros.losses import (
    CollapseGuard,
    CollapseGuardConfig,
    DepthEdgeAlignmentConfig,
    depth_edge_alignment_loss,
)

QUICK = CollapseGuardConfig(settle_steps=3, ema=0.0)


def told(guard, edge, activation=0.3, times=1):
    return [guard.update(edge, activation) for _ in range(times)][-1]


def test_says_nothing_while_maps_are_alive_and_shrink_a_little():
    guard = CollapseGuard(QUICK)
    assert told(guard, 0.2, times=5) is None
    assert told(guard, 0.06, activation=0.1) is None
    assert not guard.collapsed


def test_reports_flat_maps_once_and_again_after_a_recovery(caplog):
    guard = CollapseGuard(QUICK)
    told(guard, 0.2, times=3)
    assert "went flat" in told(guard, 0.01)
    assert guard.collapsed
    assert told(guard, 0.01) is None
    assert caplog.text.count("went flat") == 1
    assert told(guard, 0.2) is None
    assert not guard.collapsed
    assert "went flat" in told(guard, 0.0)


def test_reports_faded_and_non_finite_maps():
    guard = CollapseGuard(QUICK)
    told(guard, 0.2, times=3)
    assert "faded" in guard.update(0.2, 0.001)
    other = CollapseGuard(QUICK)
    assert "not finite" in other.update(math.nan, 0.1)


def test_resumed_guard_goes_on_exactly():
    one = CollapseGuard(CollapseGuardConfig(settle_steps=2))
    told(one, 0.3, times=4)
    other = CollapseGuard(CollapseGuardConfig(settle_steps=2))
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for _ in range(30):
        assert one.update(0.0, 0.3) == other.update(0.0, 0.3)
    assert one.collapsed
    with pytest.raises(ValueError, match="state must have exactly"):
        one.load_state_dict({})


def test_a_real_collapse_is_caught():
    """The published mean with an overwhelming weight flattens free maps; the guard sees it happen."""
    torch.manual_seed(0)
    depth = torch.full((4, 64, 64), 1.0)
    depth[:, 20:44, 20:44] = 0.8
    labels = torch.ones(4, 1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
    raw = (3 * torch.exp(-4 * (y**2 + x**2)) + 0.3 * torch.randn(4, 1, 16, 16)).requires_grad_()
    config = DepthEdgeAlignmentConfig(cam_activation="sigmoid")
    optimizer = torch.optim.Adam([raw], lr=0.1)
    guard, message = CollapseGuard(), None
    for _ in range(200):
        optimizer.zero_grad()
        edge, statistics = depth_edge_alignment_loss(raw, depth * 0 + 1, labels, config=config, return_statistics=True)
        (F.multilabel_soft_margin_loss(raw.mean((2, 3)), labels) + 50 * edge).backward()
        optimizer.step()
        values = statistics.as_floats()
        message = message or guard.update(values["cam_edge_fraction"], values["cam_activation"])
    assert message is not None
    assert "went flat" in message


def test_config_refuses():
    with pytest.raises(ValueError, match="settle_steps must be >= 1"):
        CollapseGuardConfig(settle_steps=0)
    with pytest.raises(ValueError, match="ratios must be in"):
        CollapseGuardConfig(min_edge_ratio=1)
