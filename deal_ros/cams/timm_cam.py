# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Class activation maps on any timm backbone, convolutional or plain vision transformer."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.backbones import VitBackbone, create_backbone, is_vit
from deal_ros.cams.alignment import extend, fit, known_shift_px, leading_cells
from deal_ros.cams.base import CamNetwork, CamOutput

Scorer = Literal["cam", "separate"]


class TimmCam(CamNetwork):
    r"""A 1×1 classifier on the last feature map; its maps, averaged over the image, are the class scores.

    ``raw_k = Σ_c w_kc f_c``, ``score_k = mean_ij raw_k,ij``, ``cam = ReLU(raw)``.

    Source: Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, with the classifier before
    the pooling, which gives the same scores. Trained with the multi-label soft margin loss.

    Args:
        num_classes: K, without background.
        backbone: timm name, see :func:`deal_ros.backbones.create_backbone`.
        output_stride: image pixels per cell of the maps, 8, 16 or 32; ``None`` is 16, or a transformer's patch size.
        weights: ``auto``, ``none`` or a file of the backbone's weights.
        frozen_stages: stages of the backbone that are not trained, counted from the image; their output can be cached
            (:meth:`frozen_features`). For a transformer a stage is a block.
        shift_px: how far right and down the backbone draws what it sees, which is then undone; ``None`` is what was
            measured of this backbone, else 0. See :mod:`deal_ros.cams.alignment`.
        bias: give the classifier a bias. It moves whole maps, so most CAM methods have none.
        drop_path_rate: stochastic depth of the backbone, 0..1.
        head_lr: factor of the classifier's learning rate. A new classifier wants a high rate, a pre-trained trunk a
            low one: with AdamW 1e-4 and 2e-3 gave maps of the object's shape, 1e-3 and 1e-2 maps spread over the image
            (EfficientNet-Lite0, rendered scenes), because wide dilated kernels let every cell see every other.
        scorer: where the class scores come from. ``cam``, the maps' own average. ``separate``: a second linear
            classifier on the averaged features, trained beside the first; an edge loss then shapes the maps without
            pulling at the scores.

    Raises:
        BackboneError: if the backbone cannot be had.
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "tf_efficientnet_lite0",
        output_stride: int | None = None,
        weights: str = "auto",
        frozen_stages: int = 0,
        shift_px: int | None = None,
        bias: bool = False,
        drop_path_rate: float = 0.0,
        head_lr: float = 10.0,
        scorer: Scorer = "cam",
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if scorer not in get_args(Scorer):
            raise ValueError(f"scorer must be one of {', '.join(get_args(Scorer))}, got {scorer!r}")
        if not head_lr > 0:
            raise ValueError(f"head_lr must be positive, got {head_lr}")
        if output_stride is None and not is_vit(backbone):
            output_stride = 16
        self.backbone = create_backbone(
            backbone, output_stride=output_stride, weights=weights, head=None, drop_path_rate=drop_path_rate
        )
        self.backbone.freeze(frozen_stages)
        self.num_classes, self.head_lr = num_classes, head_lr
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.stride = self.backbone.reductions[-1]
        self.shift_px = known_shift_px(backbone, self.stride) if shift_px is None else shift_px
        if self.shift_px and isinstance(self.backbone, VitBackbone):
            raise ValueError(f"shift_px must be 0 for a transformer, whose patches lie where they are, got {shift_px}")
        self.classifier = nn.Conv2d(self.backbone.channels[-1], num_classes, 1, bias=bias)
        self.scorer = nn.Linear(self.backbone.channels[-1], num_classes, bias=bias) if scorer == "separate" else None
        self.gap_term = self.gap_term if self.scorer is None else ("cam_classification", 1.0)

    def forward(self, image: Tensor, features: Tensor | None = None) -> CamOutput:
        """See :meth:`CamNetwork.forward`; ``raw`` has a cell per ``stride`` pixels of the image.

        An image whose sides are no multiples of the stride is resized to the nearest ones first. With ``features``
        only its size is used.
        """
        if features is None:
            features = self._lower(image)
        maps = self._upper(features, image)
        raw = self.classifier(maps)
        scores = raw.mean((2, 3)) if self.scorer is None else self.scorer(maps.mean((2, 3)))
        return CamOutput(scores=scores, raw=raw, cam=raw.relu())

    def training_forward(
        self, image: Tensor, labels: Tensor, features: Tensor | None = None
    ) -> tuple[CamOutput, dict[str, Tensor]]:
        """See :meth:`CamNetwork.training_forward`; with a separate scorer the maps' average keeps a term of its own."""
        output, terms = super().training_forward(image, labels, features)
        if self.scorer is not None:
            terms["cam_classification"] = F.multilabel_soft_margin_loss(output.raw.mean((2, 3)), labels)
        return output, terms

    def frozen_features(self, image: Tensor) -> Tensor | None:
        """Output of the frozen stages, float (B, C, h, w), for a transformer (B, tokens, C); ``None`` without any."""
        if not self.backbone.frozen_stages:
            return None
        with torch.no_grad():
            return self._lower(image)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Backbone and classifier, the latter with ``head_lr`` times the learning rate."""
        trunk = [p for p in self.backbone.parameters() if p.requires_grad]
        heads = [p for module in (self.classifier, self.scorer) if module is not None for p in module.parameters()]
        head = {"params": heads, "lr": lr * self.head_lr, "weight_decay": weight_decay}
        return [{"params": trunk, "lr": lr, "weight_decay": weight_decay}, head] if trunk else [head]

    def _cells(self, image: Tensor) -> tuple[int, int]:
        height, width = (max(1, round(side / self.stride)) for side in image.shape[-2:])
        return height, width

    def _lower(self, image: Tensor) -> Tensor:
        extended, _ = extend(fit(image, self.stride), self.stride, self.shift_px)
        lower = self.backbone.lower(extended, self.backbone.frozen_stages)
        if isinstance(self.backbone, VitBackbone) and self.backbone.frozen_stages:
            patches, prefix = lower
            return torch.cat([prefix, patches.flatten(2).transpose(1, 2)], dim=1)
        return lower[-1]

    def _upper(self, features: Tensor, image: Tensor) -> Tensor:
        height, width = self._cells(image)
        lower = [features]
        if isinstance(self.backbone, VitBackbone) and self.backbone.frozen_stages:
            prefix = features.shape[1] - height * width
            lower = [features[:, prefix:].transpose(1, 2).unflatten(2, (height, width)), features[:, :prefix]]
        maps = self.backbone.upper(lower, self.backbone.frozen_stages)[-1]
        lead = leading_cells(self.stride, self.shift_px)
        return maps[..., lead : lead + height, lead : lead + width]
