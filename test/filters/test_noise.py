# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deal_ros.filters import DepthNoiseConfig, add_depth_noise, realsense_like


def wall(depth=1.0, shape=(120, 160)):
    return np.full(shape, depth, np.float32)


def box(shape=(120, 160)):
    depth = wall(1.2, shape)
    depth[40:80, 50:110] = 0.9
    return depth


def rng(seed=0):
    return np.random.default_rng(seed)


def test_no_noise_is_the_identity_on_a_copy():
    depth = box()
    out = add_depth_noise(depth, realsense_like(0), rng())
    assert out is not depth
    np.testing.assert_array_equal(out, depth)


def test_same_seed_same_image_other_seed_other_image():
    one, again, other = (add_depth_noise(box(), realsense_like(), rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.5


@pytest.mark.parametrize("depth", [0.5, 1.0, 2.0, 4.0])
def test_axial_noise_grows_with_the_square_of_depth(depth):
    config = DepthNoiseConfig(axial_sigma=0.002)
    out = add_depth_noise(wall(depth), config, rng())
    assert float((out - depth).std()) == pytest.approx(0.002 * depth**2, rel=0.05)
    assert abs(float((out - depth).mean())) < 0.0005 * depth**2


def test_quantisation_steps_grow_with_the_square_of_depth():
    ramp = np.linspace(1, 4, 4000, dtype=np.float32)[None].repeat(2, 0)
    out = add_depth_noise(ramp, DepthNoiseConfig(disparity_step=0.002), rng())
    levels = np.unique(out[0])
    np.testing.assert_allclose(np.diff(levels), 0.002 * levels[1:] * levels[:-1], rtol=0.02)
    assert np.abs(out - ramp).max() <= 0.5 * 0.002 * 4**2 * 1.02


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("field", ["missing", "speckle"])
def test_named_share_goes_missing(field, share):
    out = add_depth_noise(wall(), DepthNoiseConfig(**{field: share}), rng())
    assert float((out == 0).mean()) == pytest.approx(share, abs=0.02)


def test_patches_are_larger_than_speckle():
    def neighbours_share_fate(config):
        lost = add_depth_noise(wall(), config, rng()) == 0
        return (lost[:, 1:] == lost[:, :-1]).mean()

    patches = neighbours_share_fate(DepthNoiseConfig(missing=0.5))
    speckle = neighbours_share_fate(DepthNoiseConfig(speckle=0.5))
    assert patches > 0.85
    assert speckle == pytest.approx(0.5, abs=0.03)


def test_edge_holes_lie_beside_steps_only():
    lost = add_depth_noise(box(), DepthNoiseConfig(edge_holes=0.8, edge_width_px=3), rng()) == 0
    near = np.zeros_like(lost)
    near[36:84, 46:114] = True
    near[44:76, 54:106] = False
    assert not lost[~near].any()
    assert lost.sum() > 500


def test_misregistration_moves_depth_by_the_named_distance():
    depth = wall(1.0)
    depth[60, 80] = 0.5
    out = add_depth_noise(depth, DepthNoiseConfig(misregistration_px=8), rng(1))
    (y, x), *_ = np.argwhere(out == 0.5)
    assert math.hypot(y - 60, x - 80) == pytest.approx(8, abs=0.8)
    assert set(np.unique(out)) <= {0.0, 0.5, np.float32(1.0)}
    for seed in (1, 2):
        config = DepthNoiseConfig(misregistration_px=8, misregistration_deg=90)
        assert add_depth_noise(depth, config, rng(seed))[68, 80] == 0.5


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    strength=st.floats(0, 8),
    holes=st.floats(0, 1),
    bad=st.sampled_from([0.0, np.nan, np.inf, -np.inf, -2.0]),
)
def test_result_is_always_a_valid_depth_image_and_holes_stay_holes(seed, strength, holes, bad):
    depth = box((40, 50))
    lost = rng(seed).random(depth.shape) < holes
    depth[lost] = bad
    config = realsense_like(strength)
    out = add_depth_noise(depth, config, rng(seed))
    assert out.dtype == np.float32
    assert out.shape == depth.shape
    assert np.isfinite(out).all()
    assert (out >= 0).all()
    if config.misregistration_px == 0:
        assert (out[lost] == 0).all()


def test_strengths_are_ordered():
    def error(strength):
        out = add_depth_noise(box(), realsense_like(strength), rng())
        return np.abs(out - box()).mean()

    errors = [error(strength) for strength in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert errors[0] == 0
    assert errors == sorted(errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"missing": 1.5}, r"missing must be in \[0, 1\], got 1.5"),
        ({"axial_sigma": -1}, "axial_sigma must be >= 0 and finite"),
        ({"edge_width_px": 0}, "must be positive"),
    ],
)
def test_config_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthNoiseConfig(**arguments)


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match=r"float32 \(H, W\) in metres, got uint16"):
        add_depth_noise(np.ones((4, 4), np.uint16), DepthNoiseConfig(), rng())
    with pytest.raises(ValueError, match="strength must be >= 0"):
        realsense_like(-1)
