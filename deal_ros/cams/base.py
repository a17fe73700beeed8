# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The contract of all CAM networks: image → class scores and class activation maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.backbones import normalize_rgb


@dataclass(frozen=True)
class CamOutput:
    """What a CAM network says of a batch.

    Args:
        scores: float (B, K), image-level class logits.
        raw: float (B, K, h, w), class logits per cell. Gradients reach the backbone: DEAL, ISL and FSL attach here.
        cam: float (B, K, h', w') >= 0, the network's best activation map for making seeds. It may be detached.
    """

    scores: Tensor
    raw: Tensor
    cam: Tensor


class CamNetwork(nn.Module, ABC):
    """A multi-label classifier that can say where it looks.

    Attributes:
        num_classes: K, without background.
        mean, std: RGB normalisation of the backbone, each three floats for images in [0, 1].
        seed_scales: image scales used by default when making CAM seeds.
        gap_term: the term of its loss that averages its raw maps over the image, and the weight that this average has
            in it: importance sampling takes over a share of it.
    """

    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed_scales: tuple[float, ...] = (1.0,)
    gap_term: tuple[str, float] = ("classification", 1.0)

    @abstractmethod
    def forward(self, image: Tensor, features: Tensor | None = None) -> CamOutput:
        """Score a batch.

        Args:
            image: float (B, 3, H, W), RGB, normalised with ``mean`` and ``std``.
            features: what :meth:`frozen_features` returned for these images, to spare computing it again.
        """

    def frozen_features(self, image: Tensor) -> Tensor | None:
        """Output of the frozen lower part for ``image``, cacheable; ``None`` if nothing is frozen."""
        return None

    def training_forward(
        self, image: Tensor, labels: Tensor, features: Tensor | None = None
    ) -> tuple[CamOutput, dict[str, Tensor]]:
        """Forward pass with the network's own loss terms, already weighted: their sum is minimised.

        Args:
            image: as in :meth:`forward`.
            labels: float (B, K), 1 where the class is in view.
            features: as in :meth:`forward`.

        Returns:
            The output and the named scalar terms; the plain network has one, ``classification``.
        """
        output = self(image, features)
        return output, {"classification": F.multilabel_soft_margin_loss(output.scores, labels)}

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups, with the published learning-rate multipliers where a network has them."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr, "weight_decay": weight_decay}]

    def normalize(self, rgb: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) or float in [0, 1] → normalised float32 of the same shape."""
        return normalize_rgb(rgb, self.mean, self.std)
