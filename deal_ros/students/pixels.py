# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What happens to pixels before and after a student: camera image → network input, logits → mask and confidence.

Both directions exist as plain torch operators, for any device and for export; :class:`CpuDecoder` does the second one
with OpenCV in buffers made once. They give the same masks.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.sample import IGNORE_ID

Size = tuple[int, int]
Triple = tuple[float, float, float]


def network_size(image: Size, trained: Size) -> Size:
    """Height and width for the network: as many pixels as it was trained on, in the proportions of the camera image.

    Args:
        image: of the camera image.
        trained: of the training images, ``BundleSpec.input_size``.

    Returns:
        ``trained`` itself where the proportions are the same to 2 %, else multiples of 16.

    Example:
        >>> network_size((480, 640), (240, 320)), network_size((720, 1280), (240, 320))
        ((240, 320), (208, 368))
    """
    aspect, trained_aspect = image[1] / image[0], trained[1] / trained[0]
    if abs(aspect / trained_aspect - 1) < 0.02:
        return trained
    height = (trained[0] * trained[1] / aspect) ** 0.5
    return max(32, 16 * round(height / 16)), max(32, 16 * round(height * aspect / 16))


class Encoder(nn.Module):
    """Resize and normalise.

    Args:
        size: height and width of the result. Reducing is antialiased: a large camera image looks like a small one.
        mean, std: for values in [0, 1].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, size: Size, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.size = size
        scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32)
        shift = torch.tensor([-m / s for m, s in zip(mean, std)], dtype=torch.float32)
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))

    def forward(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Encode a batch.

        Args:
            images: uint8 (B, H, W, 3), RGB.
            out: float32 (B, 3, *size), overwritten and returned; ``None`` makes a new one, channels last in memory.
        """
        planes = images.permute(0, 3, 1, 2)
        if (planes.shape[2], planes.shape[3]) != tuple(self.size):
            exporting = torch.jit.is_tracing()  # Of this thread: another one may export while this one predicts.
            planes = _OnnxResize.apply(planes.float(), self.size) if exporting else self._resize(planes)
        if out is None:
            return planes.float() * self.scale + self.shift
        return out.copy_(planes).mul_(self.scale).add_(self.shift)

    def _resize(self, planes: Tensor) -> Tensor:
        # On the CPU, torch resizes bytes with vector instructions; elsewhere it needs floats, rounded to be the same.
        if planes.device.type == "cpu":
            return _antialiased(planes, self.size)
        return _antialiased(planes.float(), self.size).round_()


def _antialiased(planes: Tensor, size: Size) -> Tensor:
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=True)


class _OnnxResize(torch.autograd.Function):
    """Antialiased bilinear resizing with its ONNX form, which torch's tracing exporter does not know."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, size: Size) -> Tensor:
        return _antialiased(planes, size).round()

    @staticmethod
    def symbolic(g: Any, planes: Any, size: Size) -> Any:
        none = g.op("Constant", value_t=torch.empty(0))
        sizes = g.op("Constant", value_t=torch.tensor([1, 3, *size]))
        how = {"mode_s": "linear", "coordinate_transformation_mode_s": "half_pixel", "antialias_i": 1}
        return g.op("Round", g.op("Resize", planes, none, none, sizes, **how))


def decode(logits: Tensor, size: Size, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Mask and confidence of the camera's size.

    ``mask = argmax_c up(logits)_c`` and ``confidence = 255 · up(softmax(logits))_mask``, with ``up`` bilinear and
    half-pixel centres. The confidence is enlarged as a probability, so no exponential is taken per camera pixel.

    Args:
        logits: float (B, K+1, h, w).
        size: (H, W) of the camera image.
        threshold: pixels with a confidence below this, in [0, 1], become 255 (unlabelled).

    Returns:
        mask uint8 (B, H, W) and confidence uint8 (B, H, W).
    """
    logits = logits.float()
    masks, confidences = [], []
    for one in logits.split(1):  # One image at a time: K+1 full-size planes of a batch may not fit.
        labels = F.interpolate(one, size=size, mode="bilinear", align_corners=False).argmax(1, keepdim=True)
        probability = F.interpolate(one.softmax(1), size=size, mode="bilinear", align_corners=False).gather(1, labels)
        confidence = (probability * 255 + 0.5).to(torch.uint8)
        mask = labels.to(torch.uint8)
        if threshold > 0:
            mask = torch.where(confidence < round(threshold * 255), IGNORE_ID, mask).to(torch.uint8)
        masks.append(mask[:, 0])
        confidences.append(confidence[:, 0])
    return (torch.cat(masks), torch.cat(confidences)) if len(masks) > 1 else (masks[0], confidences[0])


class CpuDecoder:
    """:func:`decode` on the CPU: a running maximum over classes, one plane at a time, in buffers that stay in cache.

    Classes that cannot win anywhere are left out. A value between grid points is a weighted mean of the four around it;
    so a class whose largest of the four is below some other class's smallest of the four loses in the whole cell.

    Args:
        size: (H, W) of the camera image.
        threshold: as in :func:`decode`.
    """

    def __init__(self, size: Size, threshold: float = 0.0) -> None:
        self.size, self.threshold = size, round(threshold * 255) if threshold > 0 else 0
        self._best, self._plane = np.empty(size, np.float32), np.empty(size, np.float32)
        self._wins, self._bytes = np.empty(size, np.uint8), np.empty(size, np.uint8)
        self._constants: dict[int, NDArray[np.uint8]] = {}

    def __call__(self, logits: NDArray[np.float32], mask: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> None:
        """Decode one image.

        Args:
            logits: float32 (K+1, h, w), C-contiguous.
            mask: uint8 (H, W), C-contiguous, overwritten.
            confidence: likewise.
        """
        shape = self.size[1], self.size[0]
        probability = (torch.from_numpy(logits).softmax(0) * 255 + 0.5).to(torch.uint8).numpy()
        first, *others = candidates(logits)
        cv2.resize(logits[first], shape, dst=self._best, interpolation=cv2.INTER_LINEAR)
        cv2.resize(probability[first], shape, dst=confidence, interpolation=cv2.INTER_LINEAR)
        mask.fill(first)
        for index in others:
            cv2.resize(logits[index], shape, dst=self._plane, interpolation=cv2.INTER_LINEAR)
            cv2.compare(self._plane, self._best, cv2.CMP_GT, dst=self._wins)
            cv2.max(self._plane, self._best, dst=self._best)
            cv2.resize(probability[index], shape, dst=self._bytes, interpolation=cv2.INTER_LINEAR)
            cv2.copyTo(self._bytes, self._wins, confidence)
            cv2.copyTo(self._constant(index), self._wins, mask)
        if self.threshold:
            np.less(confidence, self.threshold, out=self._wins.view(np.bool_))
            cv2.copyTo(self._constant(IGNORE_ID), self._wins, mask)

    def _constant(self, value: int) -> NDArray[np.uint8]:
        if value not in self._constants:
            self._constants[value] = np.full(self.size, value, np.uint8)
        return self._constants[value]


def candidates(logits: NDArray[np.float32]) -> list[int]:
    """Classes of float (K+1, h, w) that may win somewhere after bilinear enlargement, ascending; never none."""
    lowest = highest = logits
    for axis in (1, 2):
        if logits.shape[axis] > 1:
            left = (slice(None),) * axis + (slice(None, -1),)
            right = (slice(None),) * axis + (slice(1, None),)
            lowest, highest = np.minimum(lowest[left], lowest[right]), np.maximum(highest[left], highest[right])
    return np.flatnonzero((highest >= lowest.max(0)).any(axis=(1, 2))).tolist()
