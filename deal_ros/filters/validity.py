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
    # NaN fails every comparison.
    return (depth_m > min_depth_m) & (depth_m < math.inf if max_depth_m == math.inf else depth_m <= max_depth_m)


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


def masked_quantile(values: Tensor, valid: Tensor, q: float) -> Tensor:
    """Lower quantile over the valid pixels of each image, (B, 1, 1, 1); 1 where none is valid."""
    ordered = values.masked_fill(~valid, math.inf).flatten(1).sort(dim=1).values
    last = valid.flatten(1).sum(1, keepdim=True) - 1
    chosen = ordered.gather(1, (q * last).long().clamp_min(0))
    return chosen.masked_fill(last < 0, 1).view(-1, 1, 1, 1)


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
    source = (values.shape[-2], values.shape[-1])
    resample = MaskedResampler(source, size, mode, min_coverage, keep_planes)
    return resample(resample.select(values), resample.select(valid))


class MaskedResampler:
    """:func:`masked_resize` in two steps, so that work before it is only done on pixels that it will look at.

    A bicubic kernel without antialiasing reads 4 rows and columns per output: 60 of 240 rows for an output of 15.

    Args:
        source: (H, W) of what comes.
        target: (h, w) of what is wanted.
        mode, min_coverage, keep_planes: as in :func:`masked_resize`.

    Raises:
        ValueError: if ``mode`` is unknown or ``min_coverage`` is outside (0, 1].
    """

    def __init__(
        self,
        source: tuple[int, int],
        target: tuple[int, int],
        mode: ResampleMode = "bicubic",
        min_coverage: float = 0.5,
        keep_planes: bool = False,
    ) -> None:
        if not 0 < min_coverage <= 1:
            raise ValueError(f"min_coverage must be in (0, 1], got {min_coverage}")
        self._same = source == target
        self._max_uncovered = 1 - min_coverage + _UNTOUCHED
        self._axes = [_read_part(one, other, mode, keep_planes) for one, other in zip(source, target, strict=True)]

    def select(self, image: Tensor) -> Tensor:
        """Return the pixels of ``image`` (…, H, W) that matter, as an image; the same one if all do."""
        for dim, (used, _) in zip((-2, -1), self._axes):
            if len(used) < image.shape[dim]:
                image = image.index_select(dim, used.to(image.device))
        return image

    def __call__(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Resample what :meth:`select` returned of values and of validity, each (B, 1, ., .)."""
        if self._same:
            return values.masked_fill(~valid, 0), valid
        rows, columns = (matrix.to(values) for _, matrix in self._axes)
        if bool(valid.all()):
            plain = _separable(rows, values, columns)
            return plain, torch.ones_like(plain, dtype=torch.bool)
        values = values.masked_fill(~valid, 0)
        mask = valid.to(values)
        positive_rows, positive_columns = rows.clamp_min(0), columns.clamp_min(0)
        weight = _separable(positive_rows, mask, positive_columns)
        resized = _separable(positive_rows, values, positive_columns) / weight.clamp_min(1e-12)
        if bool((rows < 0).any()) or bool((columns < 0).any()):
            uncovered = _separable(rows.abs(), 1 - mask, columns.abs())
            uncovered /= rows.abs().sum(1)[:, None] * columns.abs().sum(1)
            resized = torch.where(uncovered < _UNTOUCHED, _separable(rows, values, columns), resized)
        else:
            uncovered = 1 - weight
        # Valid pixels under negative lobes only cannot carry a mean.
        kept = (uncovered <= self._max_uncovered) & (weight > _LEAST_WEIGHT)
        return resized.masked_fill(~kept, 0), kept


def _separable(rows: Tensor, image: Tensor, columns: Tensor) -> Tensor:
    return rows @ (image @ columns.T)


@lru_cache(maxsize=64)
def _read_part(source: int, target: int, mode: ResampleMode, keep_planes: bool) -> tuple[Tensor, Tensor]:
    """Return the indices of the inputs that a resampling reads, and its matrix restricted to them."""
    matrix = resampling_matrix(source, target, mode, keep_planes)
    used = matrix.ne(0).any(0).nonzero().flatten()
    return used, matrix[:, used].contiguous()


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
