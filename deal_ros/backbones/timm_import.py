# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Import timm where torchvision's compiled operators cannot load: CPU builds of torch, Jetson, mismatched wheels."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch

_DECLARED: list[Any] = []
"""torchvision operators declared here; the reference must live as long as the process."""


def import_timm() -> ModuleType:
    """Import and return timm; everyone in this package imports timm through this.

    timm imports torchvision, and torchvision registers shape rules for two compiled operators, ``nms`` and ``qnms``,
    at import. Where its compiled library does not match torch these do not exist and the import dies, although
    nothing here ever calls them. Then their schemas are declared first, without an implementation.

    Raises:
        ImportError: if timm is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_operators()
    except ModuleNotFoundError:
        pass  # timm's own message names what is missing
    return importlib.import_module("timm")


def _declare_operators() -> None:
    if _DECLARED:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
