# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Refine CAMs by what the image shows: PAMR on colour and depth, or a dense CRF."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deal_ros.cams import min_max
from deal_ros.filters import pamr
from deal_ros.pseudo_labels.config import PseudoLabelConfig
from deal_ros.pseudo_labels.crf import CRF_PRESETS, crf_cam

_DEFAULTS = PseudoLabelConfig()


@torch.no_grad()
def refine_cam(
    cam: Tensor | NDArray[Any],
    rgb: NDArray[np.uint8],
    depth_m: NDArray[np.float32] | None = None,
    config: PseudoLabelConfig = _DEFAULTS,
    present: Any = None,
) -> Tensor:
    """Refine the class activation maps of one image; only classes in view cost time.

    PAMR moves scores towards those of similar neighbours, which lowers peaks, so maps are scaled to [0, 1] again. The
    result of a CRF keeps its own scale, on which the threshold 0.5 gives its labels.

    Args:
        cam: float (K, H, W) in [0, 1], on the device to work on.
        rgb: uint8 (H, W, 3), the image.
        depth_m: float32 (H, W), metres, 0 where there is none; for ``refine="rgbd"``. ``None`` leaves colour alone.
        config: see :class:`PseudoLabelConfig`: ``refine``, ``refine_px``, ``pamr``, ``crf``.
        present: (K,), true for classes in view; others become 0. ``None``: all that are not 0 everywhere.

    Returns:
        float32 (K, H, W) in [0, 1], on the device of ``cam``.

    Raises:
        ValueError: if sizes do not fit.
        ImportError: if a CRF is asked for and pydensecrf2 is not installed.
    """
    maps = torch.as_tensor(cam).float()
    if maps.ndim != 3 or rgb.shape != (*maps.shape[1:], 3) or rgb.dtype != np.uint8:
        raise ValueError(
            f"cam (K, H, W) and rgb uint8 (H, W, 3) must fit, got {tuple(maps.shape)} and {rgb.dtype} {rgb.shape}"
        )
    if depth_m is not None and depth_m.shape != rgb.shape[:2]:
        raise ValueError(f"depth_m must be {rgb.shape[:2]}, the size of rgb, got {depth_m.shape}")
    chosen = maps.flatten(1).amax(1) > 0
    if present is not None:
        chosen &= torch.as_tensor(present).to(maps.device) > 0
    result = torch.zeros_like(maps)
    if not chosen.any():
        return result
    if config.refine == "none":
        result[chosen] = maps[chosen]
        return result
    size = maps.shape[-2:]
    if config.refine == "crf":
        found = crf_cam(maps[chosen].clamp(0, 1).cpu().numpy(), rgb, CRF_PRESETS[config.crf])
        result[chosen] = torch.from_numpy(found).to(maps.device)
        return result
    scale = min(1.0, config.refine_px / max(size)) if config.refine_px else 1.0
    small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    scores = _resized(maps[chosen][None], small)
    color = _resized(torch.as_tensor(rgb, device=maps.device).permute(2, 0, 1)[None].float() / 255, small)
    depth = None
    if config.refine == "rgbd" and depth_m is not None:
        # Nearest: a mean over a depth step is a depth that nothing has.
        depth = F.interpolate(
            torch.as_tensor(depth_m, device=maps.device).float()[None, None], small, mode="nearest-exact"
        )
    refined = pamr(scores, color, depth, replace(config.pamr, use_depth=depth is not None))
    result[chosen] = min_max(_resized(refined, size))[0]
    return result


def _resized(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False, antialias=True)
