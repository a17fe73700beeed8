# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses on class maps, one per file: a function, its configuration, and a module that stores one for the other."""

from deal_ros.losses.absent_classes import absent_class_loss
from deal_ros.losses.clipped_cross_entropy import (
    ClippedCrossEntropy,
    ClippedCrossEntropyConfig,
    clipped_cross_entropy,
)
from deal_ros.losses.collapse import CollapseGuard, CollapseGuardConfig
from deal_ros.losses.deal import (
    RECOMMENDED,
    AlignmentStatistics,
    DepthEdgeAlignmentConfig,
    DepthEdgeAlignmentLoss,
    depth_edge_alignment_loss,
    edge_gate,
)
from deal_ros.losses.equivariance import (
    EquivarianceConfig,
    EquivarianceLoss,
    equivariance_loss,
    equivariant_cross_loss,
)
from deal_ros.losses.feature_similarity import FeatureSimilarityConfig, FeatureSimilarityLoss, feature_similarity_loss
from deal_ros.losses.importance_sampling import (
    ImportanceSamplingConfig,
    ImportanceSamplingLoss,
    importance_sampling_loss,
)
from deal_ros.losses.max_norm import max_norm
from deal_ros.losses.min_pool import MinPoolConfig, MinPoolLoss, min_pool_loss
from deal_ros.losses.weighting import LossWeight, LossWeightConfig, gradient_norm

__all__ = [
    "RECOMMENDED",
    "AlignmentStatistics",
    "ClippedCrossEntropy",
    "ClippedCrossEntropyConfig",
    "CollapseGuard",
    "CollapseGuardConfig",
    "DepthEdgeAlignmentConfig",
    "DepthEdgeAlignmentLoss",
    "EquivarianceConfig",
    "EquivarianceLoss",
    "FeatureSimilarityConfig",
    "FeatureSimilarityLoss",
    "ImportanceSamplingConfig",
    "ImportanceSamplingLoss",
    "LossWeight",
    "LossWeightConfig",
    "MinPoolConfig",
    "MinPoolLoss",
    "absent_class_loss",
    "clipped_cross_entropy",
    "depth_edge_alignment_loss",
    "edge_gate",
    "equivariance_loss",
    "equivariant_cross_loss",
    "feature_similarity_loss",
    "gradient_norm",
    "importance_sampling_loss",
    "max_norm",
    "min_pool_loss",
]
