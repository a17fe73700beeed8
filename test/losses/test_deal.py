# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deal_ros.config import ConfigError, from_mapping, to_mapping
from deal_ros.filters import DepthEdgeConfig, depth_edges, sobel_magnitude
from deal_ros.losses import (
    RECOMMENDED,
    DepthEdgeAlignmentConfig,
    DepthEdgeAlignmentLoss,
    depth_edge_alignment_loss,
    edge_gate,
)

AVERAGES = ("published", "balanced")
ACTIVATIONS = ("minmax", "relu_max", "sigmoid", "none")


def scene(batch=2, classes=4, size=(12, 14), depth_size=(48, 56), seed=0, dtype=torch.float32):
    """Random maps, a box on a wall with a hole in its depth, and labels with a different count per image."""
    generator = torch.Generator().manual_seed(seed)
    cam = torch.randn(batch, classes, *size, generator=generator, dtype=dtype)
    depth = torch.full((batch, 1, *depth_size), 1.0)
    for b in range(batch):
        depth[b, :, 10 + 4 * b : 34, 12:40] = 0.7
        depth[b, :, 40:44, 3 * b : 3 * b + 5] = float("nan")
    labels = torch.zeros(batch, classes)
    for b in range(batch):
        labels[b, : 1 + b % classes] = 1
    return cam, depth, labels


def textbook(cam, depth, labels, config):
    """The published equation with tanh and log, pixel by pixel weights, all in a loop."""
    size = config.resolution or tuple(cam.shape[-2:])
    d, valid = depth_edges(depth, config=config.edges, size=size)
    tanh_gate = lambda a: torch.tanh(config.mu + torch.log(a / (1 - a)))  # noqa: E731
    losses = []
    for b in range(len(cam)):
        gate = tanh_gate(d[b, 0].double())
        weight = valid[b, 0].double()
        if config.average == "balanced":
            on, off = weight * (gate > 0), weight * (gate <= 0)
            weight = 0.5 * on / on.sum().clamp_min(1) + 0.5 * off / off.sum().clamp_min(1)
        else:
            weight = weight / weight.sum()
        present = [k for k in range(cam.shape[1]) if labels[b, k]]
        total = 0.0
        for k in present:
            s = cam[b, k].double()
            s = {
                "minmax": lambda s: (s - s.min()) / (s.max() - s.min()),
                "relu_max": lambda s: s.relu() / s.relu().max(),
                "sigmoid": torch.sigmoid,
                "none": lambda s: s,
            }[config.cam_activation](s)
            if size != tuple(s.shape):
                s = F.interpolate(s[None, None], size, mode=config.resample, align_corners=False)[0, 0]
            a = sobel_magnitude(s[None, None], scale=config.cam_sobel_scale)[0, 0]
            total = total + (weight * tanh_gate(a) * gate).sum() / len(present)
        if present:
            losses.append(-total)
    return torch.stack(losses).mean()


@settings(deadline=None, max_examples=100)
@given(a=st.floats(1e-9, 1 - 1e-9), mu=st.floats(-4, 4))
def test_closed_form_of_the_gate_is_the_published_one(a, mu):
    published = math.tanh(mu + math.log(a / (1 - a)))
    assert float(edge_gate(torch.tensor(a, dtype=torch.float64), mu)) == pytest.approx(published, abs=1e-12)


@pytest.mark.parametrize(("a", "gate"), [(0.02, -0.88), (0.05, -0.42), (0.1, 0.29), (0.2, 0.81), (0.3, 0.93)])
def test_published_values_of_the_gate(a, gate):
    assert float(edge_gate(torch.tensor(a))) == pytest.approx(gate, abs=0.006)


