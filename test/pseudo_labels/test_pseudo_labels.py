# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from deal_ros.config import from_mapping, to_mapping
from deal_ros.metrics import SegmentationMetrics
from deal_ros.pseudo_labels import (
    CRF_PRESETS,
    ContourAgreement,
    ContourAgreementConfig,
    PseudoLabelConfig,
    ThresholdSweep,
    choose_threshold,
    crf_cam,
    label_map,
    refine_cam,
    sweep_threshold,
)

torch.set_num_threads(1)


def blob(size=96, radius=24, center=(48, 48), softness=40.0):
    """A CAM that falls off linearly and crosses 0.5 at ``radius``."""
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - center[0], x - center[1])
    return np.clip(0.5 - (distance - radius) / softness, 0, 1).astype(np.float32)


def scene(radius=20, size=96, center=(48, 48)):
    """A disc 20 cm before a wall: image, depth, truth."""
    y, x = np.mgrid[:size, :size]
    truth = (np.hypot(y - center[0], x - center[1]) < radius).astype(np.uint8)
    depth = np.where(truth, 0.8, 1.0).astype(np.float32)
    noise = np.random.default_rng(0).integers(0, 12, (size, size, 3))
    rgb = (np.where(truth[..., None], (200, 60, 40), (40, 90, 160)) + noise).astype(np.uint8)
    return rgb, depth, truth


def test_label_map_is_the_argmax_with_background():
    cam = torch.rand(4, 20, 30)
    expected = torch.cat([torch.full((1, 20, 30), 0.4), cam]).argmax(0).numpy()
    assert np.array_equal(label_map(cam, threshold=0.4), expected)


def test_label_map_ignores_absent_classes_and_leaves_the_band_unlabelled():
    cam = np.stack([np.full((2, 3), 0.9, np.float32), np.float32([[0.2, 0.5, 0.9], [0.39, 0.41, 0.61]])])
    labels = label_map(cam, present=[0, 1], threshold=0.5, band=0.1)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 255, 2], [0, 255, 2]]
    assert label_map(cam, [0, 1], 0.5, 0.1, band_below=0.2).tolist() == [[0, 255, 2], [255, 255, 2]]
    assert label_map(cam, [0, 1], 0.5, 0.0, band_below=0.2).tolist() == [[0, 0, 2], [255, 255, 2]]
    assert not label_map(cam, [0, 0], 0.5, 0.1, band_below=0.45).any()
    assert label_map(cam, [0, 1], 0.5, 0.0, band_below=0.45).tolist() == [[0, 0, 2], [255, 255, 2]]  # above 0.2


def test_label_map_of_an_image_without_classes_is_background():
    assert not label_map(np.ones((2, 4, 4), np.float32), present=[0, 0]).any()


def test_label_map_explains_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(K, H, W\), got \(4, 4\)"):
        label_map(np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"present must be \(2,\), got \(3,\)"):
        label_map(np.ones((2, 4, 4), np.float32), present=[1, 1, 1])


def test_sweep_equals_the_metrics_at_every_threshold():
    rng = np.random.default_rng(1)
    images = []
    for _ in range(3):
        truth = rng.integers(0, 4, (16, 18)).astype(np.uint8)
        truth[:2] = 255
        images.append((rng.random((3, 16, 18)).astype(np.float32), truth, rng.integers(0, 2, 3)))
    thresholds = (0.0, 0.2, 0.25, 0.5, 0.97)
    choice = sweep_threshold(images, 3, thresholds)
    for threshold, score in zip(thresholds, choice.scores):
        metrics = SegmentationMetrics(3)
        for cam, truth, present in images:
            metrics.update(label_map(cam, present, threshold), truth)
        assert score == pytest.approx(metrics.miou())
    assert choice.score == max(choice.scores)


def test_a_score_equal_to_the_threshold_is_background_in_both():
    cam = np.full((1, 2, 2), 0.2, np.float32)
    sweep = ThresholdSweep(1, (0.1, 0.2))
    sweep.update(cam, label_map(cam, threshold=0.2))
    assert not label_map(cam, threshold=0.2).any()
    assert sweep.miou().tolist() == [0.0, 1.0]


