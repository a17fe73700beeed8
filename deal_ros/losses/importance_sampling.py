# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""ISL, the importance sampling loss: classify the pixels that a class claims, not only the average pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.losses.checks import check_maps


@dataclass(frozen=True)
class ImportanceSamplingConfig:
    """Constants of ISL; the defaults are the published ones (arvijj/hfpl, train_cam_voc.py).

    Args:
        samples: pixels drawn per image and class, N.
        probability_floor: added to every pixel's probability, so that each can be drawn.

    Raises:
        ValueError: if a field is not positive.
    """

    samples: int = 10
    probability_floor: float = 1e-5

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.samples < 1 or not self.probability_floor > 0:
            raise ValueError(
                f"samples and probability_floor must be positive, got {self.samples} and {self.probability_floor}"
            )


def importance_sampling_loss(
    raw: Tensor,
    labels: Tensor,
    *,
    config: ImportanceSamplingConfig = ImportanceSamplingConfig(),
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Multi-label soft margin loss on pixels drawn where the class is believed to be.

    For image b and class k, N pixels n are drawn with replacement, pixel i with probability proportional to
    ``σ(s_bki) + probability_floor``; then::

        L_IS = -mean_bkn( y_bk · ln σ(s_bkn) + (1 - y_bk) · ln(1 - σ(s_bkn)) )

    No gradient flows through the drawing. As published it replaces a share of the classification loss:
    ``L = 0.8 · L_GAP + 0.2 · L_IS``; that mixing is left to the caller.

    Source: Jonnarth, Zhang, Felsberg, High-fidelity Pseudo-labels for Boosting Weakly-Supervised Segmentation,
    WACV 2024, and its release arvijj/hfpl.

    Args:
        raw: float (B, K, h, w), class logits per cell.
        labels: bool, int or float (B, K), 1 where the class is in view.
        config: see :class:`ImportanceSamplingConfig`.
        generator: source of randomness on the device of ``raw``; torch's global one by default.

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> raw = torch.full((1, 2, 4, 4), -10.0)
        >>> raw[0, 0, 1, 1] = 10.0
        >>> bool(importance_sampling_loss(raw, torch.tensor([[1, 0]])) < 0.01)
        True
    """
    check_maps(raw, labels, "raw")
    if raw.dtype in (torch.float16, torch.bfloat16):
        raw = raw.float()
    batch, classes = raw.shape[:2]
    flat = raw.flatten(2).flatten(0, 1)  # (B·K, h·w)
    with torch.no_grad():
        chances = flat.sigmoid() + config.probability_floor
        drawn = torch.multinomial(chances, config.samples, replacement=True, generator=generator)
    logits = flat.gather(1, drawn).view(batch, classes, config.samples)
    truth = (labels > 0).to(logits.dtype)[..., None].expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, truth)


class ImportanceSamplingLoss(nn.Module):
    """:func:`importance_sampling_loss` with a stored configuration.

    Args:
        config: see :class:`ImportanceSamplingConfig`.

    Example:
        >>> ImportanceSamplingLoss()(torch.randn(2, 3, 8, 8), torch.eye(3)[:2]).shape
        torch.Size([])
    """

    def __init__(self, config: ImportanceSamplingConfig = ImportanceSamplingConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(self, raw: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Scalar loss; arguments as in :func:`importance_sampling_loss`."""
        return importance_sampling_loss(raw, labels, config=self.config, generator=generator)
