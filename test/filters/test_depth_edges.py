# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deal_ros.filters import (
    GATE_ZERO,
    PLANE_FREE,
    DepthEdgeConfig,
    DepthNoiseConfig,
    add_depth_noise,
    depth_edges,
    depth_edges_with_sides,
    nearer_side,
    realsense_like,
)
from deal_ros.filters.depth_edges import _FORMS

SOBEL_FORMS = ("metric", "log", "inverse", "relative")
PLANE_FREE_FORMS = ("lap", "stp")
H, W = 48, 64


def _fixed(form, **changes):
    return replace(DepthEdgeConfig(form=form, normalization="step"), **changes)


def tilted_plane(distance, tilt_x, tilt_y, height=H, width=W, focal=60.0):
    """Depth of a plane: 1/z is linear in the pixel coordinates."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    inverse = (1 + tilt_x * (x - width / 2) / focal + tilt_y * (y - height / 2) / focal) / distance
    return (1 / inverse)[None, None], float(inverse.min())


def box_on_wall(step=0.3):
    depth = torch.full((1, 1, H, W), 1.0)
    depth[..., 16:32, 20:44] = 1 - step
    return depth


@settings(deadline=None, max_examples=60)
@given(
    form=st.sampled_from(PLANE_FREE_FORMS),
    distance=st.floats(0.2, 8),
    tilt_x=st.floats(-1.2, 1.2),
    tilt_y=st.floats(-1.2, 1.2),
    size=st.sampled_from([None, (24, 32), (12, 16), (30, 50)]),
    resample=st.sampled_from(["area", "bicubic", "bilinear", "bicubic_antialias", "nearest"]),
)
def test_plane_free_forms_are_exactly_zero_on_any_tilted_plane(form, distance, tilt_x, tilt_y, size, resample):
    depth, nearest = tilted_plane(distance, tilt_x, tilt_y)
    assume(nearest > 0.15 / distance)  # in front of the camera, not further than about 6.7 times the distance
    edges, weight = depth_edges(depth, config=_fixed(form, resample=resample), size=size)
    assert float(edges.max()) == 0
    assert int((weight < 1).sum()) == (16 if form == "stp" else 4)  # corners, where no direction fits


def test_plane_compensated_form_is_zero_on_a_plane_where_sobel_forms_are_not():
    depth, _ = tilted_plane(1.0, 0.0, 0.9)
    inner = (..., slice(1, -1), slice(1, -1))
    assert float(depth_edges(depth, config=_fixed("plane"))[0][inner].max()) == 0
    for form in SOBEL_FORMS:
        assert float(depth_edges(depth, config=_fixed(form))[0][inner].max()) > GATE_ZERO, form


@pytest.mark.parametrize("form", [*SOBEL_FORMS, "plane", *PLANE_FREE_FORMS])
def test_every_form_sees_a_box_on_a_wall_and_nothing_else(form):
    edges, weight = depth_edges(box_on_wall(), config=_fixed(form))
    found = edges[0, 0] > GATE_ZERO
    outline = torch.zeros(H, W, dtype=torch.bool)
    outline[15:33, 19:45] = True
    outline[17:31, 21:43] = False
    assert not found[~outline].any()
    assert found[outline].float().mean() > 0.95
    assert int((weight < 1).sum()) == {"lap": 4, "stp": 16}.get(form, 0)


@pytest.mark.parametrize("form", PLANE_FREE_FORMS)
def test_box_on_a_tilted_table_is_seen_and_the_table_is_not(form):
    depth, _ = tilted_plane(1.0, 0.2, 0.8)
    depth[..., 16:32, 20:44] *= 0.85
    edges, _ = depth_edges(depth, config=_fixed(form))
    found = edges[0, 0] > GATE_ZERO
    assert found[15:33, 18:22].any(1).all()
    found[13:35, 17:47] = False
    assert not found.any()


def test_only_lap_sees_a_crease():
    y = torch.arange(float(H))
    inverse = 1 + 0.04 * (y - 24).clamp_min(0)  # wall meets floor
    depth = (1 / inverse)[None, None, :, None].expand(1, 1, H, W)
    lap, stp = (depth_edges(depth, config=_fixed(form))[0] for form in PLANE_FREE_FORMS)
    assert bool((lap[..., 24, :] > GATE_ZERO).all())
    assert float(stp.max()) == 0


@pytest.mark.parametrize("form", [*SOBEL_FORMS, "plane", *PLANE_FREE_FORMS])
@pytest.mark.parametrize("step", [0.02, 0.05])
def test_step_normalisation_puts_the_gate_at_the_named_step(form, step):
    """An ideal step of the named height answers step_level at its edge (relative to the nearer side's own unit)."""
    depth = torch.full((1, 1, 20, 20), 1.0)
    inverse_units = form in ("inverse", "plane", "lap", "stp")
    depth[..., 10:] = 1 / (1 - step) if inverse_units else 1 + step if form != "log" else math.exp(step)
    edges, _ = depth_edges(depth, config=_fixed(form, step=step))
    near_side = edges[0, 0, 10, 9]
    assert float(near_side) == pytest.approx(GATE_ZERO, rel=1e-3)


def test_scale_of_depth_does_not_matter_to_relative_forms():
    depth = box_on_wall(0.2)
    for form in ("log", "relative", "plane", "lap", "stp"):
        near, far = (depth_edges(depth * scale, config=_fixed(form))[0] for scale in (0.5, 4.0))
        torch.testing.assert_close(near, far, atol=2e-4, rtol=1e-3)


@settings(deadline=None, max_examples=60)
@given(
    form=st.sampled_from(sorted(_FORMS)),
    normalization=st.sampled_from(["minmax", "percentile", "step", "input_minmax"]),
    share=st.floats(0, 1),
    hole=st.sampled_from([0.0, math.nan, math.inf, -math.inf, -1.0]),
    seed=st.integers(0, 2**16),
    size=st.sampled_from([None, (24, 32), (11, 17), (50, 60)]),
    coverage=st.floats(0.05, 1),
)
def test_holes_never_become_edges(form, normalization, share, hole, seed, size, coverage):
    """A wall seen through any pattern of holes has no edge, and what lies in a hole makes no difference."""
    assume(not (normalization == "input_minmax" and form not in SOBEL_FORMS))
    lost = torch.rand(1, 1, H // 4, W // 4, generator=torch.Generator().manual_seed(seed)) < share
    lost = lost.repeat_interleave(4, 2).repeat_interleave(4, 3)
    depth = torch.full((1, 1, H, W), 1.3).masked_fill(lost, hole)
    config = DepthEdgeConfig(form=form, normalization=normalization, min_coverage=coverage, range_clamp=1.6)
    edges, weight = depth_edges(depth, config=config, size=size)
    assert torch.isfinite(edges).all()
    assert float(edges.max()) < 1e-3
    assert float(weight.min()) >= 0
    assert float(weight.max()) <= 1


@pytest.mark.parametrize("form", [*SOBEL_FORMS, "plane"])
def test_pixels_whose_kernel_touches_a_hole_have_no_weight(form):
    depth = box_on_wall()
    depth[..., 30, 30] = 0
    _, weight = depth_edges(depth, config=_fixed(form))
    assert int((weight == 0).sum()) == 9
    _, wider = depth_edges(depth, config=_fixed(form, dilation=2))
    assert int((wider == 0).sum()) == 49


@pytest.mark.parametrize("form", PLANE_FREE_FORMS)
def test_plane_free_forms_weigh_the_directions_that_miss_the_hole(form):
    depth = box_on_wall()
    depth[..., 30, 30] = 0
    _, weight = depth_edges(depth, config=_fixed(form))
    radius = 2 if form == "stp" else 1
    assert float(weight[..., 30, 30]) == 0
    assert int((weight == 0.75).sum()) == 8 * radius  # one of four directions lost, along each of eight rays
    assert int((weight == 0).sum()) == 1 + 4 * radius**2  # and the corners of the image
    assert int((weight == 1).sum()) == H * W - 1 - 8 * radius - 4 * radius**2
    _, wider = depth_edges(depth, config=_fixed(form, dilation=2))
    assert int((wider == 0).sum()) >= 25


@pytest.mark.parametrize("form", PLANE_FREE_FORMS)
def test_a_step_beside_a_hole_is_still_seen(form):
    """Occlusion holes lie along the very edges that matter: one pixel of measured depth on either side suffices."""
    depth = box_on_wall()
    depth[..., 16:32, 18:20] = 0  # the shadow left of the box
    size, config = (H // 4, W // 4), replace(PLANE_FREE, form=form)
    clean, _ = depth_edges(box_on_wall(), config=config, size=size)
    holed, weight = depth_edges(depth, config=config, size=size)
    seen = (holed > GATE_ZERO)[0, 0, 4:8, 3:6].any(1)
    assert torch.equal(seen, (clean > GATE_ZERO)[0, 0, 4:8, 3:6].any(1))
    assert float(weight.mean()) > 0.9


def test_fill_finds_the_step_that_a_hole_hides_and_its_nearer_side():
    """Cameras lose both sides of a step; the edge comes to lie in the middle of the hole."""
    depth, _ = tilted_plane(1.0, 0.0, 0.4)
    depth[..., 16:40, 24:] *= 0.8
    depth[..., 22:26] = 0
    blind = replace(PLANE_FREE, resample="nearest")
    rows, hole = slice(20, 36), slice(22, 26)
    assert float(depth_edges(depth, config=blind)[1][..., rows, hole].max()) == 0
    assert not nearer_side(depth, config=blind)[..., rows, hole].any()
    config = replace(blind, fill=2)
    edges, weight = depth_edges(depth, config=config)
    assert float(weight[..., rows, :].min()) == 1
    assert (edges[0, 0, rows] > GATE_ZERO).any(1).all()
    assert not (edges[0, 0, rows, :21] > GATE_ZERO).any()
    assert not (edges[0, 0, rows, 27:] > GATE_ZERO).any()
    side = nearer_side(depth, config=config)
    assert (side[0, 0, rows, 23:25] > 0.9).all()  # to the right


@pytest.mark.parametrize(
    "noise",
    [realsense_like(1), realsense_like(4), DepthNoiseConfig(missing=0.6)],
    ids=["realsense", "four times that", "60 % missing"],
)
def test_fill_finds_the_nearer_side_under_the_noise_of_a_camera(noise):
    """Boxes on a slanted table: what is known of sides on perfect depth is known on bad depth, and points there."""
    depth, _ = tilted_plane(1.0, 0.1, 0.5, height=240, width=320, focal=280.0)
    for top, left in ((40, 40), (60, 180), (140, 100), (150, 230)):
        depth[..., top : top + 50, left : left + 40] *= 0.85
    size, config = (60, 80), DepthEdgeConfig(form="lap", normalization="step", range_clamp=1.6)
    noisy = torch.from_numpy(add_depth_noise(depth[0, 0].numpy(), noise, np.random.default_rng(0)))[None]
    clean = nearer_side(depth, config=config, size=size)
    known = clean.any(1)
    around = torch.stack([clean.roll((y, x), (2, 3)) for y in (-1, 0, 1) for x in (-1, 0, 1)])

    def found(fill):
        """Share of the known cells beside which a side is found, and share of the sides there that point alike."""
        side = nearer_side(noisy, config=replace(config, fill=fill), size=size)
        met = F.max_pool2d(side.any(1).float(), 3, stride=1, padding=1) > 0
        alike = (around * side).sum(2).amax(0) > 0.5
        return float(met[known].float().mean()), float(alike[side.any(1) & around.any(2).any(0)].float().mean())

    assert found(0)[0] < 0.9
    assert found(2)[0] > 0.95
    assert found(2)[1] > 0.98


@settings(deadline=None, max_examples=40)
@given(tilt_x=st.floats(-1.2, 1.2), tilt_y=st.floats(-1.2, 1.2), share=st.floats(0, 0.7), seed=st.integers(0, 2**16))
def test_fill_continues_the_plane_that_things_stand_on(tilt_x, tilt_y, share, seed):
    depth, nearest = tilted_plane(1.0, tilt_x, tilt_y)
    assume(nearest > 0.15)
    lost = torch.rand(1, 1, H // 8, W // 8, generator=torch.Generator().manual_seed(seed)) < share
    lost = lost.repeat_interleave(8, 2).repeat_interleave(8, 3)
    config = DepthEdgeConfig(form="lap", normalization="step", fill=3)
    holed = depth.masked_fill(lost, 0)
    edges, weight = depth_edges(holed, config=config)
    assert float(edges.max()) < GATE_ZERO / 2
    assert not nearer_side(holed, config=config)[..., 1:-1, 1:-1].any()
    _, without = depth_edges(holed, config=replace(config, fill=0))
    assert (weight >= without).all()


def test_fill_does_nothing_where_there_is_no_hole_and_no_depth():
    depth = torch.cat([box_on_wall(), torch.zeros(1, 1, H, W)])
    config = replace(PLANE_FREE, fill=2)
    for size in (None, (24, 32)):
        for one, other in zip(
            depth_edges(depth, size=size, config=config), depth_edges(depth, size=size, config=PLANE_FREE), strict=True
        ):
            assert torch.equal(one, other)
        sides = [nearer_side(depth, size=size, config=c) for c in (config, PLANE_FREE)]
        assert torch.equal(*sides)


def test_an_image_without_depth_weighs_nothing_and_leaves_the_others_alone():
    depth = torch.cat([box_on_wall(), torch.zeros(1, 1, H, W)])
    for config in (PLANE_FREE, DepthEdgeConfig(), DepthEdgeConfig(normalization="percentile")):
        edges, weight = depth_edges(depth, config=config, size=(24, 32))
        assert float(weight[1].max()) == float(edges[1].max()) == 0
        alone, _ = depth_edges(depth[:1], config=config, size=(24, 32))
        torch.testing.assert_close(edges[:1], alone)


def test_extra_mask_and_depth_range_are_honoured():
    depth = box_on_wall()
    mask = torch.ones_like(depth, dtype=torch.bool)
    mask[..., :, 40:] = False
    _, weight = depth_edges(depth, mask, _fixed("log"))
    assert float(weight[..., 39:].max()) == 0
    assert float(weight[..., :39].min()) == 1
    _, weight = depth_edges(depth, config=_fixed("log", max_depth_m=0.9))
    assert float(weight[..., 17:31, 21:43].min()) == 1
    assert float(weight.sum()) == 14 * 22


def test_range_clamp_flattens_a_far_wall():
    depth = torch.full((1, 1, H, W), 1.0)
    depth[..., :10, :] = 4.0
    depth[..., :10, 30:] = 5.0  # a step between far things
    edges, _ = depth_edges(depth, config=_fixed("lap", range_clamp=1.6))
    assert float(edges[..., :8, :].max()) == 0
    assert float(depth_edges(depth, config=_fixed("lap"))[0][..., :8, :].max()) > GATE_ZERO


@pytest.mark.parametrize("form", ["relative", "plane", "lap", "stp"])
@pytest.mark.parametrize("offset", range(0, 16, 3))
def test_a_jump_of_twenty_times_is_an_edge_on_both_of_its_sides(form, offset):
    """Bicubic kernels undershoot: 1/z of the far side became negative, and its pixels said that nothing is there."""
    depth = torch.full((1, 1, 240, 320), 6.0)
    depth[..., 150 + offset :] = 0.3
    config = DepthEdgeConfig(form=form, normalization="step", resample="bicubic")
    edges, _ = depth_edges(depth, config=config, size=(15, 20))
    beside = (150 + offset) / 16  # its place in pixels of the small image
    assert bool((edges[0, 0, 2:-2, int(beside - 0.5) : int(beside - 0.5) + 2] > 0.9).all())


def test_percentile_is_less_sensitive_to_one_outlier_than_minmax():
    depth = box_on_wall(0.1)
    spiked = depth.clone()
    spiked[..., 2, 2] = 0.05
    quiet = (..., slice(8, None), slice(None))
    minmax = DepthEdgeConfig(form="log")
    assert depth_edges(depth, config=minmax)[0][quiet].max() > 0.9
    assert depth_edges(spiked, config=minmax)[0][quiet].max() < 0.1
    percentile = DepthEdgeConfig(form="log", normalization="percentile", percentile=98)
    assert depth_edges(spiked, config=percentile)[0][quiet].max() > 0.9


def test_input_minmax_is_the_sobel_magnitude_of_the_unit_depth():
    edges, _ = depth_edges(box_on_wall(), config=DepthEdgeConfig(form="metric", normalization="input_minmax"))
    assert float(edges[0, 0, 24, 19]) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 0.8])
def test_nearer_side_points_at_the_box_wherever_depth_jumps(tilt):
    depth, _ = tilted_plane(1.0, 0.0, tilt)
    box = torch.zeros_like(depth, dtype=torch.bool)
    box[..., 10:20, 12:24] = True
    depth = torch.where(box, depth * 0.8, depth)
    side = nearer_side(depth)
    known = side.any(1)[0]
    assert torch.allclose(side.norm(dim=1)[0][known], torch.ones(int(known.sum())), atol=1e-5)
    assert (side[0, 0, 12:18, 11] > 0.9).all()  # left of the box: to the right
    assert (side[0, 0, 12:18, 24] < -0.9).all()
    assert (side[0, 1, 9, 14:22] > 0.9).all()  # above it: downwards
    assert not known[13:17, 15:21].any()
    assert not known[:7].any()


def test_a_plane_a_crease_and_a_hole_have_no_nearer_side():
    depth, _ = tilted_plane(1.0, 0.3, 0.5)
    assert not nearer_side(depth).any()
    ridge = torch.linspace(-1, 1, W).abs().mul(0.1).add(1).repeat(H, 1)[None, None]
    assert not nearer_side(ridge).any()
    depth[..., 8:16, 8:16] = 0
    assert not nearer_side(depth).any()


@pytest.mark.parametrize("form", [*SOBEL_FORMS, "plane", *PLANE_FREE_FORMS])
def test_edges_with_sides_are_what_each_is_alone(form):
    depth = box_on_wall()
    depth[..., 20:30, 18:22] = 0
    config = _fixed(form, fill=1, range_clamp=1.6)
    edges, weight, side = depth_edges_with_sides(depth, config=config, size=(24, 32))
    assert torch.equal(edges, depth_edges(depth, config=config, size=(24, 32))[0])
    assert torch.equal(weight, depth_edges(depth, config=config, size=(24, 32))[1])
    assert torch.equal(side, nearer_side(depth, config=config, size=(24, 32)))
    assert side.any()


def test_three_dimensional_and_half_precision_depth_are_accepted():
    depth = box_on_wall()
    full = depth_edges(depth, config=PLANE_FREE)[0]
    assert torch.equal(depth_edges(depth[:, 0], config=PLANE_FREE)[0], full)
    assert depth_edges(depth.half(), config=PLANE_FREE)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "sobel"}, "form must be one of metric, log"),
        ({"normalization": "max"}, "normalization must be one of minmax"),
        ({"resample": "cubic"}, "resample must be one of nearest"),
        ({"percentile": 0}, r"percentile must be in \(0, 100\], got 0"),
        ({"step": 0}, "step and sobel_scale must be positive"),
        ({"step_level": 2}, "step_level must be in"),
        ({"range_clamp": 0.0}, "range_clamp must be positive or null"),
        ({"min_depth_m": 2, "max_depth_m": 1}, "0 <= min_depth_m < max_depth_m"),
        ({"min_coverage": 0}, "min_coverage must be in"),
        ({"dilation": -1}, "dilation and fill must be >= 0, got -1 and 0"),
        ({"fill": -1}, "dilation and fill must be >= 0, got 0 and -1"),
        ({"form": "lap", "normalization": "input_minmax"}, "needs a Sobel form"),
    ],
)
def test_config_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthEdgeConfig(**arguments)


def test_wrong_tensors_are_refused():
    with pytest.raises(ValueError, match=r"depth_m must be \(B, 1, H, W\) or \(B, H, W\), got \(4, 4\)"):
        depth_edges(torch.ones(4, 4))
    with pytest.raises(ValueError, match="divide millimetres by 1000"):
        depth_edges(torch.ones(1, 1, 4, 4, dtype=torch.int16))
    with pytest.raises(ValueError, match="valid must be bool"):
        depth_edges(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
