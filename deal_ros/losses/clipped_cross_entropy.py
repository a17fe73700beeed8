# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""WeakTr's gradient clipping: once a student has learned, pixels of unusual loss are distrusted, not obeyed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.sample import IGNORE_ID


@dataclass(frozen=True)
class ClippedCrossEntropyConfig:
    """Constants of the clipped loss; the defaults are the published ones (hustvl/WeakTr, online retraining).

    Args:
        start_loss: clipping begins once the mean loss is not above this; plain cross-entropy before.
        patch: side of the square patches over which the local threshold is taken, pixels (120 for crops of 480).
        ignore_index: target value that has no loss.
        count_ignored: let ignored pixels enter every mean as 0, as the release does; by default only labelled pixels
            are averaged, as cross-entropy usually is.

    Raises:
        ValueError: if a field is outside its range.
    """

    start_loss: float = 1.2
    patch: int = 120
    ignore_index: int = IGNORE_ID
    count_ignored: bool = False

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.start_loss < 0 or self.patch < 1:
            raise ValueError(f"start_loss must be >= 0 and patch >= 1, got {self.start_loss} and {self.patch}")


def clipped_cross_entropy(
    logits: Tensor, target: Tensor, *, config: ClippedCrossEntropyConfig = ClippedCrossEntropyConfig()
) -> Tensor:
    r"""Cross-entropy whose per-pixel value is capped where labels are likely to be wrong.

    With ℓ the per-pixel cross-entropy and m its mean: if m > ``start_loss``, L = m. Else every pixel of a patch has
    the threshold ``τ = max(mean of ℓ over the patch and the batch, m)``, without gradient, and ``L = mean min(ℓ, τ)``.

    Source: Zhu et al., WeakTr, arXiv 2304.01184, §3.3, and hustvl/WeakTr. There crops are a multiple of the patch;
    here the last row and column of patches may be smaller.

    Args:
        logits: float (B, C, h, w).
        target: int64 (B, h, w), class ids in [0, C) or ``ignore_index``.
        config: see :class:`ClippedCrossEntropyConfig`.

    Returns:
        Scalar >= 0; 0 if every pixel is ignored.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> logits = torch.zeros(1, 2, 4, 4)
        >>> logits[:, 0] = 5.0
        >>> target = torch.zeros(1, 4, 4, dtype=torch.long)
        >>> target[0, 0, 0] = 1  # one wrong label
        >>> plain = F.cross_entropy(logits, target)
        >>> bool(clipped_cross_entropy(logits, target) < plain / 5)
        True
    """
    _check(logits, target)
    loss = F.cross_entropy(logits, target, ignore_index=config.ignore_index, reduction="none")
    counted = torch.ones_like(loss) if config.count_ignored else (target != config.ignore_index).to(loss)
    total = counted.sum().clamp_min(1)
    values = loss.detach()
    mean = values.sum() / total
    if float(mean) > config.start_loss:
        return loss.sum() / total
    threshold = torch.maximum(_patch_means(values, counted, config.patch), mean)
    return (torch.minimum(loss, threshold) * counted).sum() / total


class ClippedCrossEntropy(nn.Module):
    """:func:`clipped_cross_entropy` with a stored configuration.

    Args:
        config: see :class:`ClippedCrossEntropyConfig`.
    """

    def __init__(self, config: ClippedCrossEntropyConfig = ClippedCrossEntropyConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss; arguments as in :func:`clipped_cross_entropy`."""
        return clipped_cross_entropy(logits, target, config=self.config)


def _patch_means(values: Tensor, counted: Tensor, patch: int) -> Tensor:
    """Mean of ``values`` over batch and patch, at every pixel of the patch, (1, h, w)."""
    height, width = values.shape[-2:]
    summed = torch.stack([values.sum(0), counted.sum(0)])[None]  # (1, 2, h, w)
    padded = F.pad(summed, (0, -width % patch, 0, -height % patch))
    mean_value, mean_count = F.avg_pool2d(padded, patch, stride=patch)[0]
    means = mean_value / mean_count.clamp_min(1e-12)
    return means.repeat_interleave(patch, 0).repeat_interleave(patch, 1)[None, :height, :width]


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(f"logits must be a floating tensor (B, C, h, w), got {logits.dtype} {tuple(logits.shape)}")
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected or target.dtype != torch.long:
        raise ValueError(
            f"target must be int64 {expected}, got {target.dtype} {tuple(target.shape)};"
            " resize logits to the label map first"
        )
