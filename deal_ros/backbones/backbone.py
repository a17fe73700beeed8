# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A backbone cut into stages: run it whole, or its frozen lower part once and the upper part often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

Triple = tuple[float, float, float]


@torch.no_grad()
def normalize_rgb(rgb: Tensor, mean: Triple, std: Triple) -> Tensor:
    """uint8 (B, 3, H, W) or float in [0, 1] → ``(rgb - mean) / std``, float32 of the same shape."""
    image = rgb.float() / 255 if rgb.dtype == torch.uint8 else rgb.float()
    shift = torch.tensor(mean, device=image.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, device=image.device).view(1, 3, 1, 1)
    return (image - shift) / scale


class Backbone(nn.Module, ABC):
    """An image network that gives one feature map per stage, fine to coarse.

    Attributes:
        name: timm name.
        mean, std: RGB normalisation, for images in [0, 1].
        channels: channels of each feature map.
        reductions: image pixels per cell of each feature map.
        frozen_stages: how many stages :meth:`freeze` has frozen.
    """

    name: str
    mean: Triple
    std: Triple
    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    frozen_stages: int = 0

    def forward(self, image: Tensor) -> list[Tensor]:
        """Float (B, 3, H, W), normalised → feature maps float (B, channels[i], ~H/reductions[i], ~W/reductions[i])."""
        return self.upper(self.lower(image, self.frozen_stages), self.frozen_stages)

    @abstractmethod
    def lower(self, image: Tensor, stages: int) -> list[Tensor]:
        """Run the first ``stages`` stages.

        Args:
            image: float (B, 3, H, W), normalised.
            stages: 0 .. number of stages. With 0 the result is ``[image]``.

        Returns:
            Feature maps of these stages; all or the last can be cached and handed to :meth:`upper`.
        """

    @abstractmethod
    def upper(self, features: list[Tensor], stages: int) -> list[Tensor]:
        """Go on from what :meth:`lower` returned for the same ``stages``.

        Args:
            features: all maps of :meth:`lower`, or only the last of them.
            stages: as given to :meth:`lower`.

        Returns:
            ``features`` followed by the maps of the remaining stages; of a transformer the last map alone.
        """

    @abstractmethod
    def stage_modules(self, stages: int) -> list[nn.Module]:
        """Return the modules of the stem and the first ``stages`` stages."""

    @property
    def num_stages(self) -> int:
        """Return the number of stages, the stem being part of the first."""
        return len(self.channels)

    def freeze(self, stages: int) -> None:
        """Freeze parameters and BatchNorm statistics of the stem and the first ``stages`` stages; 0 freezes nothing.

        Raises:
            ValueError: if there are fewer stages.
        """
        self.check_stages(stages)
        for module in self.stage_modules(self.num_stages):
            module.requires_grad_(True)
        self.frozen_stages = stages
        for module in self.stage_modules(stages):
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As in torch, but frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self.stage_modules(self.frozen_stages):
            module.eval()
        return self

    def check_stages(self, stages: int) -> None:
        """Raise ``ValueError`` if ``stages`` is not 0 .. number of stages."""
        if not 0 <= stages <= self.num_stages:
            raise ValueError(f"stages must be 0..{self.num_stages} for {self.name}, got {stages}")

    def check_image(self, image: Tensor) -> None:
        """Raise ``ValueError`` if ``image`` is not float (B, 3, H, W)."""
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(f"image must be float (B, 3, H, W), normalised, got {image.dtype} {tuple(image.shape)}")


