# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deal_ros.config import from_mapping, to_mapping
from deal_ros.losses import (
    RECOMMENDED,
    LossWeight,
    LossWeightConfig,
    depth_edge_alignment_loss,
    gradient_norm,
)


def ratio(value=2.0, **changes):
    return LossWeight(LossWeightConfig(mode="gradient_ratio", value=value, **changes))


def test_the_gradient_norm_does_not_underflow_in_half_precision():
    """Mean gradients of many maps with many cells are smaller than the least float16."""
    scores = torch.full((8, 80, 56, 56), 9.0)
    labels = torch.ones(8, 80)
    norms = []
    for dtype in (torch.float32, torch.float16):
        maps = scores.to(dtype).requires_grad_()
        loss = F.multilabel_soft_margin_loss(maps.float().mean((2, 3)), labels)
        norms.append(gradient_norm(loss, maps))
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert norms[0] > 0


def test_constant():
    weight = LossWeight(LossWeightConfig(value=0.3, start_step=5))
    assert [weight(step) for step in (0, 4, 5, 100)] == [0, 0, 0.3, 0.3]
    assert not weight.needs_norms


def test_warmup_is_linear_and_ends_at_the_value():
    weight = LossWeight(LossWeightConfig(value=2.0, start_step=10, warmup_steps=4))
    assert [weight(step) for step in (9, 10, 11, 12, 13, 14)] == [0, 0.5, 1.0, 1.5, 2.0, 2.0]


@settings(deadline=None, max_examples=50)
@given(norms=st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), min_size=1, max_size=20))
def test_gradient_ratio_follows_running_means(norms):
    weight = ratio(3.0, max_weight=1e12)
    main, auxiliary = norms[0]
    for step, (m, a) in enumerate(norms):
        if step:
            main, auxiliary = 0.9 * main + 0.1 * m, 0.9 * auxiliary + 0.1 * a
        assert weight(step, m, a) == pytest.approx(3.0 * main / auxiliary)


def test_gradient_ratio_may_warm_up_and_is_bounded():
    weight = ratio(2.0, warmup_steps=2, max_weight=5.0)
    assert weight(0, 1.0, 1.0) == 1.0
    assert weight(1, 1.0, 1e-9) == 2.0 / (0.9 + 0.1e-9)
    assert ratio(2.0, max_weight=5.0)(0, 1.0, 1e-9) == 5.0


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_batches_without_a_gradient_leave_the_weight_as_it_was(bad):
    weight = ratio()
    before = weight(0, 4.0, 2.0)
    assert weight(1, 4.0, bad) == before
    assert weight(2, bad, 2.0) == before
    assert weight(3) == before


def test_gradient_ratio_without_norms_is_refused():
    with pytest.raises(ValueError, match="must be given main_norm and auxiliary_norm"):
        ratio()(0)
    assert ratio(start_step=3)(0) == 0  # not needed yet


def test_first_batch_without_depth_has_no_weight_yet():
    assert ratio()(0, 1.0, 0.0) == 0


def test_the_weighted_gradient_has_the_named_ratio_at_the_maps():
    torch.manual_seed(0)
    raw = torch.randn(2, 3, 12, 12, requires_grad=True)
    depth = torch.full((2, 48, 48), 1.0)
    depth[:, 10:30, 12:40] = 0.7
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    main = F.multilabel_soft_margin_loss(raw.mean((2, 3)), labels)
    edge = depth_edge_alignment_loss(raw, depth, labels, config=RECOMMENDED)
    weight = ratio(2.0)(0, gradient_norm(main, raw), gradient_norm(edge, raw))
    (main_gradient,) = torch.autograd.grad(main, raw, retain_graph=True)
    (edge_gradient,) = torch.autograd.grad(weight * edge, raw)
    assert float(edge_gradient.norm() / main_gradient.norm()) == pytest.approx(2.0, rel=1e-4)