def test_gate_is_finite_with_a_finite_gradient_at_both_ends():
    a = torch.tensor([0.0, 1.0, 1.2, 1 / (1 + math.exp(2.5))], dtype=torch.float64, requires_grad=True)
    gate = edge_gate(a)
    gate.sum().backward()
    assert gate[:2].tolist() == [-1, 1]
    assert float(gate[3].detach()) == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(a.grad).all()
    assert float(a.grad[0]) == 0  # a perfectly flat map gets no gradient


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("activation", ["minmax", "relu_max", "sigmoid"])
@pytest.mark.parametrize("resolution", [None, (20, 24)])
def test_equals_the_textbook_form(average, activation, resolution):
    cam, depth, labels = scene(batch=3)
    config = DepthEdgeAlignmentConfig(
        average=average,
        cam_activation=activation,
        resolution=resolution,
        edges=DepthEdgeConfig(form="lap", normalization="step"),
    )
    ours = depth_edge_alignment_loss(cam, depth, labels, config=config)
    assert float(ours) == pytest.approx(float(textbook(cam, depth, labels, config)), abs=2e-6)


def test_hand_computed_value():
    """One class, a vertical unit step in map and depth at the same place, 4×6 cells."""
    cam = torch.zeros(1, 1, 4, 6)
    cam[..., 3:] = 1
    depth = torch.full((1, 4, 6), 1.0)
    depth[..., 3:] = 2.0
    value = lambda config: float(depth_edge_alignment_loss(cam, depth, torch.ones(1, 1), config=config))  # noqa: E731
    config = DepthEdgeAlignmentConfig(edges=DepthEdgeConfig(form="metric", normalization="step", step=1.0))
    # Map: two columns with edge ½ (gate .98664), four without (gate -1). Depth: the step of 1 m is exactly the named
    # step in both columns, where the gate is 0; elsewhere -1. L = -(16·(-1)(-1))/24.
    assert value(config) == pytest.approx(-2 / 3, abs=1e-4)
    sharper = replace(config, edges=replace(config.edges, step=0.0759))  # now d ≈ 1 and d' ≈ 1 there
    assert value(sharper) == pytest.approx(-(8 * 0.98664 + 16) / 24, abs=2e-4)
    assert value(replace(sharper, average="balanced")) == pytest.approx(-(0.5 * 0.98664 + 0.5), abs=2e-4)


@pytest.mark.parametrize("average", AVERAGES)
def test_aligned_maps_score_better_than_shifted_and_flat_ones(average):
    depth = torch.full((1, 64, 64), 1.0)
    depth[:, 16:48, 20:44] = 0.8
    inside = (depth < 0.9).float()[:, None]
    config = replace(RECOMMENDED, average=average, upsample=1)
    value = lambda cam: float(depth_edge_alignment_loss(cam, depth, torch.ones(1, 1), config=config))  # noqa: E731
    assert value(inside) < value(inside.roll(6, -1))
    assert value(inside) < value(torch.zeros_like(inside))
    assert -1 <= value(inside) <= 1


def test_flat_map_scores_nearly_minus_one_published_and_zero_balanced():
    cam, depth, labels = scene()
    flat = torch.zeros_like(cam)
    sparse = replace(RECOMMENDED, average="published", resolution=(48, 56))
    assert float(depth_edge_alignment_loss(flat, depth, labels, config=sparse)) < -0.75
    assert abs(float(depth_edge_alignment_loss(flat, depth, labels, config=replace(sparse, average="balanced")))) < 0.3


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("resolution", [None, (9, 8)])
def test_gradcheck(average, activation, resolution):
    cam, depth, labels = scene(size=(5, 6), depth_size=(48, 56), dtype=torch.float64)
    if activation == "none":
        cam = cam.sigmoid()
    cam.requires_grad_()
    config = DepthEdgeAlignmentConfig(average=average, cam_activation=activation, resolution=resolution)
    assert torch.autograd.gradcheck(lambda c: depth_edge_alignment_loss(c, depth, labels, config=config), cam)


