# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where a cell of a class map looks in the image, and how to make it look where it is drawn.

A stride-2 convolution on an even-sized map samples half a pixel beside the centre of the cell that its output is drawn
as. Networks trained with mirrored images learn kernels that make up for it. When the stride is then replaced by
dilation for a finer map, the sampling offset goes but what the kernels learned stays, and the map is displaced, by
(32 - output_stride)/2 pixels right and down after TensorFlow's SAME padding.

Measured on EfficientNet-Lite0 and 1: -1.3 px at stride 32, +6.8 at 16 (8 more, as predicted), +11.3 at 8 (12.6 more). A
network trained at a size that the strides do not divide has learned something else (Lite2, 260 px: -11, -0.5, +3.2), so
the displacement is measured, not assumed.

The cure keeps the network and moves its grid: the image is extended by a few pixels on all sides, and cells outside
are dropped. Nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

MEASURED_SHIFT_PX: dict[str, dict[int, int]] = {
    "tf_efficientnet_lite0": {8: 10, 16: 6, 32: -1},
    "tf_efficientnet_lite1": {8: 10, 16: 6, 32: -1},
    "tf_efficientnet_lite2": {8: 2, 16: 0, 32: -8},
}
"""Displacement right and down of the last maps by output stride, with ImageNet weights: the correction after which
:func:`mirror_shift_px` of photographs at 224 and 320 px is nearest to 0. What remains is at most 1 px at strides 16 and
32 and 3 px at stride 8, where it depends on the picture."""


def known_shift_px(backbone: str, output_stride: int) -> int:
    """Return the measured displacement, 0 for a network that nobody measured: see :func:`mirror_shift_px`."""
    return MEASURED_SHIFT_PX.get(backbone.split(".")[0], {}).get(output_stride, 0)


def fit(image: Tensor, multiple: int) -> Tensor:
    """Resize float (B, 3, H, W) so that both sides are multiples, at least one, of ``multiple`` pixels."""
    size = [max(1, round(side / multiple)) * multiple for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def leading_cells(stride: int, shift_px: int) -> int:
    """How many cells of an extended image's map lie before the image itself, in each direction."""
    return max(0, math.ceil(shift_px / stride))


def extend(image: Tensor, stride: int, shift_px: int) -> tuple[Tensor, int]:
    """Extend an image so that a map displaced by ``shift_px`` can be cut to where it belongs.

    Args:
        image: float (B, 3, H, W), sides multiples of ``stride``.
        stride: pixels per cell of the map.
        shift_px: how far right and down the network draws what it sees, in pixels; negative is left and up.

    Returns:
        The image, extended by repeating its border to sides that are multiples of ``stride``, and how many leading
        cells of its map to drop: ``map[..., n : n + H // stride, n : n + W // stride]``.
    """
    cells = leading_cells(stride, shift_px)
    if shift_px == 0:
        return image, cells
    before = cells * stride - shift_px
    after = shift_px if shift_px > 0 else -before % stride
    return F.pad(image, (before, after, before, after), mode="replicate"), cells


@torch.no_grad()
def mirror_shift_px(maps: Callable[[Tensor], Tensor], image: Tensor, *, search_cells: float = 1.5) -> float:
    """How far to the right ``maps`` draws what it sees, in pixels.

    Half the way from the mirrored map of the mirrored image to the map of the image.

    The displacement d maximises the correlation of map(x) moved by -d with mirror(map(mirror(x))) moved by +d, over all
    channels, without three cells at each side.

    Args:
        maps: image float (B, 3, H, W) → maps float (B, C, h, w).
        image: float (B, 3, H, W), photographs as the network expects them; a handful is enough.
        search_cells: largest displacement looked for, in cells of the map.

    Returns:
        Pixels; negative is to the left.
    """
    seen, mirrored = maps(image).float(), maps(image.flip(-1)).float().flip(-1)
    steps = torch.linspace(-search_cells, search_cells, 2 * round(search_cells * 8) + 1).tolist()
    fits = [_correlation(_moved(seen, -step), _moved(mirrored, step)) for step in steps]
    best = max(range(len(fits)), key=fits.__getitem__)
    peak = steps[best]
    if 0 < best < len(fits) - 1:
        left, middle, right = fits[best - 1 : best + 2]
        curvature = left - 2 * middle + right
        peak += (left - right) / (2 * curvature) * (steps[1] - steps[0]) if curvature < 0 else 0.0
    return peak * image.shape[-1] / seen.shape[-1]


def _moved(maps: Tensor, cells: float) -> Tensor:
    """Contents moved to the right by ``cells``, bicubic."""
    matrix = torch.tensor([[1.0, 0.0, -2 * cells / maps.shape[-1]], [0.0, 1.0, 0.0]], device=maps.device)
    grid = F.affine_grid(matrix.expand(len(maps), 2, 3), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def _correlation(a: Tensor, b: Tensor) -> float:
    margin = min(3, (a.shape[-1] - 1) // 3)
    a, b = (x[..., margin : x.shape[-1] - margin] for x in (a, b))
    a, b = (x - x.mean((2, 3), keepdim=True) for x in (a, b))
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp_min(1e-12))
