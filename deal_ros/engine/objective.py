# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a CAM network is trained for: its own classification loss and, where asked for, ISL, FSL and DEAL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deal_ros.cams.base import CamNetwork
from deal_ros.engine.distributed import Ranks
from deal_ros.losses import (
    RECOMMENDED,
    DepthEdgeAlignmentConfig,
    FeatureSimilarityConfig,
    ImportanceSamplingConfig,
    depth_edge_alignment_loss,
    feature_similarity_loss,
    importance_sampling_loss,
)
from deal_ros.losses.collapse import CollapseGuard, CollapseGuardConfig
from deal_ros.losses.weighting import LossWeight, LossWeightConfig, gradient_norm

LOSS_TERMS = ("isl", "fsl", "deal")
LOSS_CHOICES = ("none", "isl,fsl", "deal", "isl,fsl,deal")
"""The rows of the paper's tables; any other combination of :data:`LOSS_TERMS` works as well."""


@dataclass(frozen=True)
class CamLossConfig:
    """Which losses train a CAM network beside its own, and how strongly.

    Args:
        terms: ``none`` or a comma-separated choice of ``isl``, ``fsl``, ``deal``.
        deal: DEAL's form; our recommended one, not the published one, by default.
        deal_weight: λ of DEAL. By default it holds |λ∂L_edge|/|∂L_cls| at the class maps at 8, with a gate on mAP. With
            ``deal.edge_owner`` ``either`` it should start late: a map that has not found its object yet can be pulled
            inside out, bright around the object and dark on it (seen; CAM mIoU 18 instead of 74).
        isl: importance sampling.
        isl_share: L_GAP, the loss on the averaged raw maps of the full-size image, becomes (1 - share)·L_GAP +
            share·L_IS; .2 as published.
        fsl: feature similarity.
        fsl_weight: 1 for VOC, .2 for COCO as published.
        collapse: when maps count as collapsed.
    """

    terms: str = "deal"
    deal: DepthEdgeAlignmentConfig = RECOMMENDED
    deal_weight: LossWeightConfig = field(
        default_factory=lambda: LossWeightConfig(mode="gradient_ratio", value=8.0, warmup_steps=30, map_tolerance=0.1)
    )
    isl: ImportanceSamplingConfig = field(default_factory=ImportanceSamplingConfig)
    isl_share: float = 0.2
    fsl: FeatureSimilarityConfig = field(default_factory=FeatureSimilarityConfig)
    fsl_weight: float = 1.0
    collapse: CollapseGuardConfig = field(default_factory=CollapseGuardConfig)

    def __post_init__(self) -> None:
        """Check the choice."""
        parse_terms(self.terms)
        if not 0 <= self.isl_share <= 1 or self.fsl_weight < 0:
            raise ValueError(
                f"isl_share must be in [0, 1] and fsl_weight >= 0, got {self.isl_share} and {self.fsl_weight}"
            )


def parse_terms(text: str) -> tuple[str, ...]:
    """``"isl,fsl"`` → ``("isl", "fsl")``; ``"none"`` → ``()``.

    Raises:
        ValueError: on an unknown or repeated term.
    """
    terms = tuple(part.strip() for part in text.split(",")) if text.strip() != "none" else ()
    if any(term not in LOSS_TERMS for term in terms) or len(set(terms)) != len(terms):
        raise ValueError(
            f"losses must be none or a choice of {', '.join(LOSS_TERMS)} with commas between, got {text!r}"
        )
    return terms


