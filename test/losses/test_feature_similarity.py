# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deal_ros.losses import FeatureSimilarityConfig, FeatureSimilarityLoss, feature_similarity_loss, max_norm

DENSE = FeatureSimilarityConfig(form="dense")
FULL_WINDOW = FeatureSimilarityConfig(window_sigmas=100)


def inputs(seed=0, size=(9, 11), classes=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(2, classes, *size, generator=generator, dtype=dtype)
    rgb = torch.rand(2, 3, *size, generator=generator, dtype=dtype)
    labels = torch.zeros(2, classes)
    labels[0, 1] = labels[1, 0] = labels[1, 3] = 1
    return raw, rgb, labels


def reference(raw, rgb, labels, config):
    """The published sum over all pairs, in a loop, with tanh and log."""
    batch, _, height, width = raw.shape
    y = max_norm(raw) * labels.to(raw)[:, :, None, None]
    y = torch.cat([1 - y.amax(1, keepdim=True), y], 1).flatten(2)
    x = rgb.flatten(2)
    total = 0.0
    for i in range(height * width):
        for j in range(height * width):
            if i == j:
                continue
            squared = (i // width - j // width) ** 2 + (i % width - j % width) ** 2
            g = math.exp(-squared / (2 * config.sigma**2)) / (2 * math.pi * config.sigma**2)
            delta = (x[..., i] - x[..., j]).abs().sum(1) / 3
            gate = torch.tanh(config.mu + torch.log(delta / (1 - delta)))
            total = total + (g * 0.5 * (y[..., i] - y[..., j]).square().sum(1) * gate).sum()
    return -total / (batch * height * width)


@pytest.mark.parametrize("config", [DENSE, FULL_WINDOW])
def test_equals_the_published_sum(config):
    raw, rgb, labels = inputs(size=(4, 5))
    config = replace(config, sigma=1.5)
    torch.testing.assert_close(
        feature_similarity_loss(raw, rgb, labels, config=config), reference(raw, rgb, labels, config)
    )


def test_hand_computed_value_of_two_cells():
    raw = torch.tensor([[[[0.0, 4.0]]]], dtype=torch.float64)
    rgb = torch.tensor([0.0, 0.5], dtype=torch.float64).expand(1, 3, 1, 2)
    # y differs by 1 in background and class up to ε: ½‖·‖² = 1; gate(.5) = tanh(2.5); the pair counts twice, HW = 2.
    expected = -math.exp(-1 / 50) / (2 * math.pi * 25) * math.tanh(2.5)
    loss = feature_similarity_loss(raw, rgb, torch.ones(1, 1))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    sigma=st.floats(0.5, 6),
)
def test_full_window_equals_dense_in_value_and_gradient(seed, height, width, sigma):
    raw, rgb, labels = inputs(seed, (height, width))
    results = []
    for config in (DENSE, FULL_WINDOW):
        leaf = raw.clone().requires_grad_()
        loss = feature_similarity_loss(leaf, rgb, labels, config=replace(config, sigma=sigma))
        results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-10)


def test_three_sigma_window_equals_dense_to_two_percent_and_wider_ones_converge():
    raw, rgb, labels = inputs(size=(40, 44))
    dense = float(feature_similarity_loss(raw, rgb, labels, config=DENSE))
    errors = [
        abs(float(feature_similarity_loss(raw, rgb, labels, config=FeatureSimilarityConfig(window_sigmas=s))) - dense)
        / abs(dense)
        for s in (2, 3, 4, 5)
    ]
    assert errors[1] < 0.02
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 1e-4


@pytest.mark.parametrize("form", ["dense", "windowed"])
def test_gradcheck(form):
    raw, rgb, labels = inputs(size=(4, 5))
    raw.requires_grad_()
    config = FeatureSimilarityConfig(form=form, sigma=1.0)
    assert torch.autograd.gradcheck(lambda r: feature_similarity_loss(r, rgb, labels, config=config), raw)


def test_absent_classes_and_their_number_make_no_difference():
    raw, rgb, labels = inputs()
    changed = torch.cat([raw, torch.full_like(raw, float("nan"))], 1)  # classes that no image has
    changed[0, 0], changed[0, 2] = 7.0, -3.0
    wider = torch.cat([labels, labels * 0], 1)
    torch.testing.assert_close(feature_similarity_loss(changed, rgb, wider), feature_similarity_loss(raw, rgb, labels))


def test_module_equals_function():
    raw, rgb, labels = inputs()
    expected = feature_similarity_loss(raw, rgb, labels, config=DENSE)
    assert torch.equal(FeatureSimilarityLoss(DENSE)(raw, rgb, labels), expected)


def test_larger_images_are_brought_to_the_size_of_the_maps():
    raw, rgb, labels = inputs()
    big = rgb.repeat_interleave(4, 2).repeat_interleave(4, 3)
    for mode in ("bilinear", "area"):
        config = FeatureSimilarityConfig(rgb_resample=mode)
        assert torch.isfinite(feature_similarity_loss(raw, big, labels, config=config))
    area = FeatureSimilarityConfig(rgb_resample="area")
    torch.testing.assert_close(
        feature_similarity_loss(raw, big, labels, config=area), feature_similarity_loss(raw, rgb, labels)
    )


def test_no_labels_is_no_pull():
    raw, rgb, labels = inputs()
    raw.requires_grad_()
    loss = feature_similarity_loss(raw, rgb, labels * 0)
    assert float(loss.detach()) == 0
    assert (torch.autograd.grad(loss, raw)[0] == 0).all()


def test_invalid_input():
    raw, rgb, labels = inputs()
    with pytest.raises(ValueError, match="divide uint8 images by 255"):
        feature_similarity_loss(raw, (rgb * 255).byte(), labels)
    with pytest.raises(ValueError, match="labels must be multi-hot"):
        feature_similarity_loss(raw, rgb, labels[0])
    for arguments, message in (
        ({"form": "sparse"}, "form must be windowed or dense"),
        ({"sigma": 0}, "must be positive"),
        ({"mu": 99}, "mu must be within"),
        ({"rgb_resample": "cubic"}, "rgb_resample must be"),
    ):
        with pytest.raises(ValueError, match=message):
            FeatureSimilarityConfig(**arguments)