def test_sweeps_of_two_processes_add_up():
    rng = np.random.default_rng(2)
    images = [(rng.random((2, 8, 8)), rng.integers(0, 3, (8, 8)).astype(np.uint8), None) for _ in range(4)]
    whole, parts = ThresholdSweep(2), [ThresholdSweep(2), ThresholdSweep(2)]
    for i, image in enumerate(images):
        whole.update(*image)
        parts[i % 2].update(*image)
    parts[0].counts += parts[1].counts
    assert whole.result() == parts[0].result()


def test_sweep_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="at least one image"):
        sweep_threshold([], 2)
    with pytest.raises(ValueError, match=r"ids 0\.\.2 or 255, got 7"):
        ThresholdSweep(2).update(np.zeros((2, 4, 4)), np.full((4, 4), 7, np.uint8))
    with pytest.raises(ValueError, match="ascending"):
        ThresholdSweep(2, (0.5, 0.2))


@pytest.mark.parametrize("radius", [14, 20, 28])
def test_contours_choose_the_threshold_that_meets_the_depth_edge(radius):
    """The map crosses the object's true radius at a level that depends on the object; no truth is looked at."""
    _, depth, truth = scene(radius)
    cam = blob()[None]
    chosen = choose_threshold([(cam, depth, None)], ContourAgreementConfig(prior=0.0))
    swept = sweep_threshold([(cam, truth, None)], 1)
    metrics = SegmentationMetrics(1)
    metrics.update(label_map(cam, threshold=chosen.threshold), truth)
    assert metrics.miou() > swept.score - 0.04
    assert chosen.score > 0.9


def test_where_contours_agree_alike_the_threshold_nearest_to_a_half_is_chosen():
    _, depth, truth = scene()
    cam = (0.1 + 0.85 * truth.astype(np.float32))[None]  # every threshold between 0.1 and 0.95 gives the same mask
    assert choose_threshold([(cam, depth, None)]).threshold == 0.5


def test_a_mask_need_not_reach_for_the_edges_of_other_things():
    _, depth, truth = scene()
    depth[4:28, 4:28] -= 0.2  # a thing without a label, which the map hardly responds to
    cam = 0.8 * truth.astype(np.float32)
    cam[2:32, 2:32] = 0.42
    assert 0.42 < choose_threshold([(cam[None], depth, None)]).threshold < 0.8


@pytest.mark.parametrize(("field", "value"), [("beta", 0.0), ("prior", 4.0), ("prior", -1.0)])
def test_agreement_refuses_weights_out_of_range(field, value):
    with pytest.raises(ValueError, match="beta must be > 0 and prior in"):
        ContourAgreementConfig(**{field: value})


def test_contours_without_depth_fall_back():
    depth = np.zeros((96, 96), np.float32)
    choice = choose_threshold([(blob()[None], depth, None)], fallback=0.37)
    assert choice.threshold == 0.37
    assert np.isnan(choice.score)


def test_contour_counts_of_two_processes_add_up():
    _, depth, _ = scene()
    one, two, both = ContourAgreement(), ContourAgreement(), ContourAgreement()
    one.update(blob()[None], depth)
    two.update(blob(radius=30)[None], depth)
    both.update(blob()[None], depth)
    both.update(blob(radius=30)[None], depth)
    one.counts += two.counts
    assert np.array_equal(one.counts, both.counts)


@pytest.mark.parametrize("refine", ["rgb", "rgbd", "crf"])
def test_refinement_pulls_a_loose_map_to_the_object(refine):
    if refine == "crf":
        pytest.importorskip("pydensecrf")
    rgb, depth, truth = scene(radius=20)
    cam = np.zeros((3, 96, 96), np.float32)
    cam[1] = blob(radius=26)
    refined = refine_cam(cam, rgb, depth, PseudoLabelConfig(refine=refine), present=[0, 1, 0])
    before, after = SegmentationMetrics(3), SegmentationMetrics(3)
    before.update(label_map(cam), truth * 2)
    after.update(label_map(refined), truth * 2)
    assert refined.shape == (3, 96, 96)
    assert refined.min() >= 0
    assert refined.max() <= 1
    assert after.iou_per_class()[2] > before.iou_per_class()[2] + 0.1


