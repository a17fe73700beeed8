# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""CAM networks: classifiers that say where they look, by name."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from deal_ros.cams.base import CamNetwork, CamOutput
from deal_ros.cams.multiscale import min_max, multiscale_cam
from deal_ros.cams.seam import Seam
from deal_ros.cams.timm_cam import TimmCam
from deal_ros.cams.weaktr import WeakTr

CAM_NETWORKS: dict[str, type[CamNetwork]] = {
    "timm": TimmCam,
    "weaktr": WeakTr,
    "seam": Seam,
}
"""Every CAM network by the name that recipes use."""


class CamNetworkError(ValueError):
    """A CAM network that cannot be made; the message names what is known."""


def create_cam_network(name: str, num_classes: int, **arguments: Any) -> CamNetwork:
    """Make a CAM network by name.

    Args:
        name: a key of :data:`CAM_NETWORKS`.
        num_classes: K, without background.
        arguments: keyword arguments of the network's class.

    Raises:
        CamNetworkError: if the name or an argument is unknown.
        ValueError: if the network refuses a value.

    Example:
        >>> network = create_cam_network("timm", 3, backbone="resnet10t", weights="none")
        >>> network.num_classes
        3
    """
    if name not in CAM_NETWORKS:
        raise CamNetworkError(f"CAM network must be one of {', '.join(CAM_NETWORKS)}, got {name!r}")
    known = [key for key in inspect.signature(CAM_NETWORKS[name]).parameters if key != "num_classes"]
    for key in arguments:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CamNetworkError(f"CAM network {name!r} has no argument {key!r}{hint} (known: {', '.join(known)})")
    return CAM_NETWORKS[name](num_classes, **arguments)


__all__ = [
    "CAM_NETWORKS",
    "CamNetwork",
    "CamNetworkError",
    "CamOutput",
    "Seam",
    "TimmCam",
    "WeakTr",
    "create_cam_network",
    "min_max",
    "multiscale_cam",
]
