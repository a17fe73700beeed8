# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth across holes: cameras lose it beside the very steps that tell which side is nearer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deal_ros.filters.sobel import sobel_gradients
from deal_ros.filters.validity import erode_validity, masked_quantile


def fill_holes(values: Tensor, valid: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Grow what is known into holes by ``radius`` pixels, along the slope that is most common in the image.

    A step that a hole hides comes to lie in its middle, and the plane that the objects stand on goes on as it is.

    Args:
        values: float (B, 1, h, w), linear on planes, such as 1/z; finite; what stands in holes does not matter.
        valid: bool (B, 1, h, w), False in holes.
        radius: pixels, >= 1.

    Returns:
        Values float and validity bool (B, 1, h, w); what was valid stays as it was, what is not reached is 0.
    """
    usable = erode_validity(valid, 1)
    slopes = [
        masked_quantile(g, usable, 0.5) * usable.any((-2, -1), keepdim=True)
        for g in sobel_gradients(values, scale=1 / 8)
    ]
    rows, columns = (torch.arange(length, device=values.device).to(values) for length in values.shape[-2:])
    trend = slopes[0] * columns + slopes[1] * rows[:, None]
    known = valid.to(values)
    rest = (values - trend) * known
    for _ in range(radius):
        share = F.avg_pool2d(known, 3, stride=1, padding=1)
        reached = (share > 0) & (known == 0)
        rest = torch.where(reached, F.avg_pool2d(rest, 3, stride=1, padding=1) / share.clamp_min(1e-6), rest)
        known = known.masked_fill(reached, 1)
    filled = known > 0
    return torch.where(valid, values, rest + trend).masked_fill(~filled, 0), filled
