# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every loss on class maps demands of its arguments."""

from __future__ import annotations

from torch import Tensor


def check_maps(maps: Tensor, labels: Tensor | None, name: str, *, channels: int = 0) -> None:
    """Refuse class maps and labels that do not belong together.

    Args:
        maps: should be float (B, K + ``channels``, h, w).
        labels: should be (B, K), or ``None``.
        name: of ``maps`` in messages.
        channels: further channels of ``maps`` that labels do not speak of, such as background.

    Raises:
        ValueError: naming what was expected and what was found.
    """
    if maps.ndim != 4 or not maps.is_floating_point():
        raise ValueError(f"{name} must be a floating tensor (B, K, h, w), got {maps.dtype} {tuple(maps.shape)}")
    if labels is None:
        return
    expected = (maps.shape[0], maps.shape[1] - channels)
    if tuple(labels.shape) != expected:
        raise ValueError(f"labels must be multi-hot {expected} for this {name}, got {tuple(labels.shape)}")
