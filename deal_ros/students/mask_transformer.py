# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""WeakTr's student: a vision transformer whose patches are scored against learnt class tokens."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.backbones import BackboneError, VitBackbone, create_backbone, import_timm
from deal_ros.students.base import Student, grouped


@dataclass(frozen=True)
class MaskTransformerConfig:
    """What a :class:`MaskTransformerStudent` is built from.

    Args:
        encoder: name of a plain timm ViT; WeakTr uses DeiT-S/16.
        layers: transformer layers of the decoder, 1..12; 2 in WeakTr and Segmenter.
        drop_path: stochastic depth of the encoder in training, 0..0.9; 0.1 in Segmenter.
        encoder_lr_factor: the encoder learns at this multiple of the rate; 0.1 in WeakTr.
    """

    encoder: str = "deit_small_patch16_224"
    layers: int = 2
    drop_path: float = 0.1
    encoder_lr_factor: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        for name, low, high in (("layers", 1, 12), ("drop_path", 0, 0.9), ("encoder_lr_factor", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in {low}..{high}, got {getattr(self, name)}")


class MaskTransformerStudent(Student):
    r"""Segmenter's mask transformer on a plain ViT, as WeakTr trains it on its pseudo-labels.

    Patch tokens ``z`` and K+1 learnt class tokens ``c`` go through ``layers`` joint transformer layers; the logit of
    class k at patch i is the cosine ``⟨W_p z_i, W_c c_k⟩ / (|W_p z_i| |W_c c_k|)``, normalised over the classes by a
    layer norm whose scale is learnt.

    Source: Strudel et al., *Segmenter: Transformer for Semantic Segmentation*, ICCV 2021, section 3.2; Zhu et al.,
    *WeakTr*, arXiv 2304.01184 (crop 480, encoder ×0.1). An image whose sides are no multiples of the patch is resized
    to the nearest ones, so that the logits still cover exactly the view.

    Args:
        num_classes: K, without background.
        config: see :class:`MaskTransformerConfig`.
        weights: ``auto`` (ImageNet), ``none``, or a file, as :func:`deal_ros.backbones.create_backbone`.

    Example:
        >>> config = MaskTransformerConfig(encoder="deit_tiny_patch16_224")
        >>> student = MaskTransformerStudent(3, config, weights="none").eval()
        >>> student(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 4, 4, 6])
    """

    name = "mask_transformer"
    config_class = MaskTransformerConfig

    def __init__(
        self, num_classes: int, config: MaskTransformerConfig = MaskTransformerConfig(), *, weights: str = "auto"
    ) -> None:
        super().__init__(num_classes)
        self.config = config
        self.encoder = create_backbone(config.encoder, weights=weights, drop_path_rate=config.drop_path)
        if not isinstance(self.encoder, VitBackbone):
            raise BackboneError(f"encoder must be a plain vision transformer, got {config.encoder!r}")
        self.mean, self.std = self.encoder.mean, self.encoder.std
        self.size_multiple = self.encoder.patch
        width, heads = self.encoder.channels[-1], self.encoder.network.blocks[0].attn.num_heads
        block = import_timm().models.vision_transformer.Block
        self.project = nn.Linear(width, width)
        self.class_tokens = nn.Parameter(torch.empty(1, num_classes + 1, width))
        self.blocks = nn.Sequential(*(block(width, heads, qkv_bias=True) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(width)
        self.patch_head = nn.Linear(width, width, bias=False)
        self.class_head = nn.Linear(width, width, bias=False)
        self.score_norm = nn.LayerNorm(num_classes + 1)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)
        for head in (self.patch_head, self.class_head):
            nn.init.normal_(head.weight, std=width**-0.5)

    def forward(self, image: Tensor | None, features: list[Tensor] | None = None) -> Tensor:
        """Segment a batch; see :meth:`Student.forward`. Nothing is frozen, so ``features`` are not taken."""
        if image is None or features is not None:
            raise ValueError("mask_transformer has no frozen part: image must be given and features must be None")
        patch = self.size_multiple
        rows, columns = self._grid((int(image.shape[2]), int(image.shape[3])))
        if image.shape[-2:] != (rows * patch, columns * patch):
            image = F.interpolate(image, size=(rows * patch, columns * patch), mode="bilinear", align_corners=False)
        tokens = self.project(self.encoder(image)[-1].flatten(2).transpose(1, 2))  # (B, rows·columns, C)
        joint = torch.cat([tokens, self.class_tokens.expand(tokens.shape[0], -1, -1)], dim=1)
        joint = self.norm(self.blocks(joint))
        patches = F.normalize(self.patch_head(joint[:, : tokens.shape[1]]), dim=-1)
        classes = F.normalize(self.class_head(joint[:, tokens.shape[1] :]), dim=-1)
        scores = self.score_norm(patches @ classes.transpose(1, 2))  # (B, rows·columns, K+1)
        return scores.transpose(1, 2).unflatten(2, (rows, columns))

    def fixed_to(self, size: tuple[int, int]) -> MaskTransformerStudent:
        """Make a copy whose position embedding is resized once and for all; see :meth:`Student.fixed_to`."""
        student = copy.deepcopy(self)
        rows, columns = self._grid(size)
        network: Any = student.encoder.network
        network.set_input_size(img_size=(rows * self.size_multiple, columns * self.size_multiple))
        network.dynamic_img_size, network.patch_embed.flatten = False, True
        return student

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches that come nearest to a height and width in pixels."""
        return max(1, round(size[0] / self.size_multiple)), max(1, round(size[1] / self.size_multiple))

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Put the encoder at ``encoder_lr_factor`` times the rate, the decoder at the full one."""
        encoder = [(name, p) for name, p in self.named_parameters() if name.startswith("encoder.")]
        decoder = [(name, p) for name, p in self.named_parameters() if not name.startswith("encoder.")]
        return [
            *grouped(encoder, lr * self.config.encoder_lr_factor, weight_decay),
            *grouped(decoder, lr, weight_decay),
        ]
