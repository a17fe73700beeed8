# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SEAM's scaling of class maps to [0, 1], which ISL/FSL's authors took over."""

from __future__ import annotations

import torch
from torch import Tensor


def max_norm(maps: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Scale each map by its own range: ``p = s⁺; (p − min p − ε)⁺ / (max p − min p + ε)``.

    Source: YudeWang/SEAM, tool/visualization.py. Gradients flow through minimum and maximum, as there.

    Args:
        maps: float (B, K, h, w).
        epsilon: ε, 1e-5 as published.

    Returns:
        float (B, K, h, w) in [0, 1); 0 for a map that is nowhere positive.

    Example:
        >>> max_norm(torch.tensor([[[[-1.0, 0.0], [2.0, 4.0]]]])).round(decimals=3).flatten().tolist()
        [0.0, 0.0, 0.5, 1.0]
    """
    maps = maps.relu()
    lowest = maps.amin((-2, -1), keepdim=True)
    highest = maps.amax((-2, -1), keepdim=True)
    return (maps - lowest - epsilon).relu() / (highest - lowest + epsilon)


def with_background(foreground: Tensor) -> Tensor:
    """Put ``1 − max over classes`` before the classes: (B, K, h, w) → (B, K + 1, h, w).

    Example:
        >>> with_background(torch.tensor([[[[0.25]], [[0.5]]]])).flatten().tolist()
        [0.5, 0.25, 0.5]
    """
    return torch.cat([1 - foreground.amax(1, keepdim=True), foreground], dim=1)
