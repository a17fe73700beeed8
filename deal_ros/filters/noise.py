# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth as a stereo camera would have measured it: noisy, quantised, full of holes, and not quite registered."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class DepthNoiseConfig:
    """A model of active stereo cameras such as the RealSense D4xx, one field per effect, all off at 0.

    Effects are applied in the order of the fields. See :func:`realsense_like` for a preset with one dial.

    Args:
        misregistration_px: depth is moved against colour by this many pixels (sub-pixel moves take the nearest
            reading, so no depth is invented between object and background).
        misregistration_deg: the direction of that move, from x towards y, as a wrong calibration has it; ``None`` takes
            a random one for each frame.
        axial_sigma: standard deviation of depth noise at 1 m, as a fraction of a metre; it grows with z², as
            triangulation error does: σ = axial_sigma · z², axial_sigma = disparity noise / (focal length · baseline);
            0.0025 for a D435 at 640×480: 0.05 px / (385 px · 50 mm).
        correlation_px: the noise is smooth over about this many pixels, as block matching makes it; 0 is white noise.
        disparity_step: quantisation of 1/z, in 1/m; steps in depth are disparity_step · z². 0.0016 for a D435
            at 640×480: 1/32 px / (385 px · 50 mm).
        edge_holes: part of the pixels next to a depth step that lose their reading, [0, 1] (occlusion between imagers).
        edge_width_px: how far beside a step that happens.
        edge_step: relative depth step that counts, for example 0.03.
        missing: part of the readings that is lost in patches anywhere, [0, 1] (no texture, shine, black).
        patch_px: typical diameter of such a patch.
        speckle: part of the readings that is lost one by one, [0, 1].
        max_depth_m: readings beyond are lost; metres, 0 is no limit.

    Raises:
        ValueError: if a field is outside its range.
    """

    misregistration_px: float = 0.0
    misregistration_deg: float | None = None
    axial_sigma: float = 0.0
    correlation_px: float = 2.0
    disparity_step: float = 0.0
    edge_holes: float = 0.0
    edge_width_px: int = 3
    edge_step: float = 0.03
    missing: float = 0.0
    patch_px: float = 12.0
    speckle: float = 0.0
    max_depth_m: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("edge_holes", "missing", "speckle"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("misregistration_px", "axial_sigma", "correlation_px", "disparity_step", "max_depth_m"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if self.edge_width_px < 1 or not self.edge_step > 0 or not self.patch_px > 0:
            raise ValueError(
                "edge_width_px, edge_step and patch_px must be positive, got"
                f" {self.edge_width_px}, {self.edge_step} and {self.patch_px}"
            )


def realsense_like(strength: float = 1.0) -> DepthNoiseConfig:
    """Noise as of a RealSense D435 indoors at ``strength`` 1; 0 is none, 4 is a bad day.

    All amplitudes grow in proportion; shares of lost readings saturate below 0.9.

    Raises:
        ValueError: if ``strength`` is negative.

    Example:
        >>> realsense_like(2.0).axial_sigma
        0.005
    """
    if not 0 <= strength < float("inf"):
        raise ValueError(f"strength must be >= 0, got {strength}")
    return DepthNoiseConfig(
        misregistration_px=1.0 * strength,
        axial_sigma=0.0025 * strength,
        disparity_step=0.0016 * strength,
        edge_holes=min(0.9, 0.5 * strength),
        missing=min(0.9, 0.04 * strength),
        speckle=min(0.9, 0.005 * strength),
    )


def add_depth_noise(depth_m: FloatImage, config: DepthNoiseConfig, rng: np.random.Generator) -> FloatImage:
    """Degrade a depth image as ``config`` says. Readings get lost, never found: 0 stays 0.

    Args:
        depth_m: float32 (H, W), metres, 0 = no return.
        config: see :class:`DepthNoiseConfig`.
        rng: source of randomness; the same seed gives the same image.

    Returns:
        A new float32 (H, W) in metres, 0 where there is no return.

    Raises:
        ValueError: if ``depth_m`` is not float32 (H, W).

    Example:
        >>> depth = np.full((64, 64), 1.0, np.float32)
        >>> noisy = add_depth_noise(depth, DepthNoiseConfig(missing=0.3), np.random.default_rng(0))
        >>> round(float((noisy == 0).mean()), 1)
        0.3
    """
    if depth_m.dtype != np.float32 or depth_m.ndim != 2:
        raise ValueError(f"depth_m must be float32 (H, W) in metres, got {depth_m.dtype} {depth_m.shape}")
    depth = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0))
    if config.misregistration_px > 0:
        angle = rng.uniform(0, 2 * np.pi)  # drawn in any case: what follows does not depend on the choice
        if config.misregistration_deg is not None:
            angle = np.deg2rad(config.misregistration_deg)
        depth = _misregister(depth, config.misregistration_px, angle)
    steps = _near_steps(depth, config) if config.edge_holes > 0 else None
    if config.axial_sigma > 0:
        noise = _smooth_noise(depth.shape, config.correlation_px, rng)
        # A reading cannot come out behind the camera: at least a tenth of the true depth is kept.
        depth = np.maximum(depth + config.axial_sigma * depth * depth * noise, 0.1 * depth)
    if config.disparity_step > 0:
        depth = _quantize(depth, config.disparity_step)
    lost = np.zeros(depth.shape, bool)
    if steps is not None:
        lost |= steps & (_ranks(_smooth_noise(depth.shape, 1.0, rng)) < config.edge_holes)
    if config.missing > 0:
        lost |= _ranks(_smooth_noise(depth.shape, config.patch_px / 2, rng)) < config.missing
    if config.speckle > 0:
        lost |= rng.random(depth.shape) < config.speckle
    if config.max_depth_m > 0:
        lost |= depth > config.max_depth_m
    return np.where(lost, 0, depth).astype(np.float32)


