# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deal_ros.filters import depth_validity, erode_validity, masked_resize
from deal_ros.filters.validity import resampling_matrix

MODES = ("nearest", "bilinear", "bicubic", "bicubic_antialias", "area")


def _torch_resize(values, size, mode):
    if mode == "area":
        return F.interpolate(values, size, mode="area")
    if mode == "nearest":
        return F.interpolate(values, size, mode="nearest-exact")
    kind = mode.removesuffix("_antialias")
    return F.interpolate(values, size, mode=kind, align_corners=False, antialias=mode.endswith("antialias"))


def test_range_is_open_below_and_closed_above():
    depth = torch.tensor([0.1, 0.2, 3.0, 3.1, math.nan, math.inf, -math.inf])
    kept = depth_validity(depth, min_depth_m=0.1, max_depth_m=3.0)
    assert kept.tolist() == [False, True, True, False, False, False, False]


def test_millimetres_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="divide millimetres by 1000"):
        depth_validity(torch.tensor([700]))


def test_empty_range_is_refused():
    with pytest.raises(ValueError, match="0 <= min < max"):
        depth_validity(torch.ones(2), min_depth_m=2, max_depth_m=1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(5, 7), (24, 18), (12, 30)])
def test_equals_torch_where_everything_is_valid(mode, size):
    values = torch.rand(2, 1, 17, 23, generator=torch.Generator().manual_seed(0))
    resized, valid = masked_resize(values, torch.ones_like(values, dtype=torch.bool), size, mode=mode)
    assert valid.all()
    torch.testing.assert_close(resized, _torch_resize(values, size, mode), atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    share=st.floats(0, 1),
    mode=st.sampled_from(MODES),
    coverage=st.floats(0.05, 1),
    size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
)
def test_holes_never_bleed_or_overshoot(seed, share, mode, coverage, size):
    """A constant stays that constant wherever the result is valid, whatever stands in the holes."""
    rng = torch.Generator().manual_seed(seed)
    valid = torch.rand(1, 1, 13, 11, generator=rng) >= share
    values = torch.full((1, 1, 13, 11), 2.5).masked_fill(~valid, math.nan)
    resized, kept = masked_resize(values, valid, size, mode=mode, min_coverage=coverage)
    torch.testing.assert_close(resized[kept], torch.full_like(resized[kept], 2.5), atol=2e-5, rtol=0)
    assert (resized[~kept] == 0).all()


def test_full_coverage_keeps_only_what_no_invalid_pixel_touches():
    values = torch.rand(1, 1, 16, 16)
    valid = torch.ones_like(values, dtype=torch.bool)
    valid[..., 5, 9] = False
    resized, kept = masked_resize(values, valid, (8, 8), mode="bilinear", min_coverage=1.0)
    expected = _torch_resize((~valid).float(), (8, 8), "bilinear") == 0
    assert torch.equal(kept, expected)
    torch.testing.assert_close(resized[kept], _torch_resize(values, (8, 8), "bilinear")[kept])


def test_erosion_grows_holes_by_the_radius_and_not_from_the_border():
    valid = torch.ones(1, 1, 7, 7, dtype=torch.bool)
    valid[..., 3, 3] = False
    eroded = erode_validity(valid, 1)
    assert int((~eroded).sum()) == 9
    assert eroded[..., 0, :].all()
    assert erode_validity(valid, 0) is valid


@pytest.mark.parametrize("mode", MODES)
def test_matrix_rows_sum_to_one(mode):
    for keep_planes in (False, True):
        rows = resampling_matrix(31, 12, mode, keep_planes).sum(1)
        torch.testing.assert_close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("source", "target"), [(48, 30), (32, 16), (7, 19), (64, 64)])
def test_keep_planes_keeps_linear_images_linear_at_any_ratio(mode, source, target):
    ramp = torch.arange(source, dtype=torch.float64)
    wanted = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
    torch.testing.assert_close(resampling_matrix(source, target, mode, True) @ ramp, wanted)


def test_keep_planes_leaves_interior_bicubic_taps_alone():
    plain, kept = (resampling_matrix(40, 20, "bicubic", keep) for keep in (False, True))
    torch.testing.assert_close(plain[2:-2], kept[2:-2], rtol=0, atol=1e-7)


def test_bad_arguments_are_named():
    values, valid = torch.rand(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="mode must be nearest"):
        masked_resize(values, valid, (2, 2), mode="cubic")
    with pytest.raises(ValueError, match=r"min_coverage must be in \(0, 1\], got 0"):
        masked_resize(values, valid, (2, 2), min_coverage=0)
    with pytest.raises(ValueError, match=r"both be \(B, 1, H, W\)"):
        masked_resize(values, valid[0], (2, 2))
    with pytest.raises(ValueError, match="sizes must be positive"):
        resampling_matrix(0, 3, "area")
