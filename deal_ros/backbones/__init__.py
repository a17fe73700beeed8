# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pre-trained image networks by timm name, cut into stages so that frozen ones can be computed once and kept."""

from deal_ros.backbones.backbone import Backbone, ConvBackbone, VitBackbone, normalize_rgb
from deal_ros.backbones.create import create_backbone, is_vit
from deal_ros.backbones.dilation import split_dilated_depthwise
from deal_ros.backbones.timm_import import import_timm
from deal_ros.backbones.weights import PACKAGED_WEIGHTS, BackboneError, PackagedWeights

__all__ = [
    "PACKAGED_WEIGHTS",
    "Backbone",
    "BackboneError",
    "ConvBackbone",
    "PackagedWeights",
    "VitBackbone",
    "create_backbone",
    "import_timm",
    "is_vit",
    "normalize_rgb",
    "split_dilated_depthwise",
]
