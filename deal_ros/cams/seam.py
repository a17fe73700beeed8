# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SEAM: maps of a scaled image are the scaled maps, and pixels that look alike share their activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.backbones import BackboneError, ConvBackbone, create_backbone
from deal_ros.backbones.resnet38d import rename_resnet38d
from deal_ros.backbones.weights import strict_load
from deal_ros.cams.alignment import extend, fit, known_shift_px, leading_cells
from deal_ros.cams.base import CamNetwork, CamOutput
from deal_ros.cams.weaktr import read_published
from deal_ros.config import from_mapping
from deal_ros.losses import (
    EquivarianceConfig,
    MinPoolConfig,
    equivariance_loss,
    equivariant_cross_loss,
    min_pool_loss,
)

T = TypeVar("T")


class PixelCorrelation(nn.Module):
    r"""PCM: each cell receives the activation of cells whose features point the same way.

    ``F = W[rgb, ReLU(W₄ f₄), ReLU(W₅ f₅)]``, of unit length per cell; ``A = ReLU(FᵀF)``, columns summing to one;
    ``refined = cam · A``. The features f₄, f₅ and the cam are detached, as published.

    Source: Wang et al., SEAM, CVPR 2020; sizes read in YudeWang/SEAM.

    Args:
        low, middle: channels of f₄ and f₅.
    """

    def __init__(self, low: int, middle: int) -> None:
        super().__init__()
        self.low = nn.Conv2d(low, 64, 1, bias=False)
        self.middle = nn.Conv2d(middle, 128, 1, bias=False)
        self.embed = nn.Conv2d(64 + 128 + 3, 192, 1, bias=False)
        nn.init.kaiming_normal_(self.low.weight)
        nn.init.kaiming_normal_(self.middle.weight)
        nn.init.xavier_uniform_(self.embed.weight, gain=4)

    def forward(self, cam: Tensor, image: Tensor, low: Tensor, middle: Tensor) -> Tensor:
        """Refine float (B, C, h, w) with maps of the same size: image (B, 3, h, w), low and middle features."""
        parts = [image, self.low(low.detach()).relu(), self.middle(middle.detach()).relu()]
        features = self.embed(torch.cat(parts, dim=1)).flatten(2)
        features = features / (features.norm(dim=1, keepdim=True) + 1e-5)
        affinity = (features.transpose(1, 2) @ features).relu()
        affinity = affinity / (affinity.sum(1, keepdim=True) + 1e-5)
        return (cam.detach().flatten(2) @ affinity).unflatten(2, tuple(cam.shape[-2:]))


