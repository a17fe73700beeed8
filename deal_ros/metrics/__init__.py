# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures that say how good a mask or a classifier is."""

from deal_ros.metrics.classification import average_precision, mean_average_precision
from deal_ros.metrics.contour import CONTOUR_BOUND, contour_f_score
from deal_ros.metrics.segmentation import SegmentationMetrics

__all__ = ["CONTOUR_BOUND", "SegmentationMetrics", "average_precision", "contour_f_score", "mean_average_precision"]
