# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Test-time inference as papers do it: sliding windows, several scales, mirrored. Robots use the predictor instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deal_ros.students.base import Student


@dataclass(frozen=True)
class InferenceConfig:
    """How a student is asked.

    Args:
        scales: the image is also segmented at these multiples of its size; 1.0 alone is single-scale.
        flip: also segment the mirrored image.
        window: side of the square windows in pixels of the scaled image; ``None`` takes the image whole. WeakTr: 480.
        window_stride: step between windows, at most ``window``. WeakTr: 320.
        window_batch: windows that go through the network at once.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None
    window_stride: int = 320
    window_batch: int = 4

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        if not self.scales or not all(0 < scale <= 8 for scale in self.scales):
            raise ValueError(f"scales must be one or more numbers in (0, 8], got {self.scales}")
        if self.window is not None and not (self.window >= 32 and 1 <= self.window_stride <= self.window):
            raise ValueError(
                f"window must be at least 32 and window_stride in 1..window, got {self.window} and {self.window_stride}"
            )
        if self.window_batch < 1:
            raise ValueError(f"window_batch must be at least 1, got {self.window_batch}")


@torch.no_grad()
def segment(student: Student, rgb: Tensor, config: InferenceConfig = InferenceConfig()) -> Tensor:
    r"""Class probabilities, averaged over scales and mirrorings: ``p = mean_s mean_f softmax(logits_{s,f})``.

    Source: multi-scale and flip testing of Chen et al., arXiv 1706.05587, section 4.1; sliding windows with averaged
    logits as Strudel et al., ICCV 2021, section 4.2.

    Args:
        student: in evaluation mode.
        rgb: uint8 (B, 3, H, W) or float in [0, 1], RGB.
        config: see :class:`InferenceConfig`.

    Returns:
        float32 (B, K+1, H, W), non-negative, summing to 1 over classes.

    Raises:
        ValueError: if ``rgb`` is not (B, 3, H, W) or the student is in training mode.
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ValueError(f"rgb must be (B, 3, H, W), got {tuple(rgb.shape)}")
    if student.training:
        raise ValueError("student must be in evaluation mode, got training mode; call student.eval()")
    image, size = student.normalize(rgb), (rgb.shape[2], rgb.shape[3])
    total = torch.zeros(len(rgb), student.num_classes + 1, *size, device=rgb.device)
    for scale in config.scales:
        scaled = image
        if scale != 1:
            target = [max(32, round(side * scale)) for side in size]
            scaled = F.interpolate(image, size=target, mode="bilinear", align_corners=False, antialias=scale < 1)
        for mirrored in (False, True) if config.flip else (False,):
            logits = window_logits(student, scaled.flip(-1) if mirrored else scaled, config)
            logits = logits.flip(-1) if mirrored else logits
            total += F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).softmax(1)
    return total / (len(config.scales) * (2 if config.flip else 1))


@torch.no_grad()
def window_logits(student: Student, image: Tensor, config: InferenceConfig) -> Tensor:
    """Logits of a normalised image, float (B, K+1, H, W), or coarser where it is taken whole.

    Where windows overlap, logits are averaged. The last window of a row or column is moved back into the image;
    an image smaller than a window is padded with zeros (the mean colour), and the padding's logits are cut off.
    """
    window = config.window
    if window is None:
        return student(image)
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, max(0, window - width), 0, max(0, window - height)))
    places = [
        (top, left)
        for top in _starts(padded.shape[2], window, config.window_stride)
        for left in _starts(padded.shape[3], window, config.window_stride)
    ]
    total = torch.zeros(len(image), student.num_classes + 1, *padded.shape[-2:], device=image.device)
    count = torch.zeros(padded.shape[-2:], device=image.device)
    for begin in range(0, len(places), config.window_batch):
        some = places[begin : begin + config.window_batch]
        crops = torch.cat([padded[:, :, top : top + window, left : left + window] for top, left in some])
        logits = F.interpolate(student(crops).float(), size=(window, window), mode="bilinear", align_corners=False)
        for (top, left), part in zip(some, logits.split(len(image))):
            total[:, :, top : top + window, left : left + window] += part
            count[top : top + window, left : left + window] += 1
    return (total / count)[:, :, :height, :width]


def _starts(length: int, window: int, stride: int) -> Sequence[int]:
    """First pixels of the windows along one axis; the last one ends with the image."""
    return sorted({*range(0, length - window, stride), length - window})
