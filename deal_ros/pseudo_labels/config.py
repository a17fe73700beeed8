# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""All choices between a CAM and its label map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deal_ros.filters import PamrConfig
from deal_ros.pseudo_labels.contour_agreement import ContourAgreementConfig
from deal_ros.pseudo_labels.crf import CRF_PRESETS

Refinement = Literal["none", "rgb", "rgbd", "crf"]
ThresholdMode = Literal["fixed", "swept", "contour"]


@dataclass(frozen=True)
class PseudoLabelConfig:
    """How class activation maps become label maps.

    Args:
        scales: image scales of the seeds; ``None`` is the network's published choice.
        flip: also use the mirror image.
        refine: ``none``; ``rgb`` or ``rgbd`` PAMR; ``crf`` dense CRF (needs pydensecrf2).
        refine_px: PAMR works at a size whose longer side is at most this many pixels, 0 at full size; it costs time in
            proportion to the pixels. A CRF, whose constants are pixels of the image, always works at full size.
        pamr: constants of PAMR.
        crf: a key of ``CRF_PRESETS``.
        mode: how the background threshold is found. ``contour``: without pixel truth, by agreement of mask contours
            with depth edges. ``fixed``: ``threshold``. ``swept``: the best on pixel truth, which contradicts weak
            supervision and is there to compare with papers.
        threshold: background score in (0, 1) under ``fixed``, and what ``contour`` falls back to without depth.
        band: pixels whose strongest class lies within this distance above the threshold become 255, [0, 0.5).
        band_below: the same below the threshold, of which it is at most 60 %; ``None`` is ``band``. Wider, it leaves to
            a teacher (see :mod:`deal_ros.engine.teachers`) what the maps hardly show.
        contour: settings of ``contour``.

    Raises:
        ValueError: if a field is outside its range.
    """

    scales: tuple[float, ...] | None = None
    flip: bool = True
    refine: Refinement = "rgbd"
    refine_px: int = 320
    pamr: PamrConfig = field(default_factory=PamrConfig)
    crf: str = "seam"
    mode: ThresholdMode = "contour"
    threshold: float = 0.5
    band: float = 0.1
    band_below: float | None = None
    contour: ContourAgreementConfig = field(default_factory=ContourAgreementConfig)

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.scales is not None and (not self.scales or min(self.scales) <= 0):
            raise ValueError(f"scales must be positive and at least one, got {self.scales}")
        if self.refine not in ("none", "rgb", "rgbd", "crf"):
            raise ValueError(f"refine must be none, rgb, rgbd or crf, got {self.refine!r}")
        if self.refine_px != 0 and self.refine_px < 16:
            raise ValueError(f"refine_px must be 0 (full size) or at least 16, got {self.refine_px}")
        if self.crf not in CRF_PRESETS:
            raise ValueError(f"crf must be one of {', '.join(CRF_PRESETS)}, got {self.crf!r}")
        if self.mode not in ("fixed", "swept", "contour"):
            raise ValueError(f"mode must be fixed, swept or contour, got {self.mode!r}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {self.threshold}")
        for name in ("band", "band_below"):
            if not 0 <= (getattr(self, name) or 0) < 0.5:
                raise ValueError(f"{name} must be in [0, 0.5), got {getattr(self, name)}")
