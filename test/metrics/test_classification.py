# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from deal_ros.metrics import average_precision, mean_average_precision


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans())
@settings(max_examples=60, deadline=None)
def test_matches_sklearn(seed, count, ties):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(count, 3))
    scores = np.round(scores) if ties else scores
    labels = rng.random((count, 3)) < 0.4
    labels[0] = True
    expected = [average_precision_score(labels[:, k], scores[:, k]) for k in range(3)]
    np.testing.assert_allclose(average_precision(scores, labels), expected, rtol=1e-12)
    assert mean_average_precision(scores, labels) == pytest.approx(np.mean(expected))


def test_class_without_a_positive_is_left_out():
    scores, labels = np.array([[0.9, 0.3], [0.1, 0.2]]), np.array([[1, 0], [0, 0]])
    assert np.isnan(average_precision(scores, labels)[1])
    assert mean_average_precision(scores, labels) == 1
    assert np.isnan(mean_average_precision(scores, np.zeros((2, 2))))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        average_precision(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        average_precision(np.array([[np.nan]]), np.array([[1]]))
