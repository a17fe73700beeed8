# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pixel-adaptive refinement: class scores flow between neighbouring pixels that look, and lie, alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deal_ros.filters.validity import depth_validity

_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


@dataclass(frozen=True)
class PamrConfig:
    """Constants of PAMR; the defaults are those of Araslanov and Roth.

    Args:
        iterations: how often scores are passed on, >= 1 (10 as published).
        dilations: neighbour distances in pixels; 8 neighbours each (1, 2, 4, 8, 12, 24 as published).
        temperature: share of the local standard deviation that counts as one unit of difference (0.1 as published).
        use_depth: add log depth as a further channel where depth is given (ours; the publication has RGB only).

    Raises:
        ValueError: if a field is outside its range.
    """

    iterations: int = 10
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    temperature: float = 0.1
    use_depth: bool = True

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.iterations < 1 or not self.dilations or min(self.dilations) < 1 or not self.temperature > 0:
            raise ValueError(f"iterations, every dilation and temperature must be positive, got {self}")


def pamr(scores: Tensor, rgb01: Tensor, depth_m: Tensor | None = None, config: PamrConfig = PamrConfig()) -> Tensor:
    r"""Refine class scores by local colour and depth affinity.

    For pixel i and its 8 neighbours j at each dilation, channel c of the image I::

        k_ij,c = -|I_i,c - I_j,c| / (1e-8 + temperature · σ_i,c)      σ: standard deviation over i and all its j
        α_ij   = softmax_j(mean_c k_ij,c)
        s_i   ← Σ_j α_ij s_j                                          ``iterations`` times

    Depth enters as one more channel, ln z. Where i or j has no depth, that pair is judged by colour alone.
    Differentiable with respect to ``scores`` and ``rgb01``. Peak memory is (8·len(dilations) + 2C) maps.

    Source: Araslanov and Roth, Single-Stage Semantic Segmentation from Image Labels, CVPR 2020, §3.3. The
    depth channel is ours.

    Args:
        scores: float (B, C, H, W), any range. C need only hold the classes that are present.
        rgb01: float (B, 3, H, W) in [0, 1].
        depth_m: float (B, 1, H, W), metres; 0, NaN, ±Inf invalid; ``None`` refines by colour alone.
        config: see :class:`PamrConfig`.

    Returns:
        float (B, C, H, W): each value a convex combination of the input's values of its class.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> rgb = torch.zeros(1, 3, 8, 8)
        >>> rgb[..., 4:] = 1
        >>> scores = torch.zeros(1, 1, 8, 8)
        >>> scores[..., 5] = 1
        >>> refined = pamr(scores, rgb, config=PamrConfig(dilations=(1,)))
        >>> bool((refined[..., 4:] > 0.1).all()), float(refined[..., :3].max()) < 0.01
        (True, True)
    """
    _check(scores, rgb01, depth_m)
    affinity = _affinity(rgb01.to(scores.dtype), depth_m if config.use_depth else None, config)
    offsets = _offsets(config)
    margin = max(config.dilations)
    for _ in range(config.iterations):
        padded = F.pad(scores, (margin,) * 4, mode="replicate")
        passed = torch.zeros_like(scores)
        for n, (dy, dx) in enumerate(offsets):
            passed = passed.addcmul_(affinity[:, n : n + 1], _shifted(padded, dy, dx, margin))
        scores = passed
    return scores


def _affinity(rgb01: Tensor, depth_m: Tensor | None, config: PamrConfig) -> Tensor:
    """Softmax weights (B, 8·D, H, W), built one channel at a time so that no (B, C, 8·D, H, W) tensor exists."""
    logits = _channel_affinity(rgb01[:, :1], None, config)
    for channel in range(1, rgb01.shape[1]):
        logits = logits + _channel_affinity(rgb01[:, channel : channel + 1], None, config)
    count: Tensor | float = float(rgb01.shape[1])
    if depth_m is not None:
        valid = depth_validity(depth_m)
        log_depth = depth_m.masked_fill(~valid, 1).log().to(rgb01.dtype)
        logits = logits + _channel_affinity(log_depth, valid, config)
        count = count + _pair_validity(valid, config)
    return torch.softmax(logits / count, dim=1)


def _channel_affinity(channel: Tensor, valid: Tensor | None, config: PamrConfig) -> Tensor:
    """k_ij of one channel (B, 8·D, H, W); 0 for pairs of which one is invalid."""
    difference = _differences(channel, config)
    neighbours = torch.full_like(channel, difference.shape[1])
    if valid is not None:
        pairs = _pair_validity(valid, config)
        difference = difference * pairs
        neighbours = pairs.sum(1, keepdim=True).to(channel)
    # The pixel itself, difference 0, is in the published 3×3 window once per dilation.
    samples = neighbours + len(config.dilations)
    total, squares = difference.sum(1, keepdim=True), difference.square().sum(1, keepdim=True)
    variance = (squares - total.square() / samples) / (samples - 1).clamp_min(1)
    deviation = variance.clamp_min(1e-16).sqrt()
    return -difference.abs() / (1e-8 + config.temperature * deviation)


def _differences(channel: Tensor, config: PamrConfig) -> Tensor:
    margin = max(config.dilations)
    padded = F.pad(channel, (margin,) * 4, mode="replicate")
    shifted = torch.cat([_shifted(padded, dy, dx, margin) for dy, dx in _offsets(config)], dim=1)
    return shifted - channel


def _pair_validity(valid: Tensor, config: PamrConfig) -> Tensor:
    """Bool (B, 8·D, H, W): pixel and neighbour both hold depth."""
    margin = max(config.dilations)
    padded = F.pad(valid.float(), (margin,) * 4, mode="replicate") > 0.5
    return torch.cat([_shifted(padded, dy, dx, margin) for dy, dx in _offsets(config)], dim=1) & valid


def _offsets(config: PamrConfig) -> list[tuple[int, int]]:
    return [(dy * dilation, dx * dilation) for dilation in config.dilations for dy, dx in _NEIGHBOURS]


def _shifted(padded: Tensor, dy: int, dx: int, margin: int) -> Tensor:
    height, width = padded.shape[-2] - 2 * margin, padded.shape[-1] - 2 * margin
    return padded[..., margin + dy : margin + dy + height, margin + dx : margin + dx + width]


def _check(scores: Tensor, rgb01: Tensor, depth_m: Tensor | None) -> None:
    if scores.ndim != 4 or not scores.is_floating_point():
        raise ValueError(f"scores must be a floating tensor (B, C, H, W), got {scores.dtype} {tuple(scores.shape)}")
    batch, _, height, width = scores.shape
    if tuple(rgb01.shape) != (batch, 3, height, width) or not rgb01.is_floating_point():
        raise ValueError(
            f"rgb01 must be floating {(batch, 3, height, width)} in [0, 1], got {rgb01.dtype} {tuple(rgb01.shape)};"
            " resize scores to the image first"
        )
    if depth_m is not None and tuple(depth_m.shape) != (batch, 1, height, width):
        raise ValueError(f"depth_m must be {(batch, 1, height, width)}, got {tuple(depth_m.shape)}")
