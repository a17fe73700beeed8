# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""FSL, the feature similarity loss: pixels that look alike belong together, pixels that do not may part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.losses.checks import check_maps
from deal_ros.losses.deal import edge_gate
from deal_ros.losses.max_norm import max_norm, with_background


@dataclass(frozen=True)
class FeatureSimilarityConfig:
    """Constants of FSL; the defaults are the published ones (arvijj/hfpl, train_cam_voc.py).

    Args:
        mu: μ of the gate on colour difference; its zero lies at a difference of 0.076.
        sigma: standard deviation of the spatial Gaussian, cells of the class map.
        form: ``windowed`` visits neighbours up to ``window_sigmas``·σ away, in memory linear in pixels; ``dense`` is
            the published sum over all pairs, in memory quadratic in pixels. Equal to tolerance.
        window_sigmas: half width of the square window; 3 leaves out 0.5 % of the Gaussian's mass, 4 less than 0.02 %.
        rgb_resample: how the image is brought to the maps' size; ``bilinear`` (aligned corners) as published, ``area``
            averages and is steadier where the image is much larger.

    Raises:
        ValueError: if a field is outside its range.
    """

    mu: float = 2.5
    sigma: float = 5.0
    form: Literal["windowed", "dense"] = "windowed"
    window_sigmas: float = 3.0
    rgb_resample: Literal["bilinear", "area"] = "bilinear"

    def __post_init__(self) -> None:
        """Check ranges."""
        if not abs(self.mu) <= 20:
            raise ValueError(f"mu must be within ±20, got {self.mu}")
        if not (self.sigma > 0 and self.window_sigmas > 0):
            raise ValueError(f"sigma and window_sigmas must be positive, got {self.sigma} and {self.window_sigmas}")
        if self.form not in ("windowed", "dense"):
            raise ValueError(f"form must be windowed or dense, got {self.form!r}")
        if self.rgb_resample not in ("bilinear", "area"):
            raise ValueError(f"rgb_resample must be bilinear or area, got {self.rgb_resample!r}")


def feature_similarity_loss(
    raw: Tensor, rgb01: Tensor, labels: Tensor, *, config: FeatureSimilarityConfig = FeatureSimilarityConfig()
) -> Tensor:
    r"""Pull class maps together across alike neighbours and push them apart across unlike ones.

    With y = [1 − max, max_norm(raw) · labels] per cell, colour difference δ_ij = ‖rgb_i − rgb_j‖₁/3 and distance r_ij::

        L_FS = −1/(B·h·w) Σ_b Σ_ij g_ij · ½‖y_i − y_j‖² · gate(δ_ij)
        g_ij = exp(−r_ij²/(2σ²)) / (2πσ²),   gate(δ) = tanh(μ + ln(δ/(1 − δ)))

    The gate is DEAL's, in its closed form. L is a quadratic form of y, so its gradient is known:
    ``∂L/∂y = 2·A`` with ``A_i = −1/(B·h·w) Σ_j g_ij gate(δ_ij)(y_i − y_j)`` and ``L = Σ y·A``. A is computed
    without a graph, so nothing per neighbour is kept; second derivatives are not available.

    Source: Jonnarth, Zhang, Felsberg, WACV 2024, and its release arvijj/hfpl. Published weights: 1 on VOC, 0.2 on COCO.

    Args:
        raw: float (B, K, h, w), class logits per cell.
        rgb01: float (B, 3, H, W) in [0, 1], not normalised; resized to (h, w).
        labels: bool, int or float (B, K), 1 where the class is in view. Maps of absent classes are not computed.
        config: see :class:`FeatureSimilarityConfig`.

    Returns:
        Scalar; negative where maps part at colour edges.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> rgb = torch.zeros(1, 3, 8, 8)
        >>> rgb[..., 4:] = 1
        >>> fits, crosses = rgb[:, :1] * 2, rgb[:, :1].mT * 2
        >>> labels = torch.ones(1, 1)
        >>> bool(feature_similarity_loss(fits, rgb, labels) < feature_similarity_loss(crosses, rgb, labels))
        True
    """
    check_maps(raw, labels, "raw")
    if rgb01.ndim != 4 or rgb01.shape[1] != 3 or len(rgb01) != len(raw) or not rgb01.is_floating_point():
        raise ValueError(
            f"rgb01 must be floating ({len(raw)}, 3, H, W) in [0, 1], got {rgb01.dtype} {tuple(rgb01.shape)};"
            " divide uint8 images by 255"
        )
    with torch.autocast(raw.device.type, enabled=False):
        if raw.dtype in (torch.float16, torch.bfloat16):
            raw = raw.float()
        predictions = with_background(max_norm(_present(raw, labels > 0)) * _presence(labels > 0, raw))
        colours = _resized(rgb01.to(raw.dtype), raw.shape[-2:], config).clamp(0, 1)
        pull = _PULL[config.form](predictions.detach(), colours, config)
        # Value Σ y·A and gradient 2·A, without a graph through A.
        return (2 * predictions - predictions.detach()).mul(pull).sum()


