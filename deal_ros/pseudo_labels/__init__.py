# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From class activation maps to label maps that a student learns from."""

from deal_ros.pseudo_labels.config import PseudoLabelConfig
from deal_ros.pseudo_labels.contour_agreement import ContourAgreement, ContourAgreementConfig, choose_threshold
from deal_ros.pseudo_labels.correction import background_only, corrected_map, likely_parts
from deal_ros.pseudo_labels.crf import CRF_PRESETS, CrfConfig, crf_cam
from deal_ros.pseudo_labels.refine import refine_cam
from deal_ros.pseudo_labels.threshold import ThresholdChoice, ThresholdSweep, label_map, sweep_threshold

__all__ = [
    "CRF_PRESETS",
    "ContourAgreement",
    "ContourAgreementConfig",
    "CrfConfig",
    "PseudoLabelConfig",
    "ThresholdChoice",
    "ThresholdSweep",
    "background_only",
    "choose_threshold",
    "corrected_map",
    "crf_cam",
    "label_map",
    "likely_parts",
    "refine_cam",
    "sweep_threshold",
]
