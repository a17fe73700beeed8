# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What DEAL and FSL may cost, in figures that a busy machine does not change: bytes and ratios of processor time."""

import pytest
import torch

from deal_ros.filters import DepthEdgeConfig
from deal_ros.losses import (
    DepthEdgeAlignmentConfig,
    FeatureSimilarityConfig,
    depth_edge_alignment_loss,
    feature_similarity_loss,
)


def deal(classes, batch=4, side=32):
    generator = torch.Generator().manual_seed(0)
    cam = torch.randn(batch, classes, side, side, generator=generator, requires_grad=True)
    depth = torch.rand(batch, 1, 60, 80, generator=generator) + 0.5
    labels = torch.zeros(batch, classes)
    labels[:, [1, 4]] = 1
    return lambda: torch.autograd.grad(depth_edge_alignment_loss(cam, depth, labels), cam)[0], cam.numel() * 4


def test_absent_classes_cost_nothing_but_their_zero_gradient(benchmarks):
    peak = benchmarks("common").peak_memory_bytes
    few, few_gradient = deal(5)
    many, many_gradient = deal(80)
    few(), many()
    extra = (peak(many) - many_gradient) - (peak(few) - few_gradient)
    assert extra < 0.1 * many_gradient, f"{extra} bytes of temporaries for 75 absent classes"


def test_deal_is_leaner_and_faster_than_its_textbook_form(benchmarks):
    common, cost = benchmarks("common"), benchmarks("deal_cost")
    ours, _ = deal(80)
    _, depth = cost.scene(4, 60, 80, "cpu")
    cam = torch.randn(4, 80, 32, 32, requires_grad=True)
    labels = torch.zeros(4, 80)
    labels[:, [1, 4]] = 1
    textbook = lambda: torch.autograd.grad(cost.textbook_loss(cam, depth, labels), cam)[0]  # noqa: E731
    series = common.time_calls({"ours": ours, "textbook": textbook}, warmup=2, repeats=9)
    assert common.median_ratio(series["textbook"], series["ours"]) > 3
    assert common.peak_memory_bytes(textbook) > 3 * common.peak_memory_bytes(ours)


def test_textbook_form_of_the_benchmark_says_the_same(benchmarks):
    """What is compared is the same loss: equal where no depth is missing and depth needs no resampling."""
    cost = benchmarks("deal_cost")
    cam = torch.randn(2, 6, 24, 24)
    depth = torch.ones(2, 1, 24, 24)
    depth[:, :, 6:18, 8:20] = 0.7
    labels = torch.zeros(2, 6)
    labels[0, 1] = labels[1, [2, 5]] = 1
    ours = depth_edge_alignment_loss(
        cam,
        depth,
        labels,
        config=DepthEdgeAlignmentConfig(edges=DepthEdgeConfig(form="inverse", normalization="input_minmax")),
    )
    assert float(ours) == pytest.approx(float(cost.textbook_loss(cam, depth, labels)), abs=1e-4)


def test_windowed_fsl_is_linear_in_pixels_and_dense_is_not(benchmarks):
    peak = benchmarks("common").peak_memory_bytes

    def memory(side, form):
        raw = torch.randn(1, 4, side, side, requires_grad=True)
        rgb, labels = torch.rand(1, 3, side, side), torch.tensor([[1, 0, 0, 0]])
        config = FeatureSimilarityConfig(form=form)
        return peak(lambda: feature_similarity_loss(raw, rgb, labels, config=config).backward())

    assert memory(24, "windowed") < 5 * memory(12, "windowed")
    assert memory(24, "dense") > 10 * memory(12, "dense")
