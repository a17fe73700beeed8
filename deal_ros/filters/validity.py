# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which depth pixels may be believed, and resampling that never mixes in those that may not."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

ResampleMode = Literal["nearest", "bilinear", "bicubic", "bicubic_antialias", "area"]

_UNTOUCHED = 1e-6
_LEAST_WEIGHT = 1e-2


def depth_validity(depth_m: Tensor, *, min_depth_m: float = 0.0, max_depth_m: float = math.inf) -> Tensor:
    """Mark the pixels that hold a measurement: finite, above ``min_depth_m`` and not above ``max_depth_m``.

    Args:
        depth_m: float tensor of any shape, metres; 0, negative, NaN and ±Inf mean "no return".
        min_depth_m: readings at or below this are invalid, metres, >= 0.
        max_depth_m: readings above this are invalid, metres.

    Returns:
        bool tensor of the same shape.

    Raises:
        ValueError: if ``depth_m`` is not floating point (convert millimetres to metres first) or the range is empty.

    Example:
        >>> depth_validity(torch.tensor([0.0, 0.7, float("nan"), float("inf"), -1.0])).tolist()
        [False, True, False, False, False]
    """
    if not depth_m.is_floating_point():
        raise ValueError(f"depth_m must be floating point metres, got {depth_m.dtype}; divide millimetres by 1000")
    if not 0 <= min_depth_m < max_depth_m:
        raise ValueError(f"the depth range must have 0 <= min < max, got {min_depth_m} to {max_depth_m} m")
    return torch.isfinite(depth_m) & (depth_m > min_depth_m) & (depth_m <= max_depth_m)


def erode_validity(valid: Tensor, radius: int) -> Tensor:
    """Keep only pixels whose whole (2·radius+1)² neighbourhood is valid; beyond the border counts as valid.

    This dilates the invalid mask by the kernel of an operator of that radius, so that no invalid reading
    takes part in any value that stays valid.

    Args:
        valid: bool (B, 1, H, W).
        radius: pixels, >= 0.

    Returns:
        bool (B, 1, H, W).
    """
    if radius == 0:
        return valid
    invalid = (~valid).float()
    return F.max_pool2d(invalid, 2 * radius + 1, stride=1, padding=radius) < 0.5


