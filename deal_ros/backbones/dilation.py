# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Dilated depthwise convolutions as ordinary ones on interleaved phases: same numbers, faster on a CPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PhaseSplitConv2d(nn.Conv2d):
    """A stride-1 depthwise convolution of dilation d, computed as an undilated one on d·d phases of the image.

    Pixels of a dilated convolution only meet pixels whose row and column differ by multiples of d, so the image falls
    into d·d independent phases: ``pixel_unshuffle``, an ordinary convolution, ``pixel_shuffle``. Exact, borders
    included, with "same" zero padding d·(k-1)/2. The parameters, and their names, are those of the original.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """Float (B, C, H, W) → float (B, C, H, W)."""
        dilation, size = self.dilation[0], self.kernel_size[0]
        height, width = input.shape[-2:]
        extra = (0, -width % dilation, 0, -height % dilation)
        phases = F.pixel_unshuffle(F.pad(input, extra) if any(extra) else input, dilation)
        weight = self.weight.repeat_interleave(dilation**2, dim=0)
        bias = None if self.bias is None else self.bias.repeat_interleave(dilation**2)
        output = F.conv2d(phases, weight, bias, padding=size // 2, groups=phases.shape[1])
        return F.pixel_shuffle(output, dilation)[..., :height, :width]


def split_dilated_depthwise(network: nn.Module) -> int:
    """Let every eligible dilated depthwise convolution of ``network`` compute phase-split, in place.

    Eligible: depthwise with multiplier 1, stride 1, square odd kernel, equal dilation > 1, "same" padding.

    Returns:
        How many convolutions were changed.
    """
    count = 0
    for module in network.modules():
        if type(module).__name__ in ("Conv2d", "Conv2dSame") and _eligible(module):  # type: ignore[arg-type]
            module.__class__ = PhaseSplitConv2d
            count += 1
    return count


def _eligible(conv: nn.Conv2d) -> bool:
    size, dilation = conv.kernel_size, conv.dilation
    same = type(conv).__name__ == "Conv2dSame" or conv.padding == (dilation[0] * (size[0] // 2),) * 2
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == (1, 1)
        and size[0] == size[1]
        and size[0] % 2 == 1
        and dilation[0] == dilation[1] > 1
        and conv.padding_mode == "zeros"
        and same
    )
