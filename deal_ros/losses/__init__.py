# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses on class maps, one per file: a function, its configuration, and a module that stores one for the other."""

from deal_ros.losses.collapse import CollapseGuard, CollapseGuardConfig
from deal_ros.losses.deal import (
    RECOMMENDED,
    AlignmentStatistics,
    DepthEdgeAlignmentConfig,
    DepthEdgeAlignmentLoss,
    depth_edge_alignment_loss,
    edge_gate,
)
from deal_ros.losses.weighting import LossWeight, LossWeightConfig, gradient_norm

__all__ = [
    "RECOMMENDED",
    "AlignmentStatistics",
    "CollapseGuard",
    "CollapseGuardConfig",
    "DepthEdgeAlignmentConfig",
    "DepthEdgeAlignmentLoss",
    "LossWeight",
    "LossWeightConfig",
    "depth_edge_alignment_loss",
    "edge_gate",
    "gradient_norm",
]
