# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from deal_ros.metrics import SegmentationMetrics


def _images(seed, count=6, classes=4, ignored=True):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes + 1, (count, 17, 23)).astype(np.uint8)
    noise = rng.integers(0, classes + 1, truth.shape).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.7, truth, noise).astype(np.uint8)
    if ignored:
        truth[rng.random(truth.shape) < 0.1] = 255
    return prediction, truth


def test_hand_computed_iou():
    metrics = SegmentationMetrics(2)
    metrics.update(np.array([[0, 1, 1], [2, 2, 0]]), np.array([[0, 1, 2], [2, 255, 1]]))
    # background: 1 hit of 1 true and 2 predicted; class 1: 1 of 2 and 2; class 2: 1 of 2 and 1 (the 255 counts nowhere)
    np.testing.assert_allclose(metrics.iou_per_class(), [1 / 2, 1 / 3, 1 / 2])
    assert metrics.miou() == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert metrics.pixel_accuracy() == pytest.approx(3 / 5)


def test_matches_sklearn_over_a_whole_data_set():
    prediction, truth = _images(0)
    metrics = SegmentationMetrics(4)
    for one_prediction, one_truth in zip(prediction, truth):
        metrics.update(one_prediction, one_truth)
    known = truth != 255
    np.testing.assert_allclose(metrics.iou_per_class(), jaccard_score(truth[known], prediction[known], average=None))
    np.testing.assert_array_equal(metrics.confusion[:, :-1], confusion_matrix(truth[known], prediction[known]))


def test_is_no_mean_of_image_scores():
    metrics, single = SegmentationMetrics(1), []
    for prediction, truth in ((np.zeros((4, 4), int), np.eye(4, dtype=int)), (np.ones((40, 40), int),) * 2):
        metrics.update(prediction, truth)
        alone = SegmentationMetrics(1)
        alone.update(prediction, truth)
        single.append(alone.miou())
    assert metrics.miou() != pytest.approx(np.mean(single), abs=0.01)


def test_predicted_255_misses_the_truth_or_is_left_out():
    prediction, truth = np.array([[1, 255, 0, 0]]), np.array([[1, 1, 0, 255]])
    strict, lenient = SegmentationMetrics(1), SegmentationMetrics(1, skip_unlabelled=True)
    strict.update(prediction, truth)
    lenient.update(prediction, truth)
    np.testing.assert_allclose(strict.iou_per_class(), [1, 0.5])
    np.testing.assert_allclose(lenient.iou_per_class(), [1, 1])
    assert strict.pixel_accuracy() == pytest.approx(2 / 3)
    assert lenient.pixel_accuracy() == 1
    assert lenient.labelled_fraction() == pytest.approx(2 / 3)


def test_class_that_never_occurs_is_nan_and_not_averaged():
    metrics = SegmentationMetrics(3)
    metrics.update(np.array([[0, 1]]), np.array([[0, 1]]))
    assert np.isnan(metrics.iou_per_class()[2:]).all()
    assert metrics.miou() == 1
    assert np.isnan(SegmentationMetrics(3).miou())
    assert np.isnan(SegmentationMetrics(3).pixel_accuracy())


def test_merged_shards_equal_one_pass():
    prediction, truth = _images(1)
    whole, left, right = (SegmentationMetrics(4) for _ in range(3))
    whole.update(prediction, truth)
    left.update(prediction[:2], truth[:2])
    right.update(prediction[2:], truth[2:])
    left.merge(right)
    np.testing.assert_array_equal(whole.confusion, left.confusion)
    with pytest.raises(ValueError, match="agree"):
        left.merge(SegmentationMetrics(5))


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "one shape"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8), "prediction must hold integers"),
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), r"prediction must hold ids 0\.\.2 or 255, got 3"),
        (np.zeros((2, 2), np.int32), np.full((2, 2), -1), "truth must hold ids"),
    ],
)
def test_bad_input_is_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        SegmentationMetrics(2).update(prediction, truth)


@pytest.mark.parametrize("count", [0, 255])
def test_class_count_must_fit_a_mask(count):
    with pytest.raises(ValueError, match=r"1\.\.254"):
        SegmentationMetrics(count)


def test_largest_class_count_keeps_255_apart():
    metrics = SegmentationMetrics(254)
    metrics.update(np.array([[254, 255]], np.uint8), np.array([[254, 254]], np.uint8))
    assert metrics.iou_per_class()[254] == pytest.approx(0.5)


RANK = """
import sys
import numpy as np
from torch import distributed
from deal_ros.metrics import SegmentationMetrics

rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
metrics = SegmentationMetrics(2)
metrics.update(np.full((3, 4), rank), np.full((3, 4), 1))
metrics.all_reduce()
print(metrics.confusion.tolist())
distributed.destroy_process_group()
"""


def test_ranks_share_their_counts(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=200)[0] for rank in ranks]
    whole = SegmentationMetrics(2)
    whole.update(np.array([[0] * 12, [1] * 12]), np.ones((2, 12), int))
    assert outputs == [f"{whole.confusion.tolist()}\n"] * 2


def test_a_single_process_needs_no_distributed():
    metrics = SegmentationMetrics(1)
    metrics.update(np.array([1]), np.array([1]))
    metrics.all_reduce()
    assert metrics.confusion.sum() == 1
