# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What DEAL sees of the outlines of one real frame, half of which has no depth, with holes as they are and closed.

python examples/holes_in_depth.py
"""

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from real_frame import frame
from torch.nn import functional as F

from deal_ros.filters import GATE_ZERO, depth_edges_with_sides
from deal_ros.losses import RECOMMENDED


def outlines_in_depth(depth_m, truth, fill, size=(60, 80)):
    """What DEAL sees of the drawn outlines: share near an edge with a nearer side, share of such edges near an outline.

    "Near" is one cell of DEAL's edge map. Third, where both meet, the share of sides that point into the object.
    """
    depth, config = torch.from_numpy(depth_m)[None], replace(RECOMMENDED.edges, fill=fill)
    edges, weight, side = (found[0] for found in depth_edges_with_sides(depth, config=config, size=size))
    seen = ((edges > GATE_ZERO) & (weight > 0))[0] & side.any(0)
    inwards = torch.zeros_like(side)
    for mask in truth.values():
        small = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        slope = torch.from_numpy(np.stack([cv2.Sobel(small, -1, *axis, scale=1 / 4) for axis in ((1, 0), (0, 1))]))
        inwards = torch.where(slope.norm(dim=0) > 0.5, slope, inwards)
    outline = inwards.any(0)
    grow = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
    near_seen, near_outline = (grow(which[None].float())[0].bool() for which in (seen, outline))
    right = ((side * inwards).sum(0) > 0)[seen & outline]
    return [float(share.float().mean()) for share in (near_seen[outline], near_outline[seen], right)]


def main():
    _, depth_m, truth = frame()
    for fill in (0, RECOMMENDED.edges.fill):
        found, precise, right = outlines_in_depth(depth_m, truth, fill)
        print(f"fill {fill}: {found:.1%} of outlines seen, {precise:.1%} of edges on one, {right:.1%} of sides right")


if __name__ == "__main__":
    main()
