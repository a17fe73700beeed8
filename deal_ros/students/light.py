# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The light student for robots: a small convolutional encoder and a decoder that goes down to a quarter of the size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.backbones import BackboneError, ConvBackbone, create_backbone
from deal_ros.students.base import Student, grouped


@dataclass(frozen=True)
class LightStudentConfig:
    """What a :class:`LightStudent` is built from.

    Args:
        encoder: name of a timm CNN with feature maps.
        channels: width of the decoder, 8..1024.
        output_stride: input pixels per cell of the encoder's coarsest map: 8, 16 or 32. Dilation makes 8 and 16 slower.
        finest_stride: input pixels per cell of the logits: skip connections are used down to this map, 2..16.
        frozen_stages: encoder stages (after the stem) that keep their ImageNet weights; their output can be cached.
        dropout: share of decoder channels dropped in training, 0..0.9.
        encoder_lr_factor: the encoder learns at this multiple of the rate, 0..1.
    """

    encoder: str = "tf_efficientnet_lite0"
    channels: int = 64
    output_stride: int = 32
    finest_stride: int = 4
    frozen_stages: int = 0
    dropout: float = 0.1
    encoder_lr_factor: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        limits: list[tuple[str, float, float]] = [
            ("channels", 8, 1024),
            ("frozen_stages", 0, 8),
            ("dropout", 0, 0.9),
            ("encoder_lr_factor", 0, 1),
        ]
        for name, low, high in limits:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in {low}..{high}, got {getattr(self, name)}")
        for name, allowed in (("output_stride", (8, 16, 32)), ("finest_stride", (2, 4, 8, 16))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)}")


class LightStudent(Student):
    """Encoder, context from the whole image, and a top-down path with skip connections.

    Every encoder map down to ``finest_stride`` is projected to ``channels``; starting from the coarsest, the result is
    enlarged, added to the next finer map and mixed by a depthwise-separable convolution (as in feature pyramids, Lin et
    al., CVPR 2017). The mean over the image of the coarsest map is added as context (as the image pooling of
    Chen et al., arXiv 1706.05587): which objects are there decides more of the label than the texture of a cell does.

    Args:
        num_classes: K, without background.
        config: see :class:`LightStudentConfig`.
        weights: ``auto`` (ImageNet), ``none``, or a file, as :func:`deal_ros.backbones.create_backbone`.

    Example:
        >>> student = LightStudent(3, weights="none").eval()
        >>> student(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 4, 16, 24])
    """

    name = "light"
    config_class = LightStudentConfig

    def __init__(
        self, num_classes: int, config: LightStudentConfig = LightStudentConfig(), *, weights: str = "auto"
    ) -> None:
        super().__init__(num_classes)
        self.config = config
        self.encoder = create_backbone(config.encoder, output_stride=config.output_stride, weights=weights)
        if not isinstance(self.encoder, ConvBackbone):
            raise BackboneError(f"encoder must be a CNN with maps of several sizes, got {config.encoder!r}")
        self.mean, self.std = self.encoder.mean, self.encoder.std
        self.first = next(
            (i for i, stride in enumerate(self.encoder.reductions) if stride >= config.finest_stride),
            len(self.encoder.reductions) - 1,
        )
        inputs, width = self.encoder.channels[self.first :], config.channels
        self.lateral = nn.ModuleList(_pointwise(count, width) for count in inputs)
        self.context = nn.Conv2d(inputs[-1], width, 1)
        self.mix = nn.ModuleList(_separable(width) for _ in inputs)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classify = nn.Conv2d(width, num_classes + 1, 1)
        self.encoder.freeze(config.frozen_stages)

    def forward(self, image: Tensor | None, features: list[Tensor] | None = None) -> Tensor:
        """Segment a batch; see :meth:`Student.forward`."""
        if features is not None:
            dtype = self.classify.weight.dtype
            maps = self.encoder.upper([feature.to(dtype) for feature in features], self.config.frozen_stages)
        elif image is not None:
            maps = self.encoder(image)
        else:
            raise ValueError("either image or features must be given, got neither")
        maps = maps[-len(self.lateral) :]
        mixed = self.lateral[-1](maps[-1]) + self.context(F.adaptive_avg_pool2d(maps[-1], 1))
        mixed = self.mix[-1](F.relu(mixed))
        for level in reversed(range(len(maps) - 1)):
            size = maps[level].shape[-2:]
            if mixed.shape[-2:] != size:
                mixed = F.interpolate(mixed, size=size, mode="bilinear", align_corners=False)
            mixed = self.mix[level](F.relu(mixed + self.lateral[level](maps[level])))
        return self.classify(self.dropout(mixed))

    @torch.no_grad()
    def frozen_features(self, image: Tensor) -> list[Tensor] | None:
        """Return maps of the frozen stages that the rest needs, fine to coarse; ``None`` if none is frozen."""
        if not self.config.frozen_stages:
            return None
        maps = self.encoder.lower(image, self.config.frozen_stages)
        return maps[min(self.first, len(maps) - 1) :]

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Put the encoder at ``encoder_lr_factor`` times the rate, the decoder at the full one."""
        encoder = [(name, p) for name, p in self.named_parameters() if name.startswith("encoder.")]
        decoder = [(name, p) for name, p in self.named_parameters() if not name.startswith("encoder.")]
        return [
            *grouped(encoder, lr * self.config.encoder_lr_factor, weight_decay),
            *grouped(decoder, lr, weight_decay),
        ]


def _pointwise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def _separable(width: int) -> nn.Sequential:
    """Depthwise 3x3, then pointwise: the cheapest way to look around and to mix channels."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
