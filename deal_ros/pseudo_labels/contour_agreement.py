# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Choose the background threshold without pixel truth: masks should end where depth does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deal_ros.filters import PLANE_FREE, DepthEdgeConfig, depth_edges
from deal_ros.pseudo_labels.threshold import ThresholdChoice, label_map


@dataclass(frozen=True)
class ContourAgreementConfig:
    """Constants of the agreement between mask contours and depth edges.

    Args:
        cells: contours and edges are compared on maps whose longer side has this many cells.
        tolerance: cells by which they may lie apart.
        reach: edges count for the recall only near cells where a present class exceeds this, 0..1 ...
        margin: ... enlarged by this many cells.
        beta: weight of recall against precision, F_β. Below 1, because other things' edges are near, too, and a mask
            need not reach for them.
        prior: how much thresholds near ½ are preferred, see :class:`ContourAgreement`.
        edges: how depth becomes edges; a cell is an edge where it exceeds the step level.
        lowest, highest, step: thresholds to try.

    Raises:
        ValueError: if a field is outside its range.
    """

    cells: int = 80
    tolerance: int = 1
    reach: float = 0.1
    margin: int = 3
    beta: float = 0.5
    prior: float = 2.5
    edges: DepthEdgeConfig = field(default_factory=lambda: PLANE_FREE)
    lowest: float = 0.1
    highest: float = 0.9
    step: float = 0.02

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.cells < 8 or self.tolerance < 0 or self.margin < 0:
            raise ValueError(f"cells must be >= 8, tolerance and margin >= 0, got {self}")
        if self.beta <= 0 or not 0 <= self.prior < 4:
            raise ValueError(f"beta must be > 0 and prior in [0, 4), got {self.beta} and {self.prior}")
        if not 0 < self.lowest < self.highest < 1 or not 0 < self.step < 1:
            raise ValueError(
                f"thresholds must have 0 < lowest < highest < 1 and a step in (0, 1), got {self.lowest} to"
                f" {self.highest} by {self.step}"
            )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """All thresholds to try, ascending."""
        count = round((self.highest - self.lowest) / self.step) + 1
        return tuple(round(self.lowest + i * self.step, 6) for i in range(count))


class ContourAgreement:
    r"""How well mask contours agree with depth edges at every threshold, over a whole data set.

    With p the share of contour cells that have a depth edge within the tolerance, and r the share of depth-edge cells
    near the activated region that have a contour within the tolerance, the score of a threshold t is
    ``(1 + β²)pr / (β²p + r) · (1 − prior·(t − ½)²)``. Cells without depth count in neither. Counts are summed over all
    images before the shares are taken. Agreement is flat around its best, and maps in [0, 1] say ½ by themselves.

    Source: ours. Users of weakly supervised methods rightly complain of thresholds tuned on pixel truth. β and prior
    were chosen on the validation split of rendered scenes: docs/method.md says what they gained.

    Args:
        config: see :class:`ContourAgreementConfig`.
    """

    def __init__(self, config: ContourAgreementConfig = ContourAgreementConfig()) -> None:
        self.config = config
        self.counts = np.zeros((len(config.thresholds), 4), np.int64)
        """Per threshold: contour cells, those on an edge, edge cells, those on a contour. Add up to merge."""

    def update(self, cam: Tensor | NDArray[Any], depth_m: NDArray[np.float32], present: Any = None) -> None:
        """Count one image.

        Args:
            cam: float (K, H, W) in [0, 1].
            depth_m: float32 (H, W), metres, 0 where there is none; an image without any depth changes nothing.
            present: (K,), true for classes in view; ``None`` is all.
        """
        config = self.config
        maps = torch.as_tensor(cam).detach().float().cpu()
        if present is not None:
            maps = maps * (torch.as_tensor(present).cpu() > 0)[:, None, None]
        scale = min(1.0, config.cells / max(maps.shape[-2:]))
        size = [max(8, round(side * scale)) for side in maps.shape[-2:]]
        maps = F.interpolate(maps[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        strength, weight = depth_edges(
            torch.as_tensor(depth_m, dtype=torch.float32)[None], config=config.edges, size=(size[0], size[1])
        )
        usable = weight[0, 0].numpy() > 0
        edges = (strength[0, 0].numpy() > config.edges.step_level) & usable
        if not edges.any():
            return
        near_edges = _dilated(edges, config.tolerance)
        region = _dilated((maps.amax(0) > config.reach).numpy(), config.margin)
        wanted = edges & region
        for row, threshold in zip(self.counts, config.thresholds):
            contour = _contour(label_map(maps, None, threshold)) & usable
            found = wanted & _dilated(contour, config.tolerance)
            row += (contour.sum(), (contour & near_edges).sum(), wanted.sum(), found.sum())

    def scores(self) -> NDArray[np.float64]:
        """float64 (thresholds,): score in [0, 1], 0 where there is no contour or no edge."""
        contour, on_edge, edges, on_contour = self.counts.T
        precision = on_edge / np.maximum(contour, 1)
        recall = on_contour / np.maximum(edges, 1)
        weight = self.config.beta**2
        agreement = (1 + weight) * precision * recall / np.maximum(weight * precision + recall, 1e-12)
        return agreement * (1 - self.config.prior * np.square(np.subtract(self.config.thresholds, 0.5)))

    def result(self, fallback: float = 0.5) -> ThresholdChoice:
        """Return the threshold of best agreement; ``fallback``, with a score of NaN, if no image had a depth edge."""
        scores = self.scores()
        best = int(scores.argmax())
        if scores[best] <= 0:
            return ThresholdChoice(fallback, float("nan"), self.config.thresholds, tuple(scores.tolist()))
        return ThresholdChoice(
            self.config.thresholds[best], float(scores[best]), self.config.thresholds, tuple(scores.tolist())
        )


def choose_threshold(
    images: Iterable[tuple[Any, NDArray[np.float32], Any]],
    config: ContourAgreementConfig = ContourAgreementConfig(),
    fallback: float = 0.5,
) -> ThresholdChoice:
    """Choose the background threshold without pixel truth.

    Args:
        images: (cam, depth_m, present) per image, as for :meth:`ContourAgreement.update`, CAMs as refined as those
            that will be thresholded. A hundred images are plenty.
        config: see :class:`ContourAgreementConfig`.
        fallback: the threshold if no image has a usable depth edge.
    """
    agreement = ContourAgreement(config)
    for cam, depth_m, present in images:
        agreement.update(cam, depth_m, present)
    return agreement.result(fallback)


def _contour(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Cells on both sides of every border between labels; a border lies between two cells."""
    contour = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    contour[1:] |= down
    contour[:-1] |= down
    contour[:, 1:] |= right
    contour[:, :-1] |= right
    return contour


def _dilated(cells: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    if radius == 0:
        return cells
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return cv2.dilate(cells.astype(np.uint8), kernel) > 0
