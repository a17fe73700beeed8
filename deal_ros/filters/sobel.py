# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sobel edge strength of maps, differentiable everywhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

UNIT_SLOPE = 1 / 8
"""Kernel factor that makes a ramp of slope 1 per pixel answer 1 (and an ideal unit step 1/2)."""

_MAGNITUDE_EPSILON = 1e-12


def sobel_gradients(maps: Tensor, *, scale: float = UNIT_SLOPE) -> tuple[Tensor, Tensor]:
    r"""Horizontal and vertical Sobel derivative with replicated borders.

    ``gx = scale · [1 2 1]ᵀ ⊗ [-1 0 1] * maps``, ``gy`` its transpose.

    Args:
        maps: float (B, C, H, W), finite.
        scale: factor of the integer kernel; 1 is the textbook kernel, 1/8 makes it a mean slope per pixel.

    Returns:
        ``gx`` (positive where the map grows to the right) and ``gy`` (downwards), each float (B, C, H, W).

    Raises:
        ValueError: if ``maps`` is not a floating (B, C, H, W) tensor.

    Example:
        >>> ramp = torch.arange(5.0).repeat(5, 1)[None, None]
        >>> gx, gy = sobel_gradients(ramp)
        >>> float(gx[0, 0, 2, 2]), float(gy[0, 0, 2, 2])
        (1.0, 0.0)
    """
    if maps.ndim != 4 or not maps.is_floating_point():
        raise ValueError(f"maps must be a floating tensor (B, C, H, W), got {maps.dtype} {tuple(maps.shape)}")
    batch, channels, height, width = maps.shape
    smooth = maps.new_tensor([1.0, 2.0, 1.0]) * scale
    difference = maps.new_tensor([-1.0, 0.0, 1.0])
    horizontal = torch.outer(smooth, difference)
    kernel = torch.stack([horizontal, horizontal.T])[:, None]  # (2, 1, 3, 3)
    planes = F.pad(maps.reshape(batch * channels, 1, height, width), (1, 1, 1, 1), mode="replicate")
    gradient = F.conv2d(planes, kernel).view(batch, channels, 2, height, width)
    return gradient[:, :, 0], gradient[:, :, 1]


def sobel_magnitude(maps: Tensor, *, scale: float = UNIT_SLOPE) -> Tensor:
    r"""Edge strength ``√(gx² + gy² + 10⁻¹²)``; the last term only keeps the gradient finite on flat parts.

    On a map in [0, 1] the result is at most ``√20 · scale`` (4.472 for the textbook kernel, 0.559 for 1/8).

    Args:
        maps: float (B, C, H, W), finite.
        scale: see :func:`sobel_gradients`.

    Returns:
        float (B, C, H, W), >= 1e-6.

    Raises:
        ValueError: if ``maps`` is not a floating (B, C, H, W) tensor.

    Example:
        >>> step = torch.zeros(1, 1, 4, 6)
        >>> step[..., 3:] = 1
        >>> [round(float(v), 3) for v in sobel_magnitude(step)[0, 0, 1]]
        [0.0, 0.0, 0.5, 0.5, 0.0, 0.0]
    """
    gx, gy = sobel_gradients(maps, scale=scale)
    return (gx.square() + gy.square() + _MAGNITUDE_EPSILON).sqrt()