def test_depth_helps_where_colour_does_not():
    _, depth, truth = scene(radius=20)
    gray = np.random.default_rng(0).integers(90, 110, (96, 96, 3)).astype(np.uint8)
    scores = {}
    for refine in ("rgb", "rgbd"):
        refined = refine_cam(blob(radius=26)[None], gray, depth, PseudoLabelConfig(refine=refine))
        scores[refine] = sweep_threshold([(refined, truth, None)], 1).score
    assert scores["rgbd"] > scores["rgb"] + 0.02


def test_refinement_at_a_smaller_size_comes_back_at_the_image_size():
    rgb, depth, _ = scene(size=96)
    refined = refine_cam(blob()[None], rgb, depth, PseudoLabelConfig(refine_px=48))
    assert refined.shape == (1, 96, 96)


@pytest.mark.parametrize("refine", ["none", "rgb", "crf"])
def test_nothing_in_view_refines_to_nothing(refine):
    rgb, depth, _ = scene()
    refined = refine_cam(np.zeros((2, 96, 96), np.float32), rgb, depth, PseudoLabelConfig(refine=refine))
    assert not refined.any()


def test_refine_none_only_removes_absent_classes():
    rgb, _, _ = scene()
    cam = np.stack([blob(), blob(radius=10)])
    refined = refine_cam(cam, rgb, None, PseudoLabelConfig(refine="none"), present=[1, 0])
    assert np.array_equal(refined[0].numpy(), cam[0])
    assert not refined[1].any()


def test_refinement_explains_wrong_sizes():
    rgb, depth, _ = scene()
    with pytest.raises(ValueError, match="must fit"):
        refine_cam(np.zeros((1, 4, 4), np.float32), rgb)
    with pytest.raises(ValueError, match="the size of rgb"):
        refine_cam(blob()[None], rgb, depth[:10])


@pytest.mark.parametrize("preset", list(CRF_PRESETS))
def test_crf_labels_are_its_posterior_at_one_half(preset):
    pytest.importorskip("pydensecrf")
    rgb, _, truth = scene(radius=20)
    refined = crf_cam(np.stack([blob(radius=22), blob(radius=8, center=(10, 80))]), rgb, CRF_PRESETS[preset])
    assert refined.dtype == np.float32
    metrics = SegmentationMetrics(2)
    metrics.update(np.where(label_map(refined) == 1, 1, 0), truth)
    assert metrics.iou_per_class()[1] > 0.75


def test_a_crf_sees_the_image_at_its_own_size():
    pytest.importorskip("pydensecrf")
    rgb, depth, _ = scene()
    maps = np.stack([blob(radius=22)])
    refined = refine_cam(maps, rgb, depth, PseudoLabelConfig(refine="crf", refine_px=16))
    assert np.array_equal(refined.numpy(), crf_cam(maps, rgb, CRF_PRESETS["seam"]))


def test_crf_without_the_package_names_the_remedy(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    rgb, _, _ = scene()
    with pytest.raises(ImportError, match="pip install pydensecrf2"):
        crf_cam(blob()[None], rgb)


def test_config_round_trip_and_bad_values():
    config = PseudoLabelConfig(scales=(0.5, 1.0), refine="crf", crf="weaktr_voc", band=0.05)
    assert from_mapping(PseudoLabelConfig, to_mapping(config)) == config
    for values, message in [
        ({"refine": "magic"}, "refine"),
        ({"band": 0.7}, r"band must be in \[0, 0\.5\)"),
        ({"band_below": -0.1}, r"band_below must be in \[0, 0\.5\)"),
        ({"threshold": 1.0}, "threshold"),
        ({"crf": "other"}, "crf must be one of seam"),
        ({"scales": []}, "scales"),
        ({"contour": {"cells": 2}}, "cells"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_mapping(PseudoLabelConfig, values)
