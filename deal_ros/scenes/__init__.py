# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes of scanned household objects: RGB, metric depth and true masks, without a robot or a camera."""

from deal_ros.scenes.assets import (
    SPLITS,
    AssetError,
    Split,
    asset_versions,
    available_objects,
    clutter_objects,
    surface_textures,
)
from deal_ros.scenes.compose import onboarding_scene, tabletop_scene
from deal_ros.scenes.objects import RestingPose
from deal_ros.scenes.opengl import OpenGLError
from deal_ros.scenes.renderer import SceneRenderer
from deal_ros.scenes.scene import CameraPose, Item, Orbit, Scene

__all__ = [
    "SPLITS",
    "AssetError",
    "CameraPose",
    "Item",
    "OpenGLError",
    "Orbit",
    "RestingPose",
    "Scene",
    "SceneRenderer",
    "Split",
    "asset_versions",
    "available_objects",
    "clutter_objects",
    "onboarding_scene",
    "surface_textures",
    "tabletop_scene",
]
