# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What an unlabelled pixel is not: a class that is not in view."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def absent_class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Per pixel, the negative log probability of being background or any class of the image's labels.

    With p the softmax of a pixel's logits and S = {background} ∪ {classes in view}: ``-log Σ_{k ∈ S} p_k``. It says
    nothing about which of these a pixel is, and it is wrong where labels do not name all that is in view.

    Source: the likelihood of partial labels, Jin and Ghahramani, "Learning with Multiple Labels", NIPS 2002; that image
    labels suppress absent classes everywhere: Pathak et al., arXiv 1506.03648.

    Args:
        logits: float (B, K+1, h, w), background first.
        labels: (B, K), positive where the class may be in view.

    Returns:
        float (B, h, w), >= 0.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> logits = torch.zeros(1, 3, 1, 1)  # background and two classes, one of them in view
        >>> absent_class_loss(logits, torch.tensor([[1, 0]])).exp().round(decimals=2).item()  # 1 / (2/3)
        1.5
    """
    if logits.ndim != 4 or labels.shape != (logits.shape[0], logits.shape[1] - 1):
        raise ValueError(f"logits must be (B, K+1, h, w) and labels (B, K), got {logits.shape} and {labels.shape}")
    possible = F.pad(labels > 0, (1, 0), value=True)[:, :, None, None]
    return logits.logsumexp(1) - logits.masked_fill(~possible, -torch.inf).logsumexp(1)
