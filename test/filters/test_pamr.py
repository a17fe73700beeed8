# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from deal_ros.filters import PamrConfig, pamr

SMALL = PamrConfig(iterations=3, dilations=(1, 2))


def _random(batch=1, channels=2, height=7, width=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64)
    rgb = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)
    depth = torch.rand(batch, 1, height, width, generator=generator, dtype=torch.float64) + 0.5
    return scores, rgb, depth


def reference(scores, rgb, depth, config):
    """The equation, pixel by pixel."""
    height, width = scores.shape[-2:]
    channels = [rgb[0, c].numpy() for c in range(3)]
    valids = [np.ones((height, width), bool)] * 3
    if depth is not None:
        plane = depth[0, 0].numpy()
        valid = np.isfinite(plane) & (plane > 0)
        channels.append(np.log(np.where(valid, plane, 1)))
        valids.append(valid)
    offsets = [(dy * d, dx * d) for d in config.dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    inside = lambda y, x: (min(max(y, 0), height - 1), min(max(x, 0), width - 1))  # noqa: E731
    alpha = np.zeros((height, width, len(offsets)))
    for y in range(height):
        for x in range(width):
            sums, counts = np.zeros(len(offsets)), np.zeros(len(offsets))
            for image, valid in zip(channels, valids):
                usable = np.array([valid[y, x] and valid[inside(y + dy, x + dx)] for dy, dx in offsets])
                values = np.array([image[inside(y + dy, x + dx)] for dy, dx in offsets])
                window = np.concatenate([values[usable], np.full(len(config.dilations), image[y, x])])
                sigma = max(window.std(ddof=1), 1e-8) if len(window) > 1 else 1e-8
                k = -np.abs(values - image[y, x]) / (1e-8 + config.temperature * sigma)
                sums += np.where(usable, k, 0)
                counts += usable
            k = sums / counts
            alpha[y, x] = np.exp(k - k.max()) / np.exp(k - k.max()).sum()
    maps = scores[0].numpy()
    for _ in range(config.iterations):
        new = np.zeros_like(maps)
        for y in range(height):
            for x in range(width):
                for n, (dy, dx) in enumerate(offsets):
                    yy, xx = inside(y + dy, x + dx)
                    new[:, y, x] += alpha[y, x, n] * maps[:, yy, xx]
        maps = new
    return torch.from_numpy(maps)[None]


@pytest.mark.parametrize("with_depth", [False, True])
def test_equals_the_equation_pixel_by_pixel(with_depth):
    scores, rgb, depth = _random()
    depth[..., 2:4, 3:6] = 0
    depth[..., 6, 8] = float("nan")
    depth = depth if with_depth else None
    torch.testing.assert_close(pamr(scores, rgb, depth, SMALL), reference(scores, rgb, depth, SMALL))


def test_weights_are_convex():
    scores, rgb, depth = _random(2, 3, 12, 14)
    ones = torch.ones_like(scores)
    torch.testing.assert_close(pamr(ones, rgb, depth), ones)
    refined = pamr(scores, rgb, depth)
    assert refined.amax() <= scores.amax()
    assert refined.amin() >= scores.amin()


def test_scores_stop_at_a_depth_edge_that_colour_does_not_show():
    rgb = torch.full((1, 3, 24, 24), 0.5)
    depth = torch.ones(1, 1, 24, 24)
    depth[..., 12:] = 1.5
    scores = torch.zeros(1, 1, 24, 24)
    scores[..., 6:18] = 1
    config = PamrConfig(dilations=(1, 2, 4))
    with_depth, without = pamr(scores, rgb, depth, config), pamr(scores, rgb, None, config)
    jump = lambda maps: float((maps[..., 11] - maps[..., 12]).abs().mean())  # noqa: E731
    scores_left = scores.clone()
    scores_left[..., 12:] = 0
    assert jump(pamr(scores_left, rgb, depth, config)) > 5 * jump(pamr(scores_left, rgb, None, config))
    assert with_depth.shape == without.shape


def test_use_depth_false_is_colour_alone():
    scores, rgb, depth = _random()
    config = PamrConfig(iterations=2, dilations=(1,), use_depth=False)
    assert torch.equal(pamr(scores, rgb, depth, config), pamr(scores, rgb, None, config))


def test_an_image_without_any_depth_is_refined_by_colour_alone():
    scores, rgb, depth = _random()
    torch.testing.assert_close(pamr(scores, rgb, torch.zeros_like(depth), SMALL), pamr(scores, rgb, None, SMALL))


def test_classes_and_images_do_not_mix():
    scores, rgb, depth = _random(2, 3)
    together = pamr(scores, rgb, depth, SMALL)
    for b in range(2):
        alone = pamr(scores[b : b + 1, 1:2], rgb[b : b + 1], depth[b : b + 1], SMALL)
        torch.testing.assert_close(together[b : b + 1, 1:2], alone)


def test_gradcheck_in_scores_and_colour():
    scores, rgb, depth = _random(height=4, width=5)
    depth[..., 1, 1] = 0
    config = PamrConfig(iterations=2, dilations=(1,), temperature=1.0)
    scores.requires_grad_()
    rgb.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, c: pamr(s, c, depth, config), (scores, rgb))


def test_mirrored_input_gives_the_mirrored_result():
    scores, rgb, depth = _random(1, 2, 20, 26)
    mirrored = pamr(scores.flip(-1), rgb.flip(-1), depth.flip(-1))
    torch.testing.assert_close(mirrored.flip(-1), pamr(scores, rgb, depth))


def test_bad_input_is_named():
    scores, rgb, depth = _random()
    with pytest.raises(ValueError, match="resize scores to the image first"):
        pamr(scores[..., 1:], rgb)
    with pytest.raises(ValueError, match="depth_m must be"):
        pamr(scores, rgb, depth[:, 0])
    with pytest.raises(ValueError, match="scores must be a floating tensor"):
        pamr(scores.long(), rgb)
    with pytest.raises(ValueError, match="must be positive"):
        PamrConfig(dilations=(0,))
