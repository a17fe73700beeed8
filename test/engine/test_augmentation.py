# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Colour, depth and target must move together, and nothing may be mixed that has no mean."""

from dataclasses import replace

import numpy as np
import pytest

from deal_ros.engine.augmentation import (
    FILL_RGB,
    PLAIN,
    AugmentationConfig,
    Frame,
    augment,
    mirrored,
    resize_nearest,
    shrink,
    warp,
)


def coded_frame(height=60, width=80):
    """Every pixel's depth and target say where it was: depth is the column, target the row."""
    rows, columns = np.mgrid[0:height, 0:width]
    rgb = np.stack([rows * 2, columns * 2, np.full_like(rows, 50)], -1).astype(np.uint8)
    return Frame(rgb, columns.astype(np.float32) + 1, np.ones(1, np.float32), rows.astype(np.uint8))


def test_the_same_size_is_left_alone():
    frame = coded_frame()
    assert warp(frame, (60, 80)) is frame


@pytest.mark.parametrize(
    "move",
    [
        {"zoom": 2.0},
        {"zoom": 0.5, "fit": "contain"},
        {"flip": True, "zoom": 1.3, "shift": (0.7, -1.0)},
        {"angle_rad": 0.3},
        {"zoom": 1.6, "shift": (-1.0, 1.0)},
    ],
)
def test_colour_depth_and_target_stay_together(move):
    view = warp(coded_frame(), (60, 80), **move)
    inside = view.depth_m > 0
    inside[1:-1, 1:-1] &= inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
    inside[[0, -1]] = inside[:, [0, -1]] = False
    assert inside.sum() > 300
    # Colour is interpolated, depth and target are nearest: they may differ by half a pixel, two grey levels a pixel.
    assert np.abs(view.rgb[..., 1][inside] / 2 - (view.depth_m[inside] - 1)).max() <= 1.01
    assert np.abs(view.rgb[..., 0][inside] / 2 - view.target[inside]).max() <= 1.01


def test_outside_is_no_return_ignored_and_grey():
    view = warp(coded_frame(), (60, 80), zoom=0.5)
    corner = view.depth_m[0, 0], view.target[0, 0], tuple(view.rgb[0, 0])
    assert corner == (0.0, 255, FILL_RGB)
    assert view.depth_m[30, 40] > 0


def test_zoom_is_about_the_centre_and_shift_reaches_the_corners():
    frame = coded_frame()
    middle = warp(frame, (60, 80), zoom=2.0)
    assert middle.target[30, 40] == pytest.approx(30, abs=1)
    assert warp(frame, (60, 80), zoom=2.0, shift=(-1, -1)).target[0, 0] == 0
    assert warp(frame, (60, 80), zoom=2.0, shift=(1, 1)).target[-1, -1] == 59
    assert (warp(frame, (60, 80), zoom=2.0, shift=(1, 1)).depth_m > 0).all()


def test_cover_crops_and_contain_pads_another_shape():
    frame = coded_frame(60, 80)
    assert (warp(frame, (40, 40), fit="cover").depth_m > 0).all()
    padded = warp(frame, (40, 40), fit="contain")
    assert (padded.depth_m[20] > 0).all()
    assert padded.depth_m[0].max() == 0


def test_no_depth_and_no_id_is_invented():
    frame = coded_frame()
    two = replace(frame, depth_m=np.where(frame.depth_m < 40, 1.0, 3.0).astype(np.float32))
    view = warp(two, (50, 70), zoom=1.37, angle_rad=0.2)
    assert set(np.unique(view.depth_m)) <= {0.0, 1.0, 3.0}


def test_a_flip_is_a_mirror():
    frame = coded_frame()
    flipped = warp(frame, (60, 80), flip=True)
    assert (flipped.rgb == frame.rgb[:, ::-1]).all()
    assert (mirrored(frame).depth_m == frame.depth_m[:, ::-1]).all()
    np.testing.assert_array_equal(warp(frame, (60, 80), flip=True, zoom=1.0001).target, flipped.target)


def test_shrinking_keeps_pixel_centres():
    frame = coded_frame(60, 80)
    small = shrink(frame, (15, 20))
    assert small.rgb.shape == (15, 20, 3)
    assert small.target[0, 0] in (1, 2)  # the middle of rows 0..3
    assert resize_nearest(np.arange(8)[None], (1, 4)).tolist() == [[1, 3, 5, 7]]
    assert shrink(frame, (100, 100)) is frame


def test_views_depend_on_the_generator_alone():
    config = AugmentationConfig(rotate_deg=10, hue_deg=20, erase=1.0)
    views = [augment(coded_frame(), (32, 48), config, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert (views[0].rgb == views[1].rgb).all()
    assert not (views[0].rgb == views[2].rgb).all()
    assert views[0].rgb.dtype == np.uint8


def test_plain_changes_no_colour():
    frame = coded_frame()
    assert (augment(frame, (60, 80), PLAIN, np.random.default_rng(0)).rgb == frame.rgb).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"zoom": (1.2, 0.8)}, "zoom must be"), ({"erase": 2}, "erase must be"), ({"erase_area": (0.5, 0.1)}, "area")],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**change)
