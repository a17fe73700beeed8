# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The wide, shallow residual network ResNet-38 with dilation, stride 8, that SEAM and its relatives build on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.backbones.backbone import ConvBackbone
from deal_ros.backbones.weights import BackboneError


class PreActivation(nn.Module):
    """BatchNorm and ReLU before a block; in this network also what follows the last block of a stage."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, C, H, W) → the same shape."""
        return F.relu(self.bn(x))


class WideBlock(nn.Module):
    """Pre-activated residual block: convolutions with BatchNorm, ReLU and dropout between them, plus a shortcut.

    A block that changes the shape expects its input already activated (the activation belongs to the stage before) and
    projects the shortcut; any other activates its input itself and adds it as it came.

    Args:
        channels: of the input and of every convolution's output.
        kernels: size of each convolution.
        dilations: of each convolution.
        stride: of the first convolution and the shortcut.
        dropout: share of channels dropped before every convolution but the first.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        kernels: tuple[int, ...],
        dilations: tuple[int, ...],
        stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        changes = channels[0] != channels[-1] or stride != 1
        self.act = None if changes else PreActivation(channels[0])
        self.shortcut = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False) if changes else None
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (kernel, dilation) in enumerate(zip(kernels, dilations)):
            if i:
                layers[f"act{i}"] = PreActivation(channels[i])
                if dropout:
                    layers[f"drop{i}"] = nn.Dropout2d(dropout)
            layers[f"conv{i}"] = nn.Conv2d(
                channels[i],
                channels[i + 1],
                kernel,
                stride if i == 0 else 1,
                padding=dilation * (kernel // 2),
                dilation=dilation,
                bias=False,
            )
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, channels[0], H, W) → float (B, channels[-1], H/stride, W/stride)."""
        activated = x if self.act is None else self.act(x)
        return (x if self.shortcut is None else self.shortcut(activated)) + self.layers(activated)


def resnet38d() -> ConvBackbone:
    """Build ResNet-38d with random weights.

    Source: Wu et al., Wider or Deeper: Revisiting the ResNet Model for Visual Recognition, 2016, model A1; strides and
    dilations as in YudeWang/SEAM. The last three maps are SEAM's conv4, conv5 and conv6.

    Returns:
        Five stages with 128, 256, 512, 1024 and 4096 channels at strides 2, 4, 8, 8 and 8.
    """

    def wide(before: int, middle: int, after: int, stride: int = 1, first: int = 1, second: int = 1) -> WideBlock:
        return WideBlock((before, middle, after), (3, 3), (first, second), stride)

    def narrow(before: int, after: int, dropout: float) -> WideBlock:
        return WideBlock((before, after // 4, after // 2, after), (1, 3, 1), (1, 4, 1), dropout=dropout)

    stages: list[list[tuple[str, nn.Module]]] = [
        [
            ("conv1a", nn.Conv2d(3, 64, 3, padding=1, bias=False)),
            ("b2_act", PreActivation(64)),
            ("b2", wide(64, 128, 128, 2)),
            *((f"b2_{i}", wide(128, 128, 128)) for i in (1, 2)),
            ("b3_act", PreActivation(128)),
        ],
        [
            ("b3", wide(128, 256, 256, 2)),
            *((f"b3_{i}", wide(256, 256, 256)) for i in (1, 2)),
            ("b4_act", PreActivation(256)),
        ],
        [
            ("b4", wide(256, 512, 512, 2)),
            *((f"b4_{i}", wide(512, 512, 512)) for i in range(1, 6)),
            ("b5_act", PreActivation(512)),
        ],
        [
            ("b5", wide(512, 512, 1024, 1, 1, 2)),
            *((f"b5_{i}", wide(1024, 512, 1024, 1, 2, 2)) for i in (1, 2)),
            ("b6_act", PreActivation(1024)),
        ],
        [
            ("b6", narrow(1024, 2048, 0.3)),
            ("b7_act", PreActivation(2048)),
            ("b7", narrow(2048, 4096, 0.5)),
            ("bn7", PreActivation(4096)),
        ],
    ]
    return ConvBackbone(
        "resnet38d",
        [nn.Sequential(OrderedDict(stage)) for stage in stages],
        (128, 256, 512, 1024, 4096),
        (2, 4, 8, 8, 8),
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    )


def rename_resnet38d(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Names of SEAM's and AffinityNet's ResNet-38 checkpoints → names of :func:`resnet38d`.

    Args:
        state: tensors by published name, for example ``b4_1.bn_branch2a.weight``; others are left out.
        backbone: from :func:`resnet38d`.

    Returns:
        Tensors by our name. BatchNorm step counters missing in old checkpoints are filled with zero.

    Raises:
        BackboneError: if a tensor of the network is missing.
    """
    own = backbone.state_dict()
    renamed: dict[str, Tensor] = {}
    for key in own:
        _, _, block, rest = key.split(".", 3)
        published = _published(block, rest)
        if published in state:
            renamed[key] = state[published]
        elif key.endswith("num_batches_tracked"):
            renamed[key] = torch.zeros((), dtype=torch.long)
        else:
            raise BackboneError(f"a ResNet-38 checkpoint must hold {published!r}, but it is missing")
    return renamed


def _published(block: str, rest: str) -> str:
    kind = rest.rpartition(".")[2]
    if block == "conv1a":
        return f"conv1a.{kind}"
    if block == "bn7":
        return f"bn7.{kind}"
    if block.endswith("_act"):
        return f"{block.removesuffix('_act')}.bn_branch2a.{kind}"
    parts = {
        "act.bn": "bn_branch2a",
        "shortcut": "conv_branch1",
        "layers.conv0": "conv_branch2a",
        "layers.act1.bn": "bn_branch2b1",
        "layers.conv1": "conv_branch2b1",
        "layers.act2.bn": "bn_branch2b2",
        "layers.conv2": "conv_branch2b2",
    }
    return f"{block}.{parts[rest.rpartition('.')[0]]}.{kind}"
