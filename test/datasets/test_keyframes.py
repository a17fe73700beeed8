# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from deal_ros.datasets.keyframes import KeyframeConfig, KeyframeSelector
from deal_ros.sample import Sample

NOISE = np.random.default_rng(0)
SCENE = cv2.resize(NOISE.integers(0, 256, (40, 80, 3)).astype(np.uint8), (1280, 640), interpolation=cv2.INTER_CUBIC)


def view(shift: int = 0, time_s: float = 0.0, blur: int = 0, labels=frozenset({"milk"}), depth=1.0) -> Sample:
    """A 640 × 480 window on a wide scene, with sensor noise."""
    picture = SCENE[:480, shift : shift + 640].astype(np.int16)
    picture = np.clip(picture + NOISE.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    if blur:
        picture = cv2.blur(picture, (blur, 1))
    return Sample(picture, np.full((480, 640), depth, np.float32), labels, stamp_ns=round((10 + time_s) * 1e9))


def reasons(views, config=None):
    selector = KeyframeSelector(config or KeyframeConfig())
    found = []
    for sample in views:
        due = selector.due(sample.stamp_ns, sample.labels)
        decision = selector.decide(sample)
        assert due == (decision.reason != "too_soon")
        found.append((decision.accepted, decision.reason))
    return found


def test_time_view_and_labels_decide() -> None:
    views = [
        view(0, 0.0),
        view(60, 0.2),
        view(60, 0.6),
        view(60, 1.2),
        view(60, 1.3, labels=frozenset({"butter"})),
        view(120, 1.4, labels=frozenset({"butter"})),
        view(120, 9.0, labels=frozenset({"butter"})),
    ]
    assert reasons(views) == [
        (True, "first"),
        (False, "too_soon"),
        (True, "view_changed"),
        (False, "unchanged"),
        (True, "new_labels"),
        (False, "too_soon"),
        (True, "view_changed"),
    ]


def test_a_blurred_frame_is_passed_over_and_the_next_sharp_one_taken() -> None:
    views = [view(60 * k, k) for k in range(4)] + [view(300, 4, blur=31), view(310, 4.1)]
    assert reasons(views)[-2:] == [(False, "blurred"), (True, "view_changed")]


def test_a_lastingly_plain_scene_is_not_blurred_for_ever() -> None:
    views = [view(40 * k, k) for k in range(4)] + [view(200 + 40 * k, 4 + k, blur=31) for k in range(12)]
    assert reasons(views)[-1] == (True, "view_changed")


def test_frames_without_depth_are_passed_over() -> None:
    assert reasons([view(depth=0.0), view(time_s=0.1)]) == [(False, "no_depth"), (True, "first")]


def test_a_clock_set_back_does_not_stop_gathering() -> None:
    assert reasons([view(0, 100), view(60, 1)])[1] == (True, "view_changed")


def test_every_test_can_be_switched_off() -> None:
    off = KeyframeConfig(0, 0, 0, 0)
    assert all(accepted for accepted, _ in reasons([view(depth=0.0), view(), view(blur=31), view()], off))


@pytest.mark.parametrize("name", ["min_interval_s", "min_view_change", "min_sharpness", "min_depth"])
@pytest.mark.parametrize("value", [-1, float("nan"), 1e9])
def test_config_refuses(name, value) -> None:
    with pytest.raises(ValueError, match=name):
        KeyframeConfig(**{name: value})
