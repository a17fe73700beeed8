# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SEAM's equivariance losses: the class maps of a smaller image are the smaller class maps of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.losses.checks import check_maps
from deal_ros.losses.max_norm import max_norm, with_background


@dataclass(frozen=True)
class EquivarianceConfig:
    """Constants of SEAM's L_ER and L_ECR; the defaults are the published ones (YudeWang/SEAM, train_SEAM.py).

    Args:
        epsilon: ε of max_norm.
        hardest_share: part of all (K + 1)·h·w differences of an image, the largest, that L_ECR averages.
        er_weight: factor of L_ER.
        ecr_weight: factor of L_ECR.

    Raises:
        ValueError: if a field is outside its range.
    """

    epsilon: float = 1e-5
    hardest_share: float = 0.2
    er_weight: float = 1.0
    ecr_weight: float = 1.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.epsilon > 0 or not 0 < self.hardest_share <= 1:
            raise ValueError(
                f"epsilon must be positive and hardest_share in (0, 1], got {self.epsilon} and {self.hardest_share}"
            )
        if self.er_weight < 0 or self.ecr_weight < 0:
            raise ValueError(f"weights must be >= 0, got er {self.er_weight} and ecr {self.ecr_weight}")


def equivariance_loss(
    raw_large: Tensor, raw_small: Tensor, labels: Tensor, *, config: EquivarianceConfig = EquivarianceConfig()
) -> Tensor:
    r"""L_ER: ``mean |resize(y · max_norm(raw_large)) − y · max_norm(raw_small)|`` over classes and cells.

    Source: Wang et al., CVPR 2020, equation of L_ER; YudeWang/SEAM.

    Args:
        raw_large: float (B, K, h, w), class maps of the image, without background.
        raw_small: float (B, K, h', w'), class maps of the same image scaled down.
        labels: bool, int or float (B, K), 1 where the class is in view.
        config: see :class:`EquivarianceConfig`.

    Returns:
        Scalar in [0, 1].

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> maps = torch.rand(1, 2, 8, 8)
        >>> float(equivariance_loss(maps, maps, torch.ones(1, 2)))
        0.0
    """
    _check_pair(raw_large, raw_small, labels, "raw")
    large = _scaled(raw_large, labels, raw_small.shape[-2:], config)
    small = _scaled(raw_small, labels, raw_small.shape[-2:], config)
    return (large - small).abs().mean()


def equivariant_cross_loss(
    raw_large: Tensor,
    raw_small: Tensor,
    refined_large: Tensor,
    refined_small: Tensor,
    labels: Tensor,
    *,
    config: EquivarianceConfig = EquivarianceConfig(),
) -> Tensor:
    r"""L_ECR: each branch's refined maps follow the other branch's plain ones, where they differ most.

    ``Σ over both directions of mean(top hardest_share of |only_max(stop(cam_other)) − refined|)``, where cam is
    ``[1 − max, y · max_norm(raw)]``, ``only_max`` zeroes every class but the strongest of its cell, background stays,
    and refined is ``[1, y] · max_norm(refined)``. All at the size of the small branch.

    Source: Wang et al., CVPR 2020, equation of L_ECR; YudeWang/SEAM.

    Args:
        raw_large: float (B, K, h, w), class maps of the image, without background.
        raw_small: float (B, K, h', w'), class maps of the image scaled down.
        refined_large: float (B, K + 1, h, w), PCM's maps of the image, background first.
        refined_small: float (B, K + 1, h', w'), the same of the image scaled down.
        labels: bool, int or float (B, K), 1 where the class is in view.
        config: see :class:`EquivarianceConfig`.

    Returns:
        Scalar in [0, 2].

    Raises:
        ValueError: if shapes or dtypes do not fit.
    """
    _check_pair(raw_large, raw_small, labels, "raw")
    _check_pair(refined_large, refined_small, labels, "refined", channels=1)
    size = raw_small.shape[-2:]
    with torch.no_grad():
        large = _only_max(_scaled(raw_large, labels, size, config))
        small = _only_max(_scaled(raw_small, labels, size, config))
    with_bg = torch.cat([torch.ones_like(labels[:, :1]), labels], dim=1)
    refined_large = _scaled(refined_large, with_bg, size, config)
    refined_small = _scaled(refined_small, with_bg, size, config)
    return _hardest(small - refined_large, config) + _hardest(large - refined_small, config)


class EquivarianceLoss(nn.Module):
    """``er_weight · L_ER + ecr_weight · L_ECR`` with a stored configuration.

    Args:
        config: see :class:`EquivarianceConfig`.
    """

    def __init__(self, config: EquivarianceConfig = EquivarianceConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, raw_large: Tensor, raw_small: Tensor, refined_large: Tensor, refined_small: Tensor, labels: Tensor
    ) -> Tensor:
        """Scalar loss; arguments as in :func:`equivariant_cross_loss`."""
        er = equivariance_loss(raw_large, raw_small, labels, config=self.config)
        ecr = equivariant_cross_loss(raw_large, raw_small, refined_large, refined_small, labels, config=self.config)
        return self.config.er_weight * er + self.config.ecr_weight * ecr


def _scaled(maps: Tensor, labels: Tensor, size: torch.Size, config: EquivarianceConfig) -> Tensor:
    """max_norm first, then the size of the small branch, then absent classes to 0; the order is the release's."""
    maps = max_norm(maps, epsilon=config.epsilon)
    if maps.shape[-2:] != size:
        maps = F.interpolate(maps, size, mode="bilinear", align_corners=True)
    return maps * (labels > 0).to(maps)[:, :, None, None]


def _only_max(foreground: Tensor) -> Tensor:
    strongest = foreground.amax(1, keepdim=True)
    background = with_background(foreground)[:, :1]
    return torch.cat([background, foreground * (foreground == strongest)], dim=1)


def _hardest(difference: Tensor, config: EquivarianceConfig) -> Tensor:
    flat = difference.abs().flatten(1)
    return flat.topk(max(1, int(flat.shape[1] * config.hardest_share)), dim=1).values.mean()


def _check_pair(large: Tensor, small: Tensor, labels: Tensor, name: str, *, channels: int = 0) -> None:
    check_maps(large, labels, f"{name}_large", channels=channels)
    check_maps(small, labels, f"{name}_small", channels=channels)