def test_detached_range_changes_the_gradient_and_not_the_value():
    cam, depth, labels = scene()
    values, gradients = [], []
    for detach_range in (False, True):
        leaf = cam.clone().requires_grad_()
        config = DepthEdgeAlignmentConfig(detach_range=detach_range)
        values.append(depth_edge_alignment_loss(leaf, depth, labels, config=config))
        gradients.append(torch.autograd.grad(values[-1], leaf)[0])
    assert torch.equal(*values)
    assert not torch.allclose(*gradients)


def test_only_present_classes_get_gradients_and_absent_ones_may_hold_anything():
    cam, depth, labels = scene()
    cam[0, 2] = float("nan")  # absent
    cam.requires_grad_()
    loss = depth_edge_alignment_loss(cam, depth, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert (cam.grad[labels == 0] == 0).all()
    assert (cam.grad[labels == 1].flatten(1).abs().sum(1) > 0).all()


def test_module_equals_function_and_shows_its_configuration():
    cam, depth, labels = scene()
    module = DepthEdgeAlignmentLoss(RECOMMENDED)
    assert torch.equal(module(cam, depth, labels), depth_edge_alignment_loss(cam, depth, labels, config=RECOMMENDED))
    assert "balanced" in repr(module)


def test_default_is_the_published_form():
    config = DepthEdgeAlignmentConfig()
    assert (config.mu, config.average, config.resample, config.edges.resample) == (
        2.5,
        "published",
        "bicubic",
        "bicubic",
    )


def test_batch_is_the_mean_of_its_images():
    cam, depth, labels = scene(batch=3)
    whole = depth_edge_alignment_loss(cam, depth, labels, config=RECOMMENDED)
    singles = [
        depth_edge_alignment_loss(cam[b : b + 1], depth[b : b + 1], labels[b : b + 1], config=RECOMMENDED)
        for b in range(3)
    ]
    torch.testing.assert_close(whole, torch.stack(singles).mean())


def test_images_without_labels_or_depth_are_left_out_of_the_mean():
    cam, depth, labels = scene(batch=3)
    reference = depth_edge_alignment_loss(cam[1:2], depth[1:2], labels[1:2])
    depth[0] = 0
    labels[2] = 0
    torch.testing.assert_close(depth_edge_alignment_loss(cam, depth, labels), reference)


@pytest.mark.parametrize("average", AVERAGES)
def test_nothing_to_learn_from_is_zero_with_a_graph(average):
    cam, depth, labels = scene()
    cam.requires_grad_()
    config = DepthEdgeAlignmentConfig(average=average)
    for d, y in ((depth, labels * 0), (depth * 0, labels)):
        loss, statistics = depth_edge_alignment_loss(cam, d, y, config=config, return_statistics=True)
        assert float(loss.detach()) == 0
        (gradient,) = torch.autograd.grad(loss, cam)
        assert (gradient == 0).all()
        assert all(math.isfinite(value) for value in statistics.as_floats().values())


def test_what_lies_in_holes_makes_no_difference():
    cam, depth, labels = scene()
    hole = torch.isnan(depth)
    values = [
        float(depth_edge_alignment_loss(cam, depth.masked_fill(hole, content), labels, config=RECOMMENDED))
        for content in (0.0, float("inf"), -1.0)
    ]
    assert values == [values[0]] * 3


def test_statistics():
    cam, depth, labels = scene()
    loss, statistics = depth_edge_alignment_loss(cam, depth, labels, config=RECOMMENDED, return_statistics=True)
    assert torch.equal(loss, depth_edge_alignment_loss(cam, depth, labels, config=RECOMMENDED))
    values = statistics.as_floats()
    assert set(values) == {"depth_edge_fraction", "cam_edge_fraction", "cam_activation", "valid_fraction"}
    assert all(0 < value < 1 for value in values.values())
    flat = depth_edge_alignment_loss(cam * 0, depth, labels, return_statistics=True)[1]
    assert float(flat.cam_edge_fraction) == float(flat.cam_activation) == 0


def test_shuffled_control_meets_the_depth_of_the_next_image():
    cam, depth, labels = scene(batch=3)
    shuffled = depth_edge_alignment_loss(cam, depth, labels, config=replace(RECOMMENDED, depth_control="shuffled"))
    rolled = depth_edge_alignment_loss(cam, depth.roll(1, 0), labels, config=RECOMMENDED)
    torch.testing.assert_close(shuffled, rolled)
    alone = replace(RECOMMENDED, depth_control="shuffled")
    assert float(depth_edge_alignment_loss(cam[:1], depth[:1], labels[:1], config=alone)) == 0


def test_mu_moves_the_zero_of_both_gates():
    """With step normalisation the named step stays the depth at which the gate changes sign."""
    cam, depth, labels = scene()
    fractions = [
        float(
            depth_edge_alignment_loss(cam, depth, labels, config=replace(RECOMMENDED, mu=mu), return_statistics=True)[
                1
            ].depth_edge_fraction
        )
        for mu in (1.5, 2.5, 3.5)
    ]
    assert max(fractions) - min(fractions) < 1e-6


def test_autocast_and_half_precision_are_computed_in_float32():
    cam, depth, labels = scene()
    reference = depth_edge_alignment_loss(cam, depth, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(depth_edge_alignment_loss(cam, depth, labels), reference)
    assert depth_edge_alignment_loss(cam.bfloat16(), depth, labels).dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_labels_of_any_type(kind):
    cam, depth, labels = scene()
    expected = depth_edge_alignment_loss(cam, depth, labels)
    assert torch.equal(depth_edge_alignment_loss(cam, depth[:, 0], labels.to(kind)), expected)


@pytest.mark.parametrize("average", AVERAGES)
def test_descent_pulls_a_blurred_map_towards_the_object(average):
    """Smoke: a few steps of gradient descent on the map itself improve its overlap with the object."""
    depth = torch.full((1, 32, 32), 1.0)
    depth[:, 8:24, 8:24] = 0.8
    inside = depth[0] < 0.9
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    start = (4 * torch.exp(-((y - 15.5) ** 2 + (x - 15.5) ** 2) / 150) - 2)[None, None].requires_grad_()
    config = replace(RECOMMENDED, average=average, cam_activation="sigmoid", upsample=1)
    optimizer = torch.optim.Adam([start], lr=0.1)

    def contrast():
        cam = start.detach().sigmoid()[0, 0]
        return float(cam[inside].mean() - cam[~inside].mean())

    before = contrast()
    for _ in range(40):
        optimizer.zero_grad()
        depth_edge_alignment_loss(start, depth, torch.ones(1, 1), config=config).backward()
        optimizer.step()
    assert contrast() > before + 0.05


def box_on_a_table(size=32):
    """Depth of a box in front of a slanted table, and where the box is."""
    depth = torch.linspace(1.3, 0.9, size).repeat(size, 1).T[None].clone()
    depth[:, 8:20, 8:24] = 0.8
    return depth, (depth[0] == 0.8).float()[None, None]


@pytest.mark.parametrize("average", AVERAGES)
def test_an_edge_has_no_side_until_it_belongs_to_the_nearer_surface(average):
    depth, inside = box_on_a_table()
    either = replace(RECOMMENDED, average=average, cam_activation="none", upsample=1, edge_owner="either")
    nearer = replace(either, edge_owner="nearer")

    def loss(cam, config):
        return float(depth_edge_alignment_loss(cam, depth, torch.ones(1, 1), config=config))

    assert loss(inside, either) == pytest.approx(loss(1 - inside, either), abs=1e-5)
    assert loss(inside, nearer) == pytest.approx(loss(inside, either), abs=1e-5)  # nothing to object to
    flat = torch.full_like(inside, 0.5)
    assert loss(inside, nearer) < loss(flat, nearer) < loss(1 - inside, nearer)


def test_gradcheck_with_edges_that_belong_to_the_nearer_surface():
    cam, depth, labels = scene(size=(8, 9), depth_size=(48, 56), dtype=torch.float64)
    cam.requires_grad_()
    config = replace(RECOMMENDED, upsample=2)
    assert torch.autograd.gradcheck(lambda c: depth_edge_alignment_loss(c, depth, labels, config=config), cam)


@pytest.mark.parametrize("lost", [False, True])
def test_descent_turns_a_map_that_is_inside_out(lost):
    """Also where the camera has lost both sides of the box's outline, as stereo cameras do."""
    depth, inside = box_on_a_table()
    if lost:
        outline = F.max_pool2d(inside, 3, 1, 1) + F.max_pool2d(-inside, 3, 1, 1)
        depth = depth.masked_fill(outline[0] > 0, 0)

    def contrast_after(owner):
        cam = 2 - 4 * inside * 0.7 + 0.02 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        cam.requires_grad_()
        config = replace(RECOMMENDED, cam_activation="sigmoid", upsample=1, edge_owner=owner)
        optimizer = torch.optim.Adam([cam], lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            depth_edge_alignment_loss(cam, depth, torch.ones(1, 1), config=config).backward()
            optimizer.step()
        activation = cam.detach().sigmoid()
        near, ring = inside.bool(), (F.max_pool2d(inside, 5, 1, 2) - inside).bool()
        return float(activation[near].mean() - activation[ring].mean())

    assert contrast_after("either") < -0.2
    assert contrast_after("nearer") > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cam": torch.zeros(2, 4, 12)},
            r"cam must be a floating tensor \(B, K, h, w\), got torch.float32 \(2, 4, 12\)",
        ),
        ({"cam": torch.zeros(2, 4, 1, 1)}, "lower the output stride"),
        ({"labels": torch.zeros(2, 5)}, r"labels must be multi-hot \(2, 4\) like cam, got \(2, 5\)"),
        ({"depth": torch.ones(3, 48, 56)}, r"depth_m must be \(2, 1, H, W\) or \(2, H, W\)"),
        ({"depth": torch.ones(2, 48, 56, dtype=torch.int32)}, "divide millimetres by 1000"),
    ],
)
def test_wrong_tensors_are_named(change, message):
    cam, depth, labels = scene()
    arguments = {"cam": cam, "depth": depth, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        depth_edge_alignment_loss(arguments["cam"], arguments["depth"], arguments["labels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average": "mean"}, "average must be one of published, balanced, got 'mean'"),
        ({"cam_activation": "relu"}, "cam_activation must be one of"),
        ({"mu": float("nan")}, "mu must be within"),
        ({"cam_sobel_scale": 0}, "cam_sobel_scale must be positive"),
        ({"resolution": (2, 9)}, r"resolution must be at least \(3, 3\)"),
        ({"upsample": 0}, "upsample must be at least 1, got 0"),
        ({"edge_owner": "farther"}, "edge_owner must be one of either, nearer"),
        ({"owner_step": 0}, r"owner_step must be in \(0, 1\)"),
        ({"depth_control": "random"}, "depth_control must be one of aligned, shuffled"),
    ],
)
def test_config_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthEdgeAlignmentConfig(**arguments)


def test_config_comes_from_yaml_and_goes_back():
    config = replace(RECOMMENDED, resolution=(40, 40))
    assert from_mapping(DepthEdgeAlignmentConfig, to_mapping(config)) == config
    with pytest.raises(ConfigError, match="did you mean 'average'"):
        from_mapping(DepthEdgeAlignmentConfig, {"averag": "balanced"})


def test_upsample_follows_the_size_of_the_maps():
    cam, depth = torch.randn(2, 3, 6, 8), torch.rand(2, 24, 32) + 0.5
    fine = depth_edge_alignment_loss(cam, depth, torch.ones(2, 3), config=replace(RECOMMENDED, upsample=3))
    named = replace(RECOMMENDED, upsample=1, resolution=(18, 24))
    assert fine == depth_edge_alignment_loss(cam, depth, torch.ones(2, 3), config=named)
    assert fine != depth_edge_alignment_loss(cam, depth, torch.ones(2, 3), config=replace(RECOMMENDED, upsample=1))