def _misregister(depth: FloatImage, pixels: float, angle: float) -> FloatImage:
    move = np.array([[1, 0, pixels * np.cos(angle)], [0, 1, pixels * np.sin(angle)]])
    size = (depth.shape[1], depth.shape[0])
    moved = cv2.warpAffine(depth, move, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(moved, np.float32)


def _near_steps(depth: FloatImage, config: DepthNoiseConfig) -> NDArray[np.bool_]:
    """Pixels within ``edge_width_px`` of a relative depth step between neighbours that both have a reading."""
    step = np.zeros(depth.shape, np.uint8)
    for axis in (0, 1):
        near = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        far = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        one, other = depth[near], depth[far]
        closer = np.minimum(one, other)
        broken = (closer > 0) & (np.abs(one - other) > config.edge_step * closer)
        step[near] |= broken
        step[far] |= broken
    kernel = np.ones((2 * config.edge_width_px - 1,) * 2, np.uint8)
    return cv2.dilate(step, kernel).astype(bool)


def _smooth_noise(shape: tuple[int, int], correlation_px: float, rng: np.random.Generator) -> FloatImage:
    """Gaussian noise of unit variance whose values resemble each other over ``correlation_px``."""
    white = rng.standard_normal(shape, dtype=np.float32)
    if correlation_px <= 0:
        return white
    sigma = correlation_px / 2
    smooth = np.asarray(cv2.GaussianBlur(white, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)
    return smooth / np.float32(max(float(smooth.std()), 1e-12))


def _ranks(values: FloatImage) -> FloatImage:
    """Each value's rank among all, [0, 1): thresholding it at p selects exactly the share p."""
    order = np.empty(values.size, np.float32)
    order[np.argsort(values, axis=None, kind="stable")] = np.arange(values.size, dtype=np.float32) / values.size
    return order.reshape(values.shape)


def _quantize(depth: FloatImage, disparity_step: float) -> FloatImage:
    inverse = np.divide(1, depth, out=np.zeros(depth.shape), where=depth > 0)
    steps = np.maximum(np.round(inverse / max(disparity_step, 1e-12)), 1)
    return np.where(depth > 0, 1 / (steps * max(disparity_step, 1e-12)), 0).astype(np.float32)