class ConvBackbone(Backbone):
    """A chain of convolutional stages, each ending in a feature map.

    Args:
        name: timm name.
        stages: modules run one after the other.
        channels, reductions, mean, std: see :class:`Backbone`.
    """

    def __init__(
        self,
        name: str,
        stages: list[nn.Sequential],
        channels: tuple[int, ...],
        reductions: tuple[int, ...],
        mean: Triple,
        std: Triple,
    ) -> None:
        super().__init__()
        self.name, self.channels, self.reductions = name, channels, reductions
        self.mean, self.std = mean, std
        self.stages = nn.ModuleList(stages)

    def lower(self, image: Tensor, stages: int) -> list[Tensor]:
        """See :meth:`Backbone.lower`."""
        self.check_image(image)
        self.check_stages(stages)
        return self._run([image], 0, stages)[1 if stages else 0 :]

    def upper(self, features: list[Tensor], stages: int) -> list[Tensor]:
        """See :meth:`Backbone.upper`."""
        self.check_stages(stages)
        return self._run(list(features), stages, self.num_stages)[0 if stages else 1 :]

    def stage_modules(self, stages: int) -> list[nn.Module]:
        """See :meth:`Backbone.stage_modules`."""
        return list(self.stages[:stages])

    def _run(self, features: list[Tensor], start: int, end: int) -> list[Tensor]:
        for stage in self.stages[start:end]:
            features.append(stage(features[-1]))
        return features


class VitBackbone(Backbone):
    """A plain vision transformer; a stage is one block, and only the last one gives a map (after the final norm).

    Args:
        name: timm name.
        network: timm's VisionTransformer, made with ``dynamic_img_size=True``.
        mean, std: see :class:`Backbone`.
    """

    def __init__(self, name: str, network: Any, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.name, self.mean, self.std = name, mean, std
        self.network = network
        self.patch = int(network.patch_embed.patch_size[0])
        self.channels = (int(network.embed_dim),) * len(network.blocks)
        self.reductions = (self.patch,) * len(network.blocks)

    def lower(self, image: Tensor, stages: int) -> list[Tensor]:
        """Tokens after ``stages`` blocks: [patches float (B, C, h, w), prefix tokens float (B, P, C)]."""
        self.check_image(image)
        self.check_stages(stages)
        if stages == 0:
            return [image]
        tokens = self._embed(image)
        for block in self.network.blocks[:stages]:
            tokens = block(tokens)
        prefix = self.network.num_prefix_tokens
        size = (image.shape[2] // self.patch, image.shape[3] // self.patch)
        return [tokens[:, prefix:].transpose(1, 2).unflatten(2, size), tokens[:, :prefix]]

    def upper(self, features: list[Tensor], stages: int) -> list[Tensor]:
        """Run the remaining blocks and the final norm; returns one map, float (B, C, h, w)."""
        self.check_stages(stages)
        if stages == 0:
            size = (features[0].shape[2] // self.patch, features[0].shape[3] // self.patch)
            tokens = self._embed(features[0])
        else:
            patches, prefix = features
            size = (patches.shape[2], patches.shape[3])
            tokens = torch.cat([prefix, patches.flatten(2).transpose(1, 2)], dim=1)
        for block in self.network.blocks[stages:]:
            tokens = block(tokens)
        tokens = self.network.norm(tokens)[:, self.network.num_prefix_tokens :]
        return [tokens.transpose(1, 2).unflatten(2, size)]

    def stage_modules(self, stages: int) -> list[nn.Module]:
        """See :meth:`Backbone.stage_modules`; position embeddings and class tokens belong to the stem."""
        if stages == 0:
            return []
        if stages == self.num_stages:
            return [self.network]
        tokens = [_Parameters(p) for n, p in self.network.named_parameters() if "." not in n]
        return [self.network.patch_embed, self.network.norm_pre, *tokens, *self.network.blocks[:stages]]

    def _embed(self, image: Tensor) -> Tensor:
        if image.shape[2] % self.patch or image.shape[3] % self.patch:
            raise ValueError(f"image sides must be multiples of {self.patch} for {self.name}, got {tuple(image.shape)}")
        network = self.network
        return network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(image))))


class _Parameters(nn.Module):
    """A view on a bare parameter, so that it can be frozen like a module."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter
