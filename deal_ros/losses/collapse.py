# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Noticing that an edge loss has flattened the class maps, while there is time to stop."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollapseGuardConfig:
    """When maps count as collapsed.

    Args:
        settle_steps: observations from which the reference level is taken, before any alarm.
        ema: decay of the running means, [0, 1).
        min_edge_ratio: alarm when the share of pixels with a' > 0 falls below this part of the reference.
        min_activation_ratio: alarm when the mean activation does. Sharper maps are smaller maps, so this is lower.

    Raises:
        ValueError: if a field is outside its range.
    """

    settle_steps: int = 20
    ema: float = 0.9
    min_edge_ratio: float = 0.2
    min_activation_ratio: float = 0.1

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.settle_steps < 1 or not 0 <= self.ema < 1:
            raise ValueError(f"settle_steps must be >= 1 and ema in [0, 1), got {self.settle_steps} and {self.ema}")
        if not (0 <= self.min_edge_ratio < 1 and 0 <= self.min_activation_ratio < 1):
            raise ValueError(
                f"ratios must be in [0, 1), got min_edge_ratio {self.min_edge_ratio} and"
                f" min_activation_ratio {self.min_activation_ratio}"
            )


class CollapseGuard:
    """Follows the statistics of DEAL and raises its voice, once per collapse, when the maps go flat.

    Args:
        config: see :class:`CollapseGuardConfig`.

    Example:
        >>> guard = CollapseGuard(CollapseGuardConfig(settle_steps=1, ema=0.0))
        >>> guard.update(cam_edge_fraction=0.2, cam_activation=0.3)
        >>> guard.update(cam_edge_fraction=0.01, cam_activation=0.3)
        'class maps went flat: edges cover 0.010 of their pixels, 0.200 before; lower the weight of the edge loss'
    """

    def __init__(self, config: CollapseGuardConfig = CollapseGuardConfig()) -> None:
        self.config = config
        self.collapsed = False
        self._seen = 0
        self._edge = self._activation = 0.0
        self._edge_reference = self._activation_reference = 0.0

    def update(self, cam_edge_fraction: float, cam_activation: float) -> str | None:
        """Tell the newest :class:`~deal_ros.losses.deal.AlignmentStatistics`.

        Args:
            cam_edge_fraction: share of pixels with a' > 0, [0, 1].
            cam_activation: mean activation of present classes, [0, 1].

        Returns:
            What went wrong and what to do, at the moment when it is first seen; else ``None``. Also logged.
        """
        if not (math.isfinite(cam_edge_fraction) and math.isfinite(cam_activation)):
            return self._report(f"class maps are not finite: edges {cam_edge_fraction}, activation {cam_activation}")
        keep = self.config.ema if self._seen else 0.0
        self._edge = keep * self._edge + (1 - keep) * cam_edge_fraction
        self._activation = keep * self._activation + (1 - keep) * cam_activation
        self._seen += 1
        if self._seen <= self.config.settle_steps:
            self._edge_reference = max(self._edge_reference, self._edge)
            self._activation_reference = max(self._activation_reference, self._activation)
            return None
        remedy = "lower the weight of the edge loss"
        if self._edge < self.config.min_edge_ratio * self._edge_reference:
            return self._report(
                f"class maps went flat: edges cover {self._edge:.3f} of their pixels,"
                f" {self._edge_reference:.3f} before; {remedy}"
            )
        if self._activation < self.config.min_activation_ratio * self._activation_reference:
            return self._report(
                f"class maps faded: mean activation {self._activation:.3f},"
                f" {self._activation_reference:.3f} before; {remedy}"
            )
        self.collapsed = False
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to go on exactly; plain numbers."""
        return {name.lstrip("_"): value for name, value in vars(self).items() if name != "config"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned.

        Raises:
            ValueError: if entries are missing or unknown.
        """
        names = {name.lstrip("_"): name for name in vars(self) if name != "config"}
        if set(state) != set(names):
            raise ValueError(f"state must have exactly {sorted(names)}, got {sorted(state)}")
        for key, value in state.items():
            setattr(self, names[key], value)

    def _report(self, message: str) -> str | None:
        if self.collapsed:
            return None
        self.collapsed = True
        logger.warning(message)
        return message