def test_gradient_norm_keeps_the_graph_and_knows_independence():
    maps = torch.randn(1, 2, 3, 3, requires_grad=True)
    other = torch.randn(3, requires_grad=True)
    assert gradient_norm(other.sum(), maps) == 0
    assert gradient_norm(torch.zeros(()), maps) == 0
    loss = maps.square().sum()
    assert gradient_norm(loss, maps) == pytest.approx(2 * float(maps.detach().norm()))
    loss.backward()


def test_gate_cuts_when_map_falls_below_the_baseline_and_stays_cut():
    weight = ratio(4.0, map_tolerance=0.02)
    assert weight(0, 1.0, 1.0) == 4.0
    assert weight.observe_map(9, 0.70, baseline=0.73)
    assert weight(1, 1.0, 1.0) == pytest.approx(2.0)
    assert weight.observe_map(9, 0.70, baseline=0.73)
    assert not weight.observe_map(9, 0.72, baseline=0.73)
    assert weight(2, 1.0, 1.0) == pytest.approx(1.0)
    assert weight.gate == 0.25


def test_gate_does_not_act_before_the_loss_does():
    weight = ratio(4.0, start_step=10, map_tolerance=0.02)
    assert not weight.observe_map(9, 0.1, baseline=0.9)
    assert weight.observe_map(10, 0.1, baseline=0.9)


def test_gate_falls_back_on_the_best_map_seen():
    weight = LossWeight(LossWeightConfig(value=1.0, map_tolerance=0.05))
    assert not weight.observe_map(9, 0.4)
    assert not weight.observe_map(9, 0.6)
    assert not weight.observe_map(9, 0.56)
    assert weight.observe_map(9, 0.54)
    assert weight(0) == 0.5


def test_gate_may_recover_up_to_the_full_value():
    weight = LossWeight(LossWeightConfig(value=1.0, map_tolerance=0.0, map_recovery=1.5))
    weight.observe_map(9, 0.1, baseline=0.5)
    for _ in range(3):
        weight.observe_map(9, 0.6, baseline=0.5)
    assert weight(0) == 1.0


def test_no_tolerance_is_no_gate_and_an_unknown_map_says_nothing():
    weight = LossWeight(LossWeightConfig())
    assert not weight.observe_map(9, 0.1, baseline=0.9)
    assert weight.gate == 1
    gated = LossWeight(LossWeightConfig(map_tolerance=0.01))
    assert not gated.observe_map(9, math.nan, baseline=0.9)


def test_gate_says_so(caplog):
    LossWeight(LossWeightConfig(map_tolerance=0.01)).observe_map(9, 0.5, baseline=0.9)
    assert "mAP 0.500 is more than 0.010 below 0.900" in caplog.text


def test_resumed_run_goes_on_exactly():
    def run(weight, steps):
        values = []
        for step in steps:
            values.append(weight(step, 1 + math.sin(step) ** 2, 2 + math.cos(step)))
            weight.observe_map(9, 0.5 + 0.1 * math.sin(step))
        return values

    whole = run(ratio(map_tolerance=0.01, map_recovery=1.1), range(20))
    first = ratio(map_tolerance=0.01, map_recovery=1.1)
    head = run(first, range(9))
    second = ratio(map_tolerance=0.01, map_recovery=1.1)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert head + run(second, range(9, 20)) == whole


def test_foreign_state_is_refused():
    with pytest.raises(ValueError, match="state must have exactly"):
        ratio().load_state_dict({"main": 1.0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "cosine"}, "mode must be constant or gradient_ratio"),
        ({"value": -1}, "value must be >= 0"),
        ({"value": math.inf}, "value must be >= 0 and finite"),
        ({"start_step": -1}, "start_step and warmup_steps"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\)"),
        ({"max_weight": 0}, "max_weight must be positive"),
        ({"map_tolerance": 2}, "map_tolerance must be in"),
        ({"map_cut": 1}, "map_cut must be in"),
    ],
)
def test_config_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossWeightConfig(**arguments)


def test_config_comes_from_yaml_and_goes_back():
    config = LossWeightConfig(mode="gradient_ratio", value=4.0, map_tolerance=0.02)
    assert from_mapping(LossWeightConfig, to_mapping(config)) == config