class CamObjective(nn.Module):
    """A CAM network with all its losses: the module that ``DistributedDataParallel`` wraps.

    Args:
        network: the network.
        config: its losses.
        ranks: this process among its peers; λ follows gradient norms over all of them.
    """

    def __init__(self, network: CamNetwork, config: CamLossConfig, ranks: Ranks) -> None:
        super().__init__()
        self.network = network
        self.config, self._ranks = config, ranks
        self.terms = parse_terms(config.terms)
        self.weight = LossWeight(config.deal_weight)
        self.guard = CollapseGuard(config.collapse)
        self._lambda = 0.0

    def forward(
        self, step: int, first_round: bool, rgb: Tensor, depth_m: Tensor, labels: Tensor, features: Any = None
    ) -> tuple[Tensor, dict[str, float], Tensor]:
        """Loss of one micro-batch.

        Args:
            step: 0-based optimiser step.
            first_round: whether this is the first accumulation round of the step; λ is set there.
            rgb: uint8 (B, 3, H, W).
            depth_m: float32 (B, 1, H, W), metres.
            labels: float32 (B, K).
            features: cached features of the frozen part, or ``None``.

        Returns:
            The scalar loss, plain numbers for the log, and the image scores float (B, K), detached.
        """
        output, terms = self.network.training_forward(self.network.normalize(rgb), labels, features)
        with torch.autocast(rgb.device.type, enabled=False):
            terms = {name: term.float() for name, term in terms.items()}
            log = {name: float(term.detach()) for name, term in terms.items()}
            raw = output.raw.float()
            if "isl" in self.terms:
                sampled = importance_sampling_loss(raw, labels, config=self.config.isl)
                log["isl"] = float(sampled.detach())
                share, (averaged, weight) = self.config.isl_share, self.network.gap_term
                terms |= {averaged: (1 - share) * terms[averaged], "isl": share * weight * sampled}
            main = torch.stack(list(terms.values())).sum()
            loss = main
            if "fsl" in self.terms:
                similarity = feature_similarity_loss(raw, rgb.float() / 255, labels, config=self.config.fsl)
                log["fsl"] = float(similarity.detach())
                loss = loss + self.config.fsl_weight * similarity
            if "deal" in self.terms:
                loss = loss + self._deal(step, first_round, main, output.raw, depth_m, labels, log)
        log["loss"] = float(loss.detach())
        return loss, log, output.scores.detach().float()

    @property
    def settled_step(self) -> int:
        """Return the step from which all losses have their full weight."""
        weight = self.config.deal_weight
        return weight.start_step + weight.warmup_steps if "deal" in self.terms else 0

    def observe_map(self, step: int, value: float, baseline: float | None) -> None:
        """Tell the gate of DEAL's weight the newest classification mAP."""
        if "deal" in self.terms:
            self.weight.observe_map(step, value, baseline)

    def state(self) -> dict[str, Any]:
        """JSON-ready state beside the network's."""
        return {"weight": self.weight.state_dict(), "guard": self.guard.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.weight.load_state_dict(state["weight"])
        self.guard.load_state_dict(state["guard"])

    def _deal(
        self,
        step: int,
        first_round: bool,
        main: Tensor,
        raw: Tensor,
        depth_m: Tensor,
        labels: Tensor,
        log: dict[str, float],
    ) -> Tensor:
        edge, statistics = depth_edge_alignment_loss(
            raw.float(), depth_m, labels, config=self.config.deal, return_statistics=True
        )
        if first_round:
            main_norm, edge_norm = self._norm(main, raw), self._norm(edge, raw)
            self._lambda = self.weight(step, main_norm, edge_norm)
            log["gradient_ratio"] = self._lambda * edge_norm / main_norm if main_norm > 0 else 0.0
            shares = self._ranks.means(statistics.as_floats())
            self.guard.update(shares["cam_edge_fraction"], shares["cam_activation"])
            log.update(shares)
        log["deal"], log["lambda"], log["gate"] = float(edge.detach()), self._lambda, self.weight.gate
        return self._lambda * edge

    def _norm(self, loss: Tensor, raw: Tensor) -> float:
        """Gradient norm at the class maps over the batches of all ranks."""
        squared = torch.tensor(gradient_norm(loss, raw) ** 2, device=raw.device)
        return float(self._ranks.total(squared)) ** 0.5