class FeatureSimilarityLoss(nn.Module):
    """:func:`feature_similarity_loss` with a stored configuration.

    Args:
        config: see :class:`FeatureSimilarityConfig`.

    Example:
        >>> FeatureSimilarityLoss()(torch.randn(2, 3, 8, 8), torch.rand(2, 3, 64, 64), torch.eye(3)[:2]).shape
        torch.Size([])
    """

    def __init__(self, config: FeatureSimilarityConfig = FeatureSimilarityConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(self, raw: Tensor, rgb01: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss; arguments as in :func:`feature_similarity_loss`."""
        return feature_similarity_loss(raw, rgb01, labels, config=self.config)


def _order(present: Tensor) -> Tensor:
    """Return indices (B, M) that put present classes first, M being the most classes that any image has, at least 1."""
    most = max(1, int(present.sum(1).max())) if present.numel() else 1
    return present.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]


def _present(raw: Tensor, present: Tensor) -> Tensor:
    order = _order(present)
    return raw.gather(1, order[:, :, None, None].expand(-1, -1, *raw.shape[-2:]))


def _presence(present: Tensor, raw: Tensor) -> Tensor:
    return present.gather(1, _order(present)).to(raw.dtype)[:, :, None, None]


@torch.no_grad()
def _resized(rgb01: Tensor, size: torch.Size, config: FeatureSimilarityConfig) -> Tensor:
    if rgb01.shape[-2:] == size:
        return rgb01
    if config.rgb_resample == "area":
        return F.interpolate(rgb01, size, mode="area")
    return F.interpolate(rgb01, size, mode="bilinear", align_corners=True)


@torch.no_grad()
def _pull_windowed(predictions: Tensor, colours: Tensor, config: FeatureSimilarityConfig) -> Tensor:
    """Compute A of every cell, one neighbour offset at a time; each unordered pair is visited once."""
    batch, _, height, width = predictions.shape
    radius = math.ceil(config.window_sigmas * config.sigma)
    pull = torch.zeros_like(predictions)
    for dy in range(min(radius, height - 1) + 1):
        reach = min(radius, width - 1)
        for dx in range(-reach if dy else 1, reach + 1):
            here, there = _overlap(height, width, dy, dx)
            difference = colours[here].sub(colours[there]).abs_().mean(1, keepdim=True)
            weight = edge_gate(difference, config.mu).mul_(_gaussian(dy * dy + dx * dx, config.sigma))
            force = (predictions[here] - predictions[there]).mul_(weight)
            pull[here] += force
            pull[there] -= force
    return pull.mul_(-1 / (batch * height * width))


@torch.no_grad()
def _pull_dense(predictions: Tensor, colours: Tensor, config: FeatureSimilarityConfig) -> Tensor:
    """Compute A of every cell from all pairs, (h·w)² numbers per image."""
    batch, channels, height, width = predictions.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([y.flatten(), x.flatten()], 1).to(predictions)
    gaussian = torch.cdist(cells, cells).square().mul(-0.5 / config.sigma**2).exp() / (2 * math.pi * config.sigma**2)
    points = colours.flatten(2).mT.contiguous()  # (B, h·w, 3)
    weight = edge_gate(torch.cdist(points, points, p=1) / 3, config.mu).mul_(gaussian)
    flat = predictions.flatten(2).mT  # (B, h·w, C)
    pull = weight.sum(2, keepdim=True) * flat - weight @ flat
    return pull.mT.reshape(batch, channels, height, width).mul(-1 / (batch * height * width))


_PULL = {"windowed": _pull_windowed, "dense": _pull_dense}


def _overlap(height: int, width: int, dy: int, dx: int) -> tuple[tuple, tuple]:
    """Slices of the cells that have a neighbour at (dy >= 0, dx), and of those neighbours."""
    left, right = max(0, -dx), width - max(0, dx)
    here = (..., slice(0, height - dy), slice(left, right))
    return here, (..., slice(dy, height), slice(left + dx, right + dx))


def _gaussian(squared_distance: int, sigma: float) -> float:
    return math.exp(-squared_distance / (2 * sigma**2)) / (2 * math.pi * sigma**2)
