# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where depth breaks: seven readings of a depth image as an edge map in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from deal_ros.filters.holes import fill_holes
from deal_ros.filters.sobel import sobel_gradients, sobel_magnitude
from deal_ros.filters.validity import (
    MaskedResampler,
    ResampleMode,
    depth_validity,
    erode_validity,
    masked_quantile,
)

DepthForm = Literal["metric", "log", "inverse", "relative", "plane", "lap", "stp"]
EdgeNormalization = Literal["minmax", "percentile", "step", "input_minmax"]

GATE_ZERO = 1 / (1 + math.exp(2.5))
"""Edge activation at which DEAL's gate with the published μ = 2.5 changes sign, 0.0759."""

_PLANAR = ("plane", "lap", "stp")  # forms of 1/z, which is linear on planes
_STEP_KERNEL = 1 / 4  # an ideal unit step answers 1
_ROUNDING = 1e-5  # relative depth; planes in float32 stay below it and become exactly 0
_LEAST_SHARE = 0.1  # of the smallest measured value: a bicubic kernel undershoots it, at a jump of ten times below 0
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


@dataclass(frozen=True)
class DepthEdgeConfig:
    """How depth becomes edges. The paper names Sobel magnitudes in [0, 1]; all else is unknown and a field here.

    Args:
        form: what is differentiated, z being depth in metres and q = 1/z, which is linear on every plane.
            ``metric`` |∇z|, ``log`` |∇ ln z|, ``inverse`` |∇q|, ``relative`` |∇z|/z: Sobel magnitudes.
            ``plane`` z·min(|∇q|, |∇q − median ∇q|): without the dominant plane of the image.
            ``lap`` z·max over 4 directions |q₋ − 2q₀ + q₊|: zero on every plane; steps and creases.
            ``stp`` z·max over 4 directions (|q₊ − q₋| − 2·max(|q₋ − q₋₋|, |q₊₊ − q₊|))⁺: zero on every plane; only
            steps.
        normalization: ``minmax`` and ``percentile`` scale each image's edges by its own strongest; ``step`` by the
            fixed ``step``, the same for every image; ``input_minmax`` scales the depth form to [0, 1] and takes its
            Sobel magnitude with ``sobel_scale`` as it is (Sobel forms only).
        percentile: of the edges of one image, (0, 100]; less sensitive to one outlier than the maximum.
        step: edge response at which the result is ``step_level``; in metres for ``metric``, 1/m for ``inverse``,
            else as a fraction of depth: 0.02 is a step of 2 % of the distance.
        step_level: result at ``step``; the default is where DEAL's gate changes sign.
        sobel_scale: kernel factor under ``input_minmax``.
        range_clamp: depth beyond this multiple of the image's median is set to it, so that a far wall does not
            drown the objects; ``None`` leaves depth as it is.
        min_depth_m: readings at or below are invalid, metres.
        max_depth_m: readings above are invalid, metres.
        resample: how depth is brought to the edge map's size; ``bicubic`` as published.
        min_coverage: see :func:`~deal_ros.filters.validity.masked_resize`.
        fill: pixels of the edge map by which what is measured grows into holes, from all sides, before edges are
            taken; 0 leaves holes alone. Cameras lose depth beside the very steps that matter, and a step that is a
            few pixels off is worth more than none.
        dilation: pixels by which invalid regions grow beyond the edge kernel itself.

    Raises:
        ValueError: if a field is outside its range.
    """

    form: DepthForm = "inverse"
    normalization: EdgeNormalization = "minmax"
    percentile: float = 99.0
    step: float = 0.02
    step_level: float = GATE_ZERO
    sobel_scale: float = 1 / 8
    range_clamp: float | None = None
    min_depth_m: float = 0.0
    max_depth_m: float = math.inf
    resample: ResampleMode = "bicubic"
    min_coverage: float = 0.5
    fill: int = 0
    dilation: int = 0

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        _choice("form", self.form, get_args(DepthForm))
        _choice("normalization", self.normalization, get_args(EdgeNormalization))
        _choice("resample", self.resample, get_args(ResampleMode))
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile must be in (0, 100], got {self.percentile}")
        if not (self.step > 0 and self.sobel_scale > 0):
            raise ValueError(f"step and sobel_scale must be positive, got {self.step} and {self.sobel_scale}")
        if not 0 < self.step_level <= 1:
            raise ValueError(f"step_level must be in (0, 1], got {self.step_level}")
        if self.range_clamp is not None and not self.range_clamp > 0:
            raise ValueError(f"range_clamp must be positive or null, got {self.range_clamp}")
        if not 0 <= self.min_depth_m < self.max_depth_m:
            raise ValueError(
                f"depth range must have 0 <= min_depth_m < max_depth_m, got {self.min_depth_m} to {self.max_depth_m}"
            )
        if not 0 < self.min_coverage <= 1:
            raise ValueError(f"min_coverage must be in (0, 1], got {self.min_coverage}")
        if self.dilation < 0 or self.fill < 0:
            raise ValueError(f"dilation and fill must be >= 0, got {self.dilation} and {self.fill}")
        if self.normalization == "input_minmax" and self.form in _PLANAR:
            raise ValueError(
                f"normalization input_minmax needs a Sobel form (metric, log, inverse, relative), got {self.form}"
            )


