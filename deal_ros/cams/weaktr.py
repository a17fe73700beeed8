# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""WeakTr: a plain vision transformer whose own attention, weighted head by head, sharpens its class maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.backbones import BackboneError, VitBackbone, create_backbone
from deal_ros.backbones.weights import read_state_dict, strict_load
from deal_ros.cams.alignment import fit
from deal_ros.cams.base import CamNetwork, CamOutput


class AdaptiveAttentionFusion(nn.Module):
    r"""One weight in (0, 1) per attention head of the whole network, from what the heads put out.

    ``w = σ(W₂ ReLU(W₁ u))``, ``u_h = W₄(W₃ max_tokens f_h + b₃) + b₄``, f_h a head's share of its layer's output.

    Source: Zhu et al., WeakTr, 2023; no nonlinearity between W₃ and W₄, as in the release.

    Args:
        heads: attention heads of all layers together.
        width: channels per head.
        reduction: heads per hidden unit (8 as published).
        width_reduction: channels per hidden unit (8 as published).
    """

    def __init__(self, heads: int, width: int, reduction: int = 8, width_reduction: int = 8) -> None:
        super().__init__()
        hidden, narrow = max(1, heads // reduction), max(1, width // width_reduction)
        self.head_score = nn.Sequential(nn.Linear(width, narrow), nn.Linear(narrow, 1))
        self.mix = nn.Sequential(
            nn.Linear(heads, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, heads, bias=False), nn.Sigmoid()
        )

    def forward(self, outputs: Tensor) -> Tensor:
        """Head outputs float (B, heads, N, width) → weights float (B, heads)."""
        return self.mix(self.head_score(outputs.amax(2)).squeeze(-1))


class WeakTr(CamNetwork):
    r"""K class tokens, a 3×3 classifier on the patch tokens, and adaptive attention fusion.

    With A the mean over all heads of w_h·A_h, ``coarse = ReLU(raw)``, ``fine = A[patch, patch] · (A[class, patch] ⊙
    coarse)``. Attention and coarse maps are detached there, as published: a loss on the fine map trains the fusion
    weights alone, so DEAL and its like attach to ``raw``, the patch logits.

    Source: Zhu et al., WeakTr: Exploring Plain Vision Transformer for Weakly-supervised Semantic Segmentation, 2023;
    details read in hustvl/WeakTr: no final norm, class score = channel mean of a class token, head h of layer l holds
    every heads-th channel from h.

    Args:
        num_classes: K, without background.
        backbone: a plain vision transformer of timm with one class token.
        weights: ``auto`` (timm's hub), ``none``, a file of the backbone, or a published WeakTr checkpoint.
        frozen_stages: blocks that are not trained. Their output cannot be cached: all layers' attention is needed.
        drop_path_rate: stochastic depth, 0..1 (0.1 as published).
        reduction: heads per hidden unit of the fusion.

    Raises:
        BackboneError: if the backbone is no plain vision transformer or the weights cannot be had.
    """

    seed_scales = (1.0, 1.2)
    gap_term = ("patches", 1.0)

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "deit_small_patch16_224",
        weights: str = "auto",
        frozen_stages: int = 0,
        drop_path_rate: float = 0.1,
        reduction: int = 8,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        published = read_published(weights, "adaptive_attention_fusion.")
        trunk = create_backbone(
            backbone, weights="none" if published else weights, drop_path_rate=drop_path_rate, head=False
        )
        network = _plain(trunk)
        self.num_classes, self.mean, self.std = num_classes, trunk.mean, trunk.std
        self.stride = trunk.reductions[-1]
        width, self.heads = int(network.embed_dim), int(network.blocks[0].attn.num_heads)
        self.patch_embed, self.blocks = network.patch_embed, network.blocks
        self.grid = tuple(network.patch_embed.grid_size)
        self.cls_token = nn.Parameter(network.cls_token.detach().repeat(1, num_classes, 1))
        position = network.pos_embed.detach()
        self.pos_embed = nn.Parameter(torch.cat([position[:, :1].repeat(1, num_classes, 1), position[:, 1:]], dim=1))
        self.head = nn.Conv2d(width, num_classes, 3, padding=1)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.fusion = AdaptiveAttentionFusion(len(self.blocks) * self.heads, width // self.heads, reduction)
        self.frozen_stages = frozen_stages
        trunk.check_stages(frozen_stages)
        if published:
            strict_load(self, rename_weaktr(published), weights)
        if frozen_stages:
            for frozen in (self.patch_embed, self.cls_token, self.pos_embed, *self.blocks[:frozen_stages]):
                frozen.requires_grad_(False)

    def forward(self, image: Tensor, features: Tensor | None = None) -> CamOutput:
        """See :meth:`CamNetwork.forward`; ``raw`` are the patch logits, ``cam`` is the fine map.

        ``scores`` is the mean of the class tokens' and the averaged patches' logits, both of which are trained. An
        image whose sides are no multiples of the patch size is resized to the nearest ones first.
        """
        tokens, raw, fine = self._maps(image)
        return CamOutput(scores=(tokens + raw.mean((2, 3))) / 2, raw=raw, cam=fine)

    def _maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class-token logits (B, K), patch logits (B, K, h, w), fine map (B, K, h, w)."""
        image = fit(image, self.stride)
        size = (image.shape[2] // self.stride, image.shape[3] // self.stride)
        tokens = self._embed(image, size)
        attention, outputs = [], []
        for block in self.blocks:
            mixed, weights = _attend(block.attn, block.norm1(tokens))
            tokens = tokens + block.drop_path1(block.ls1(mixed))
            tokens = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
            attention.append(weights.detach())
            outputs.append(mixed.detach())
        classes, patches = tokens[:, : self.num_classes], tokens[:, self.num_classes :]
        raw = self.head(patches.transpose(1, 2).unflatten(2, size))
        fused = self._fuse(attention, outputs)
        coarse = raw.detach().relu()
        seen = fused[:, : self.num_classes, self.num_classes :].unflatten(2, size) * coarse
        fine = torch.einsum("bij,bkj->bki", fused[:, self.num_classes :, self.num_classes :], seen.flatten(2))
        return classes.mean(-1), raw, fine.unflatten(2, size)

    def training_forward(
        self, image: Tensor, labels: Tensor, features: Tensor | None = None
    ) -> tuple[CamOutput, dict[str, Tensor]]:
        """Three soft margin losses, unweighted as published: class tokens, patch logits, fine map."""
        tokens, raw, fine = self._maps(image)
        patches = raw.mean((2, 3))
        scores = {"class_tokens": tokens, "patches": patches, "fine_cam": fine.mean((2, 3))}
        output = CamOutput(scores=(tokens + patches) / 2, raw=raw, cam=fine)
        return output, {name: F.multilabel_soft_margin_loss(score, labels) for name, score in scores.items()}

    def train(self, mode: bool = True) -> WeakTr:
        """As in torch; frozen blocks stay in evaluation mode."""
        super().train(mode)
        for block in self.blocks[: self.frozen_stages]:
            block.eval()
        return self

    def _embed(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        patches = self.patch_embed.proj(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1)
        classes, position = self.pos_embed[:, : self.num_classes], self.pos_embed[:, self.num_classes :]
        if size != self.grid:
            grid = position.transpose(1, 2).unflatten(2, self.grid)
            position = F.interpolate(grid, size, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        return tokens + torch.cat([classes, position], dim=1)

    def _fuse(self, attention: list[Tensor], outputs: list[Tensor]) -> Tensor:
        """Mean over all heads of weight times attention, float (B, N, N)."""
        # Channel c of a layer's output belongs to head c % heads: (B, N, width, heads) → (B, heads, layers, N, width)
        shares = torch.stack([output.unflatten(2, (-1, self.heads)) for output in outputs]).permute(1, 4, 0, 2, 3)
        weights = self.fusion(shares.flatten(1, 2)).unflatten(1, (self.heads, len(attention)))
        total = torch.zeros_like(attention[0][:, 0])
        for layer, maps in enumerate(attention):
            total = total + torch.einsum("bh,bhij->bij", weights[:, :, layer], maps)
        return total / (self.heads * len(attention))


def rename_weaktr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the published WeakTr checkpoints → ours; the final norm, which WeakTr never applies, is left out."""
    parts = {
        "adaptive_attention_fusion.attn_head_ffn.": "fusion.mix.",
        "adaptive_attention_fusion.attn_feat_ffn.": "fusion.head_score.",
    }
    renamed = {}
    for key, value in state.items():
        for published, own in parts.items():
            key = own + key[len(published) :] if key.startswith(published) else key
        if not key.startswith("norm."):
            renamed[key] = value
    return renamed


def read_published(weights: str, mark: str) -> dict[str, Tensor] | None:
    """Read the tensors of a file if one of their names starts with ``mark``, the sign of a whole published network."""
    if weights in ("auto", "none") or not Path(weights).is_file():
        return None
    state = read_state_dict(weights)
    return state if any(key.startswith(mark) for key in state) else None


def _plain(trunk: Any) -> Any:
    network = trunk.network if isinstance(trunk, VitBackbone) else None
    blocks = list(network.blocks) if network is not None else []
    if (
        network is None
        or any(type(block).__name__ != "Block" or type(block.attn).__name__ != "Attention" for block in blocks)
        or any(getattr(block.attn, "gate", None) is not None for block in blocks)
        or network.num_prefix_tokens != 1
        or network.cls_token is None
        or network.pos_embed is None
        or network.no_embed_class
        or not isinstance(network.norm_pre, nn.Identity)
    ):
        raise BackboneError(
            "WeakTr's backbone must be a plain vision transformer with one class token and learned positions, such as"
            f" deit_small_patch16_224 or vit_base_patch16_224, got {trunk.name!r}"
        )
    return network


def _attend(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Timm's self-attention, with its weights: float (B, N, C) and float (B, heads, N, N)."""
    qkv = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = attention.q_norm(qkv[0]), attention.k_norm(qkv[1]), qkv[2]
    weights = ((query * attention.scale) @ key.transpose(-2, -1)).softmax(-1)
    mixed = (attention.attn_drop(weights) @ value).transpose(1, 2).flatten(2)
    scaled = attention.norm(mixed) if hasattr(attention, "norm") else mixed
    return attention.proj_drop(attention.proj(scaled)), weights