def masked_resize(
    values: Tensor,
    valid: Tensor,
    size: tuple[int, int],
    *,
    mode: ResampleMode = "bicubic",
    min_coverage: float = 0.5,
    keep_planes: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Resample with the invalid pixels masked out *before*, so that holes neither bleed nor overshoot.

    With the separable resampling matrices R and the mask V, coverage is ``(|R| V |R|ᵀ) / (|R| 1 |R|ᵀ)``, the share
    of the kernel's weight that lies on valid pixels. Where it is 1 the result is the plain resampling ``R x Rᵀ``;
    where it is lower, negative kernel lobes are dropped and the rest is normalised,
    ``(R⁺ (V ⊙ x) R⁺ᵀ) / (R⁺ V R⁺ᵀ)``; where it is below ``min_coverage`` the result is invalid.

    Args:
        values: float (B, 1, H, W); what stands in invalid pixels does not matter, NaN included.
        valid: bool (B, 1, H, W).
        size: output (height, width).
        mode: ``bicubic`` is what DEAL was published with (torch's, without antialiasing).
        min_coverage: in (0, 1]; 1 invalidates every output whose kernel touches an invalid pixel.
        keep_planes: correct the matrices so that linear images stay linear up to the border and at any ratio, where
            the modes themselves bend them (clamped taps, uneven boxes). Interior bicubic taps do not change.

    Returns:
        Resampled float (B, 1, h, w), 0 where invalid, and its bool validity (B, 1, h, w).

    Raises:
        ValueError: if shapes differ, ``mode`` is unknown or ``min_coverage`` is outside (0, 1].

    Example:
        >>> depth = torch.full((1, 1, 4, 4), 2.0)
        >>> depth[0, 0, 0, 0] = float("nan")
        >>> resized, valid = masked_resize(depth, torch.isfinite(depth), (2, 2), mode="area")
        >>> resized.flatten().tolist(), valid.flatten().tolist()
        ([2.0, 2.0, 2.0, 2.0], [True, True, True, True])
    """
    if values.ndim != 4 or values.shape[1] != 1 or values.shape != valid.shape:
        raise ValueError(
            f"values and valid must both be (B, 1, H, W), got {tuple(values.shape)} and {tuple(valid.shape)}"
        )
    if not 0 < min_coverage <= 1:
        raise ValueError(f"min_coverage must be in (0, 1], got {min_coverage}")
    values = values.masked_fill(~valid, 0)
    if tuple(values.shape[-2:]) == tuple(size):
        return values, valid
    rows = resampling_matrix(values.shape[-2], size[0], mode, keep_planes).to(values)  # (h, H)
    columns = resampling_matrix(values.shape[-1], size[1], mode, keep_planes).to(values)  # (w, W)
    plain = rows @ values @ columns.T
    if bool(valid.all()):
        return plain, torch.ones_like(plain, dtype=torch.bool)
    mask = valid.to(values)
    full = rows.abs().sum(1)[:, None] * columns.abs().sum(1)
    uncovered = (rows.abs() @ (1 - mask) @ columns.abs().T) / full
    rows, columns = rows.clamp_min(0), columns.clamp_min(0)
    weight = rows @ mask @ columns.T
    partial = (rows @ values @ columns.T) / weight.clamp_min(1e-12)
    resized = torch.where(uncovered < _UNTOUCHED, plain, partial)
    # Valid pixels under negative lobes only cannot carry a mean.
    kept = (uncovered <= 1 - min_coverage + _UNTOUCHED) & (weight > _LEAST_WEIGHT)
    return resized.masked_fill(~kept, 0), kept


def resampling_matrix(source: int, target: int, mode: ResampleMode, keep_planes: bool = False) -> Tensor:
    """One-dimensional resampling as a matrix, float64 (target, source), rows summing to 1; do not write to it.

    Raises:
        ValueError: if a length is not positive or ``mode`` is unknown.

    Example:
        >>> resampling_matrix(4, 2, "area").tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    if source < 1 or target < 1:
        raise ValueError(f"sizes must be positive, got {source} → {target}")
    return _resampling_matrix(source, target, mode, keep_planes)


@lru_cache(maxsize=64)
def _resampling_matrix(source: int, target: int, mode: str, keep_planes: bool) -> Tensor:
    with torch.no_grad():
        identity = torch.eye(source, dtype=torch.float64)[None]  # (1, channels = source, length = source)
        if mode == "area":
            matrix = F.adaptive_avg_pool1d(identity, target)[0]
        elif mode == "nearest":
            matrix = F.interpolate(identity, size=target, mode="nearest-exact")[0]
        elif mode in ("bilinear", "bicubic", "bicubic_antialias"):
            antialias = mode == "bicubic_antialias"
            kind = "bilinear" if mode == "bilinear" else "bicubic"
            matrix = F.interpolate(
                identity[:, :, None], size=(1, target), mode=kind, align_corners=False, antialias=antialias
            )[0, :, 0]
        else:
            raise ValueError(f"mode must be nearest, bilinear, bicubic, bicubic_antialias or area, got {mode!r}")
        matrix = matrix.T.contiguous()
        return _centred(matrix) if keep_planes and source > 1 else matrix


def _centred(matrix: Tensor) -> Tensor:
    """Shift each row's centre of mass to where its output pixel lies, by a multiple of a difference of two inputs."""
    target, source = matrix.shape
    places = torch.arange(source, dtype=matrix.dtype)
    wanted = (torch.arange(target, dtype=matrix.dtype) + 0.5) * source / target - 0.5
    error = wanted - matrix @ places
    error = error.where(error.abs() > 1e-9, 0)
    left = wanted.floor().long().clamp(0, source - 2)
    row = torch.arange(target)
    corrected = matrix.clone()
    corrected[row, left] -= error
    corrected[row, left + 1] += error
    return corrected
