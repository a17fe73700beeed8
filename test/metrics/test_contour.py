# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from skimage.draw import disk as disk_pixels
from skimage.morphology import disk

from deal_ros.metrics import contour_f_score


def _reference(prediction, truth, radius):
    """Contours pixel by pixel, matching by dilation with a disk: another way to the same figure."""

    def contour(region):
        height, width = region.shape
        result = np.zeros_like(region)
        for y in range(height):
            for x in range(width):
                others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                result[y, x] = any(region[v, u] != region[y, x] for v, u in others if v < height and u < width)
        return result

    scores = []
    for i in sorted((set(np.unique(prediction)) | set(np.unique(truth))) - {0}):
        a, b = contour(prediction == i), contour(truth == i)
        if not a.any() or not b.any():
            scores.append(float(a.any() == b.any()))
            continue
        p = (a & binary_dilation(b, disk(radius))).sum() / a.sum()
        r = (b & binary_dilation(a, disk(radius))).sum() / b.sum()
        scores.append(2 * p * r / (p + r) if p + r else 0.0)
    return float(np.mean(scores))


def _scene(seed, size=(60, 80)):
    rng = np.random.default_rng(seed)
    image = np.zeros(size, np.uint8)
    for i in range(1, 4):
        center = rng.integers(5, np.array(size) - 5)
        image[disk_pixels(center, rng.integers(4, 15), shape=size)] = i
    return image


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bound", [0.008, 0.02, 3])
def test_matches_an_independent_reference(seed, bound):
    truth = _scene(seed)
    prediction = np.roll(truth, (seed % 3, 2), axis=(0, 1))
    if seed % 2:
        prediction = _scene(seed + 100)
    radius = int(np.ceil(bound * 100)) if bound < 1 else bound  # the diagonal of 60x80 is 100
    assert contour_f_score(prediction, truth, bound) == pytest.approx(_reference(prediction, truth, radius), abs=1e-12)


def test_perfect_shifted_and_missing():
    truth = _scene(1)
    assert contour_f_score(truth, truth) == 1
    assert contour_f_score(np.roll(truth, 1, axis=1), truth) == pytest.approx(1, abs=0.01)
    assert contour_f_score(np.zeros_like(truth), truth) == 0
    assert np.isnan(contour_f_score(np.zeros_like(truth), np.zeros_like(truth)))


def test_a_class_that_fills_the_image_is_right_only_where_it_is():
    nothing, everything = np.zeros((40, 40), np.uint8), np.ones((40, 40), np.uint8)
    assert contour_f_score(everything, everything) == 1
    assert contour_f_score(everything, nothing) == 0
    assert contour_f_score(nothing, everything) == 0
    something = nothing.copy()
    something[10:20, 10:20] = 1
    assert contour_f_score(np.full_like(nothing, 2), something) == 0


def test_thin_ignored_border_is_bridged():
    truth = np.zeros((100, 100), np.uint8)
    truth[30:70, 30:70] = 1
    bordered = truth.copy()
    bordered[28:72, 28:72] = 255
    bordered[32:68, 32:68] = 1
    assert contour_f_score(truth, bordered) == pytest.approx(1, abs=0.02)


def test_deep_ignored_region_counts_nowhere():
    truth = np.zeros((100, 100), np.uint8)
    truth[10:30, 10:30] = 1
    truth[50:95, 50:95] = 255
    prediction = np.where(truth == 255, 0, truth).astype(np.uint8)
    prediction[65:80, 65:80] = 1
    assert contour_f_score(prediction, truth) == 1
    everywhere = np.full((9, 9), 255, np.uint8)
    assert np.isnan(contour_f_score(np.ones((9, 9), np.uint8), everywhere))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        contour_f_score(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="bound"):
        contour_f_score(np.zeros((2, 2)), np.zeros((2, 2)), 0)
