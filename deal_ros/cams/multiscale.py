# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""CAM seeds: maps of several sizes of an image and its mirror image, added up and scaled to [0, 1] per class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from deal_ros.cams.base import CamNetwork


@torch.no_grad()
def multiscale_cam(
    network: CamNetwork,
    rgb: Tensor,
    labels: Tensor | None = None,
    *,
    scales: Sequence[float] | None = None,
    flip: bool = True,
) -> Tensor:
    """Class activation maps for making labels.

    Every scaled image and, with ``flip``, its mirror image goes through the network; the maps are brought to the size
    of the image (bilinear, cell centres), mirrored back, summed, multiplied by the labels, and scaled to [0, 1] per
    image and class. Source: the seed generation that WeakTr and SEAM share.

    Args:
        network: evaluated in evaluation mode; its mode is put back afterwards.
        rgb: uint8 (B, 3, H, W), or float in [0, 1], on the network's device.
        labels: (B, K), 1 where the class is in view; maps of other classes become 0. ``None`` keeps all.
        scales: image sizes as factors; ``None`` is the network's published choice.
        flip: also use the mirror image.

    Returns:
        float32 (B, K, H, W) in [0, 1]. A class without any activation is 0 everywhere.

    Raises:
        ValueError: if a shape does not fit or a scale is not positive.
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ValueError(f"rgb must be uint8 or float (B, 3, H, W), got {rgb.dtype} {tuple(rgb.shape)}")
    if labels is not None and labels.shape != (len(rgb), network.num_classes):
        raise ValueError(f"labels must be {(len(rgb), network.num_classes)}, got {tuple(labels.shape)}")
    scales = network.seed_scales if scales is None else scales
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be positive and at least one, got {scales}")
    size = rgb.shape[-2:]
    image = network.normalize(rgb)
    total = torch.zeros(len(rgb), network.num_classes, *size, device=rgb.device)
    training = network.training
    network.eval()
    try:
        for scale in scales:
            scaled = image
            if scale != 1:
                sides = [max(1, round(side * scale)) for side in size]
                scaled = F.interpolate(image, sides, mode="bilinear", align_corners=False, antialias=scale < 1)
            for mirrored in (False, True) if flip else (False,):
                cam = network(scaled.flip(-1) if mirrored else scaled).cam.float()
                cam = F.interpolate(cam, size, mode="bilinear", align_corners=False)
                total += cam.flip(-1) if mirrored else cam
    finally:
        network.train(training)
    if labels is not None:
        total = total * (labels > 0).to(total)[:, :, None, None]
    return min_max(total)


def min_max(cam: Tensor) -> Tensor:
    """Scale float (B, K, H, W) to [0, 1] per image and class; a constant map becomes 0.

    Example:
        >>> min_max(torch.tensor([[[[1.0, 2.0, 3.0]]]])).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    lowest = cam.amin((-2, -1), keepdim=True)
    extent = cam.amax((-2, -1), keepdim=True) - lowest
    return torch.where(extent > 1e-12, (cam - lowest) / extent.clamp_min(1e-12), torch.zeros_like(cam))
