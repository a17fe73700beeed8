# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SEAM's min-pooling loss: some of every image must be background."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from deal_ros.losses.checks import check_maps


@dataclass(frozen=True)
class MinPoolConfig:
    """Constant of the min-pooling loss.

    Args:
        share: part of the cells, those with the lowest activation, that must not be positive; 1/4 as published
            (YudeWang/SEAM, train_SEAM.py).

    Raises:
        ValueError: if it is outside (0, 1].
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")


def min_pool_loss(maps: Tensor, labels: Tensor, *, config: MinPoolConfig = MinPoolConfig()) -> Tensor:
    r"""Mean positive part of the least active cells: ``mean_{b, i ∈ lowest share} (max_k y_bk s_bki)⁺``.

    Absent classes enter the maximum as 0, as published, so only what is positive everywhere is pushed down.

    Source: Wang et al., Self-supervised Equivariant Attention Mechanism, CVPR 2020; L_min of YudeWang/SEAM.

    Args:
        maps: float (B, K, h, w), class maps without background (SEAM: refined by its PCM).
        labels: bool, int or float (B, K), 1 where the class is in view.
        config: see :class:`MinPoolConfig`.

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> float(min_pool_loss(maps, torch.ones(1, 1), config=MinPoolConfig(share=0.5)))
        1.5
    """
    check_maps(maps, labels, "maps")
    strongest = (maps * (labels > 0).to(maps)[:, :, None, None]).amax(1).flatten(1)
    count = max(1, int(strongest.shape[1] * config.share))
    return strongest.topk(count, dim=1, largest=False).values.relu().mean()


class MinPoolLoss(nn.Module):
    """:func:`min_pool_loss` with a stored configuration.

    Args:
        config: see :class:`MinPoolConfig`.
    """

    def __init__(self, config: MinPoolConfig = MinPoolConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss; arguments as in :func:`min_pool_loss`."""
        return min_pool_loss(maps, labels, config=self.config)
