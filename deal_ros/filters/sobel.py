# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sobel edge strength of maps, differentiable everywhere."""

from __future__ import annotations

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
        >>> import torch
        >>> ramp = torch.arange(5.0).repeat(5, 1)[None, None]
        >>> gx, gy = sobel_gradients(ramp)
        >>> float(gx[0, 0, 2, 2]), float(gy[0, 0, 2, 2])
        (1.0, 0.0)
    """
    if maps.ndim != 4 or not maps.is_floating_point():
        raise ValueError(f"maps must be a floating tensor (B, C, H, W), got {maps.dtype} {tuple(maps.shape)}")
    # Two differences and their smoothing; on CPU the backward pass of a one-channel convolution is many times slower.
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[..., 2:] - padded[..., :-2]) * scale  # (B, C, H + 2, W)
    along_y = (padded[..., 2:, :] - padded[..., :-2, :]) * scale  # (B, C, H, W + 2)
    gx = along_x[..., :-2, :] + 2 * along_x[..., 1:-1, :] + along_x[..., 2:, :]
    gy = along_y[..., :-2] + 2 * along_y[..., 1:-1] + along_y[..., 2:]
    return gx, gy


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
        >>> import torch
        >>> step = torch.zeros(1, 1, 4, 6)
        >>> step[..., 3:] = 1
        >>> [round(float(v), 3) for v in sobel_magnitude(step)[0, 0, 1]]
        [0.0, 0.0, 0.5, 0.5, 0.0, 0.0]
    """
    return gradient_magnitude(*sobel_gradients(maps, scale=scale))


def gradient_magnitude(gx: Tensor, gy: Tensor) -> Tensor:
    """Edge strength of derivatives that are there already, see :func:`sobel_magnitude`; all of one shape."""
    return (gx.square() + gy.square() + _MAGNITUDE_EPSILON).sqrt()