PLANE_FREE = DepthEdgeConfig(form="lap", normalization="step", range_clamp=1.6, resample="area", min_coverage=0.25)
"""Blind to tables, floors and walls, equally strict in every image, and steady under noise and holes."""


@torch.no_grad()
def depth_edges(
    depth_m: Tensor,
    valid: Tensor | None = None,
    config: DepthEdgeConfig = DepthEdgeConfig(),
    *,
    size: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Depth image → edge map in [0, 1] and the weight with which each of its pixels may be used.

    The depth form is taken first and resampled then, so that planes stay planes. Invalid pixels are masked before
    resampling, and no response is ever taken across one: a hole is never an edge, unless ``fill`` has closed it and its
    sides differ. A pixel has weight 0 where its edge kernel touches an invalid one; ``lap`` and ``stp`` judge by the
    directions that do not, and weigh their share.

    Args:
        depth_m: float (B, 1, H, W) or (B, H, W), metres; 0, negative, NaN and ±Inf are invalid. Relative depth of a
            monocular estimator is welcome with the Sobel forms; its unit cancels under ``minmax`` and ``percentile``.
        valid: bool like ``depth_m``, further pixels to leave out where False; optional.
        config: see :class:`DepthEdgeConfig`.
        size: (h, w) of the result; the size of ``depth_m`` by default.

    Returns:
        ``edges`` float (B, 1, h, w) in [0, 1] and ``weight`` float (B, 1, h, w) in [0, 1], 0 where nothing is known.

    Raises:
        ValueError: if shapes do not fit or depth is not floating point.

    Example:
        >>> depth = torch.full((1, 1, 32, 32), 1.0)
        >>> depth[..., 16:] = 1.5
        >>> edges, weight = depth_edges(depth, config=PLANE_FREE)
        >>> int((edges > GATE_ZERO).sum()), int((weight < 1).sum())  # no line of three pixels is centred on a corner
        (64, 4)
    """
    return _edges(*_prepared(depth_m, valid, config, size), config)


@torch.no_grad()
def depth_edges_with_sides(
    depth_m: Tensor,
    valid: Tensor | None = None,
    config: DepthEdgeConfig = PLANE_FREE,
    *,
    size: tuple[int, int] | None = None,
    step: float = 0.04,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`depth_edges` and :func:`nearer_side` of one image; forms of 1/z are prepared once for both.

    Returns:
        ``edges``, ``weight`` and the nearer side.
    """
    values, known = _prepared(depth_m, valid, config, size)
    if config.form in _PLANAR:
        return *_edges(values, known, config), _sides(values, known, step)
    return *_edges(values, known, config), nearer_side(depth_m, valid, config, size=size, step=step)


def _edges(values: Tensor, valid: Tensor, config: DepthEdgeConfig) -> tuple[Tensor, Tensor]:
    form = _FORMS[config.form]
    if config.normalization == "input_minmax":
        usable = erode_validity(valid, 1).to(values)
        edges = sobel_magnitude(_unit_range(values, valid), scale=config.sobel_scale).clamp_(0, 1)
    else:
        response, usable = form.respond(values, valid)
        edges = _normalize(response, usable > 0, config)
    return edges.masked_fill(usable == 0, 0), usable


@torch.no_grad()
def nearer_side(
    depth_m: Tensor,
    valid: Tensor | None = None,
    config: DepthEdgeConfig = PLANE_FREE,
    *,
    size: tuple[int, int] | None = None,
    step: float = 0.04,
) -> Tensor:
    r"""Where depth jumps, the direction towards the nearer surface: the one that the edge belongs to.

    The direction of ``∇q − median ∇q`` with q = 1/z, where ``z·min(|∇q|, |∇q − median ∇q|)`` (the form ``plane``)
    exceeds ``step``. Contacts and creases have no step and no direction.

    Args:
        depth_m: as in :func:`depth_edges`.
        valid: as in :func:`depth_edges`.
        config: range, resampling and hole handling; its form and normalisation are not used.
        size: (h, w) of the result; the size of ``depth_m`` by default.
        step: jump from which on the nearer side is taken for certain, as a fraction of depth.

    Returns:
        float (B, 2, h, w), unit vectors (x to the right, y downwards), 0 where there is no certain jump.

    Raises:
        ValueError: as :func:`depth_edges`.

    Example:
        >>> depth = torch.full((1, 1, 32, 32), 1.0)
        >>> depth[..., 16:] = 0.8
        >>> nearer_side(depth)[0, :, 10, 15].tolist()
        [1.0, 0.0]
    """
    return _sides(*_prepared(depth_m, valid, replace(config, form="plane", normalization="step"), size), step)


def _sides(inverse: Tensor, valid: Tensor, step: float) -> Tensor:
    (gx, gy), (rx, ry), usable = _plane_gradients(inverse, valid)
    length = torch.hypot(rx, ry)
    certain = usable & (torch.minimum(torch.hypot(gx, gy), length) > step * inverse)
    return torch.cat([rx, ry], dim=1) * (certain / length.clamp_min(1e-12))


def _prepared(
    depth_m: Tensor, valid: Tensor | None, config: DepthEdgeConfig, size: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Return the depth form at the size of the result, 1 where it is unknown, and where it is known."""
    depth_m, valid = _check(depth_m, valid)
    source = (depth_m.shape[-2], depth_m.shape[-1])
    planar = config.form in _PLANAR
    resample = MaskedResampler(source, size or source, config.resample, config.min_coverage, keep_planes=planar)
    depth, kept = _measured(resample.select(depth_m), None if valid is None else resample.select(valid), config)
    if config.range_clamp is not None:
        depth = torch.minimum(depth, config.range_clamp * _coarse_median(depth_m, valid, config))
    prepared = _FORMS[config.form].prepare(depth)
    values, valid = resample(prepared, kept)
    if config.resample.startswith("bicubic") and config.form != "log":
        least = _LEAST_SHARE * prepared.masked_fill(~kept, math.inf).amin((-2, -1), keepdim=True)
        values = torch.where(valid, torch.maximum(values, least), values)
    if config.fill and not bool(valid.all()):
        values, valid = fill_holes(values, valid, config.fill)
    valid = erode_validity(valid, config.dilation)
    return values.masked_fill(~valid, 1), valid  # any positive number: nothing that it takes part in is used


@dataclass(frozen=True)
class _Form:
    """One reading of depth: what is resampled, and how strongly it breaks at each pixel and how surely."""

    prepare: Callable[[Tensor], Tensor]
    respond: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _sobel(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    return sobel_magnitude(values, scale=_STEP_KERNEL), erode_validity(valid, 1).to(values)


def _sobel_relative(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    magnitude, usable = _sobel(values, valid)
    return magnitude / values, usable


def _plane_compensated(inverse: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    gradient, rest, usable = _plane_gradients(inverse, valid)
    magnitude = torch.minimum(torch.hypot(*gradient), torch.hypot(*rest))
    return _floor_rounding(magnitude / inverse), usable.to(inverse)


def _plane_gradients(inverse: Tensor, valid: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """∇q, what the median gradient of the image leaves of it, and where both are known."""
    usable = erode_validity(valid, 1)
    gx, gy = sobel_gradients(inverse, scale=_STEP_KERNEL)
    return (gx, gy), (gx - _median(gx, usable), gy - _median(gy, usable)), usable


def _laplacian(inverse: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    return _strongest_direction(inverse, valid, 1, lambda before, here, after: (before - 2 * here + after).abs())


def _step(inverse: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    def beyond_slopes(before2: Tensor, before: Tensor, here: Tensor, after: Tensor, after2: Tensor) -> Tensor:
        slope = torch.maximum((before - before2).abs(), (after2 - after).abs())
        return (after - before).abs() - 2 * slope

    return _strongest_direction(inverse, valid, 2, beyond_slopes)


def _strongest_direction(
    inverse: Tensor, valid: Tensor, radius: int, measure: Callable[..., Tensor]
) -> tuple[Tensor, Tensor]:
    """Largest answer over the directions of which every tap is measured, and the share of such directions."""
    response, measured, existing = (torch.zeros_like(inverse) for _ in range(3))
    for dy, dx in _DIRECTIONS:
        complete = torch.stack(_taps(valid, dy, dx, radius)).all(0)
        answer = measure(*_taps(inverse, dy, dx, radius)).masked_fill_(~complete, 0)
        strongest = _inside(response, dy, dx, radius)
        torch.maximum(strongest, answer, out=strongest)
        _inside(measured, dy, dx, radius).add_(complete)
        _inside(existing, dy, dx, radius).add_(1)
    return _floor_rounding(response / inverse), measured / existing.clamp_min_(1)


_FORMS: dict[str, _Form] = {
    "metric": _Form(lambda z: z, _sobel),
    "log": _Form(torch.log, _sobel),
    "inverse": _Form(torch.reciprocal, _sobel),
    "relative": _Form(lambda z: z, _sobel_relative),
    "plane": _Form(torch.reciprocal, _plane_compensated),
    "lap": _Form(torch.reciprocal, _laplacian),
    "stp": _Form(torch.reciprocal, _step),
}


def _normalize(response: Tensor, usable: Tensor, config: DepthEdgeConfig) -> Tensor:
    if config.normalization == "step":
        return (response * (config.step_level / config.step)).clamp_(0, 1)
    if config.normalization == "minmax":
        return _unit_range(response, usable)
    strongest = masked_quantile(response, usable, config.percentile / 100)
    return torch.where(strongest > _ROUNDING, response / strongest.clamp_min(_ROUNDING), 0).clamp_(0, 1)


def _unit_range(values: Tensor, valid: Tensor) -> Tensor:
    """Scale the valid pixels of each image to [0, 1]; an image that is flat up to rounding becomes 0."""
    lowest = values.masked_fill(~valid, math.inf).amin((-2, -1), keepdim=True)
    highest = values.masked_fill(~valid, -math.inf).amax((-2, -1), keepdim=True)
    spread = highest - lowest  # -inf where no pixel is valid
    scaled = (values - lowest) / spread.clamp_min(_ROUNDING)
    return torch.where(spread > _ROUNDING, scaled, 0).clamp_(0, 1)


def _taps(values: Tensor, dy: int, dx: int, radius: int) -> list[Tensor]:
    """Return views of ``values`` at -radius..radius steps of (dy, dx), over the pixels for which all of them exist."""
    return [_inside(values, dy, dx, radius, step) for step in range(-radius, radius + 1)]


def _inside(values: Tensor, dy: int, dx: int, radius: int, step: int = 0) -> Tensor:
    height, width = values.shape[-2:]
    margin_y, margin_x = radius * abs(dy), radius * abs(dx)
    top, left = margin_y + step * dy, margin_x + step * dx
    return values[..., top : top + max(0, height - 2 * margin_y), left : left + max(0, width - 2 * margin_x)]


def _floor_rounding(response: Tensor) -> Tensor:
    return response.masked_fill(response <= _ROUNDING, 0)


def _median(values: Tensor, valid: Tensor) -> Tensor:
    return masked_quantile(values, valid, 0.5)


def _measured(depth: Tensor, valid: Tensor | None, config: DepthEdgeConfig) -> tuple[Tensor, Tensor]:
    """Depth with 1 m in place of what is no measurement, and where it is one."""
    kept = depth_validity(depth, min_depth_m=config.min_depth_m, max_depth_m=config.max_depth_m)
    if valid is not None:
        kept &= valid
    return depth.masked_fill(~kept, 1), kept


def _coarse_median(depth: Tensor, valid: Tensor | None, config: DepthEdgeConfig, samples: int = 32) -> Tensor:
    """Median depth of each image from a grid of ``samples``² pixels or somewhat more, (B, 1, 1, 1)."""
    down, right = (max(1, length // samples) for length in depth.shape[-2:])
    seen = None if valid is None else valid[..., ::down, ::right]
    return _median(*_measured(depth[..., ::down, ::right], seen, config))


def _check(depth_m: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if depth_m.ndim == 3:
        depth_m = depth_m[:, None]
        valid = valid[:, None] if valid is not None and valid.ndim == 3 else valid
    if depth_m.ndim != 4 or depth_m.shape[1] != 1:
        raise ValueError(f"depth_m must be (B, 1, H, W) or (B, H, W), got {tuple(depth_m.shape)}")
    if not depth_m.is_floating_point():
        raise ValueError(f"depth_m must be floating point metres, got {depth_m.dtype}; divide millimetres by 1000")
    if depth_m.dtype in (torch.float16, torch.bfloat16):
        depth_m = depth_m.float()
    if valid is not None and (valid.dtype != torch.bool or valid.shape != depth_m.shape):
        raise ValueError(
            f"valid must be bool {tuple(depth_m.shape)}, the shape of depth_m, got {valid.dtype} {tuple(valid.shape)}"
        )
    return depth_m, valid