class Seam(CamNetwork):
    r"""A CAM network trained on two scales of each image, with pixel correlation (PCM).

    L = mean over both scales of MLSM(GAP(raw)) and of L_min(refined), + L_ER + L_ECR; see
    :mod:`deal_ros.losses.equivariance`. The refined maps make the seeds; a loss on them does not reach the backbone, so
    DEAL and its like attach to ``raw``.

    Source: Wang et al., Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic Segmentation,
    CVPR 2020; constants read in YudeWang/SEAM. Unlike there, scores and losses are taken on the maps as they are, not
    on maps enlarged to the image: the enlarged ones hold nothing more and cost stride² times as much.

    Args:
        num_classes: K, without background.
        backbone: ``resnet38d`` as published, or any convolutional network of timm.
        output_stride: image pixels per cell, 8 as published.
        weights: ``auto``, ``none``, a file of the backbone, or a published SEAM checkpoint.
        frozen_stages: stages that are not trained; 1 is the published choice for resnet38d.
        frozen_norm: keep BatchNorm statistics, scales and offsets as they are, as published.
        small_scale: size of the second branch's image (0.3 as published, where that leaves 17 cells a side; with 5 the
            classifier did not learn in every seed, see docs/results.md).
        dropout: share of channels dropped before the classifier (0.5 as published, for ten thousand steps).
        shift_px: see :class:`deal_ros.cams.timm_cam.TimmCam`.
        equivariance: constants of L_ER and L_ECR, as a configuration or a mapping of its fields; published by default.
        min_pool: constant of L_min, likewise.

    Raises:
        BackboneError: if the backbone is no convolutional network or the weights cannot be had.
        ValueError: if a number is out of range.
    """

    seed_scales = (0.5, 1.0, 1.5, 2.0)
    gap_term = ("classification", 0.5)

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet38d",
        output_stride: int = 8,
        weights: str = "auto",
        frozen_stages: int = 1,
        frozen_norm: bool = True,
        small_scale: float = 0.3,
        dropout: float = 0.5,
        shift_px: int | None = None,
        equivariance: EquivarianceConfig | Mapping[str, Any] | None = None,
        min_pool: MinPoolConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1 or not 0 < small_scale < 1 or not 0 <= dropout < 1:
            raise ValueError(
                "num_classes must be at least 1, small_scale in (0, 1) and dropout in [0, 1), got"
                f" {num_classes}, {small_scale} and {dropout}"
            )
        published = read_published(weights, "f8_3.")
        trunk = create_backbone(
            backbone, output_stride=output_stride, weights="none" if published else weights, head=None
        )
        if not isinstance(trunk, ConvBackbone):
            raise BackboneError(
                f"SEAM's backbone must be convolutional, such as resnet38d or resnet50, got {backbone!r}"
            )
        if not 0 <= frozen_stages <= trunk.num_stages - 2:
            raise ValueError(f"frozen_stages must be 0..{trunk.num_stages - 2} for {backbone}, got {frozen_stages}")
        self.backbone, self.frozen_norm = trunk, frozen_norm
        self.num_classes, self.mean, self.std = num_classes, trunk.mean, trunk.std
        self.stride, self.small_scale = trunk.reductions[-1], small_scale
        self.equivariance = _config(EquivarianceConfig, equivariance)
        self.min_pool = _config(MinPoolConfig, min_pool)
        self.shift_px = known_shift_px(backbone, self.stride) if shift_px is None else shift_px
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(trunk.channels[-1], num_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.classifier.weight)
        self.pcm = PixelCorrelation(trunk.channels[-3], trunk.channels[-2])
        if published:
            strict_load(self, rename_seam(published, self), weights)
        trunk.freeze(frozen_stages)
        self.train(self.training)

    def forward(self, image: Tensor, features: Tensor | None = None) -> CamOutput:
        """See :meth:`CamNetwork.forward`; ``raw`` are the classifier's maps, ``cam`` is PCM's foreground.

        An image whose sides are no multiples of the stride is resized to the nearest ones first. With ``features`` its
        pixels are still used, by PCM.
        """
        raw, refined = self._branch(image, features)
        return CamOutput(scores=raw.mean((2, 3)), raw=raw, cam=refined[:, 1:].relu())

    def frozen_features(self, image: Tensor) -> Tensor | None:
        """Output of the frozen stages for the large branch, float (B, C, h, w); ``None`` if there are none."""
        if not self.backbone.frozen_stages:
            return None
        with torch.no_grad():
            return self._lower(image)

    def training_forward(
        self, image: Tensor, labels: Tensor, features: Tensor | None = None
    ) -> tuple[CamOutput, dict[str, Tensor]]:
        """Both branches and SEAM's four losses."""
        small = F.interpolate(image, scale_factor=self.small_scale, mode="bilinear", align_corners=True)
        raw, refined = self._branch(image, features)
        raw_small, refined_small = self._branch(small, None)
        scores = raw.mean((2, 3))
        terms = {
            "classification": F.multilabel_soft_margin_loss(scores, labels) / 2,
            "small_classification": F.multilabel_soft_margin_loss(raw_small.mean((2, 3)), labels) / 2,
            "min_pool": torch.stack(
                [min_pool_loss(maps[:, 1:], labels, config=self.min_pool) for maps in (refined, refined_small)]
            ).mean(),
            "equivariance": self.equivariance.er_weight
            * equivariance_loss(raw, raw_small, labels, config=self.equivariance),
            "equivariant_cross": self.equivariance.ecr_weight
            * equivariant_cross_loss(raw, raw_small, refined, refined_small, labels, config=self.equivariance),
        }
        return CamOutput(scores=scores, raw=raw, cam=refined[:, 1:].relu()), terms

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Apply the published multipliers: pre-trained weights ×1, their biases ×2, new ×10; no decay on vectors."""
        new = [*self.classifier.parameters(), *self.pcm.parameters()]
        known = {id(parameter) for parameter in new}
        old = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        groups = [
            {"params": [p for p in old if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for p in old if p.ndim <= 1], "lr": 2 * lr, "weight_decay": 0.0},
            {"params": new, "lr": 10 * lr, "weight_decay": weight_decay},
        ]
        return [group for group in groups if group["params"]]

    def train(self, mode: bool = True) -> Seam:
        """As in torch; with ``frozen_norm`` BatchNorm stays in evaluation mode and is not trained."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
                    module.requires_grad_(False)
        return self

    def _lower(self, image: Tensor) -> Tensor:
        extended, _ = extend(fit(image, self.stride), self.stride, self.shift_px)
        return self.backbone.lower(extended, self.backbone.frozen_stages)[-1]

    def _branch(self, image: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Class maps (B, K, h, w) and refined maps with background first (B, K + 1, h, w)."""
        features = self._lower(image) if features is None else features
        low, middle, high = self.backbone.upper([features], self.backbone.frozen_stages)[-3:]
        height, width = (max(1, round(side / self.stride)) for side in image.shape[-2:])
        lead = leading_cells(self.stride, self.shift_px)
        low, middle, high = (
            _resized(maps, high.shape[-2:])[..., lead : lead + height, lead : lead + width]
            for maps in (low, middle, high)
        )
        raw = self.classifier(self.dropout(high))
        with torch.no_grad():
            cam = raw.relu()
            cam = (cam - 1e-5).relu() / (cam.amax((2, 3), keepdim=True) + 1e-5)
            strongest = cam.amax(1, keepdim=True)
            cam = torch.cat([1 - strongest, cam * (cam == strongest)], dim=1)
        return raw, self.pcm(cam, _resized(image, raw.shape[-2:]), low, middle)


def _config(cls: type[T], value: T | Mapping[str, Any] | None) -> T:
    if isinstance(value, cls):
        return value
    return from_mapping(cls, value or {}, cls.__name__)  # type: ignore[arg-type]


def rename_seam(state: Mapping[str, Tensor], network: Seam) -> dict[str, Tensor]:
    """Names of a published SEAM checkpoint → ours. Its background classifier is never trained nor used: left out.

    Raises:
        BackboneError: if the network's backbone is not resnet38d, or a tensor is missing.
    """
    if network.backbone.name != "resnet38d":
        raise BackboneError(f"a published SEAM checkpoint needs backbone='resnet38d', got {network.backbone.name!r}")
    heads = {"classifier": "fc8", "pcm.low": "f8_3", "pcm.middle": "f8_4", "pcm.embed": "f9"}
    missing = [f"{name}.weight" for name in heads.values() if f"{name}.weight" not in state]
    if missing:
        raise BackboneError(f"a SEAM checkpoint must hold {', '.join(missing)}, but it is missing")
    renamed = {f"backbone.{key}": value for key, value in rename_resnet38d(state, network.backbone).items()}
    renamed.update({f"{own}.weight": state[f"{name}.weight"] for own, name in heads.items()})
    renamed["classifier.weight"] = renamed["classifier.weight"][1:]
    return renamed


def _resized(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False, antialias=False)
