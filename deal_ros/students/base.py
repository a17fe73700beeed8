# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The contract of all students: the networks that are trained on pseudo-labels and run on the robot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from deal_ros.backbones import normalize_rgb
from deal_ros.sample import MAX_CLASSES


class Student(nn.Module, ABC):
    """Image in, one logit per class and cell out.

    Attributes:
        num_classes: K, without background.
        mean, std: RGB normalisation, each three floats for images in [0, 1].
        config: the frozen dataclass that, with ``num_classes``, builds the same architecture again.
        size_multiple: heights and widths that are multiples of this need no padding inside the network.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    config: Any
    size_multiple: int = 32

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be in 1..{MAX_CLASSES}, got {num_classes}")
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, image: Tensor | None, features: list[Tensor] | None = None) -> Tensor:
        """Segment a batch.

        Args:
            image: float (B, 3, H, W), RGB, normalised with ``mean`` and ``std``. May be ``None`` with ``features``.
            features: what :meth:`frozen_features` returned for these images, to spare computing it again.

        Returns:
            Logits float (B, K+1, h, w), background first, on a coarser grid over the same view: to be resized to (H, W)
            bilinearly with half-pixel centres (``align_corners=False``).
        """

    def frozen_features(self, image: Tensor) -> list[Tensor] | None:
        """Return outputs of the frozen lower part, cacheable per image (batch first); ``None`` if nothing is frozen."""
        return None

    def fixed_to(self, size: tuple[int, int]) -> Student:
        """Return the same function for images of this size alone, fit for export; may be the student itself."""
        return self

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups of the trainable parameters; normalisation layers and biases without weight decay."""
        return grouped(self.named_parameters(), lr, weight_decay)

    def normalize(self, rgb: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) or float in [0, 1] → normalised float32 of the same shape."""
        return normalize_rgb(rgb, self.mean, self.std)


def grouped(parameters: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters into those that decay and those (vectors: biases, norms) that do not."""
    trainable = [parameter for _, parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    plain = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"params": plain, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
