# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses on class maps, one per file: a function, its configuration, and a module that stores one for the other."""

from deal_ros.losses.deal import (
    RECOMMENDED,
    AlignmentStatistics,
    DepthEdgeAlignmentConfig,
    DepthEdgeAlignmentLoss,
    depth_edge_alignment_loss,
    edge_gate,
)

__all__ = [
    "RECOMMENDED",
    "AlignmentStatistics",
    "DepthEdgeAlignmentConfig",
    "DepthEdgeAlignmentLoss",
    "depth_edge_alignment_loss",
    "edge_gate",
]
