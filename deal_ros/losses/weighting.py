# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How strongly an auxiliary loss pulls: a constant, a warm-up, or a share of the main loss's own gradient."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_LOSS_SCALE = 2.0**16


@dataclass(frozen=True)
class LossWeightConfig:
    """Schedule of λ. An auxiliary loss must not swamp the classifier that gives class maps their meaning.

    Args:
        mode: ``constant``, λ = ``value``; ``gradient_ratio``, λ such that λ·|∂auxiliary|/|∂main| at the class maps is
            ``value``.
        value: λ, or the target ratio, >= 0.
        start_step: λ is 0 before this optimiser step.
        warmup_steps: steps in which it grows linearly to the full value, counted from ``start_step``; 0 is none.
        ema: decay of the running means of both gradient norms, [0, 1). 0.9 in our experiments.
        max_weight: λ never exceeds this in ``gradient_ratio``, so that a vanishing auxiliary gradient is not blown up.
        map_tolerance: how far classification mAP, in [0, 1], may fall below its reference before the gate acts;
            ``None`` is no gate. CAM mIoU uses image labels and hides a wrecked classifier; mAP does not.
        map_cut: factor on λ each time mAP is too low, (0, 1).
        map_recovery: factor on λ each time mAP is fine again, up to the full value; 1 never goes back up.

    Raises:
        ValueError: if a field is outside its range.
    """

    mode: Literal["constant", "gradient_ratio"] = "constant"
    value: float = 1.0
    start_step: int = 0
    warmup_steps: int = 0
    ema: float = 0.9
    max_weight: float = 1e4
    map_tolerance: float | None = None
    map_cut: float = 0.5
    map_recovery: float = 1.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.mode not in ("constant", "gradient_ratio"):
            raise ValueError(f"mode must be constant or gradient_ratio, got {self.mode!r}")
        if not (self.value >= 0 and math.isfinite(self.value)):
            raise ValueError(f"value must be >= 0 and finite, got {self.value}")
        if self.start_step < 0 or self.warmup_steps < 0:
            raise ValueError(f"start_step and warmup_steps must be >= 0, got {self.start_step} and {self.warmup_steps}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        if not self.max_weight > 0:
            raise ValueError(f"max_weight must be positive, got {self.max_weight}")
        if self.map_tolerance is not None and not 0 <= self.map_tolerance <= 1:
            raise ValueError(f"map_tolerance must be in [0, 1] or null, got {self.map_tolerance}")
        if not (0 < self.map_cut < 1 and self.map_recovery >= 1):
            raise ValueError(
                f"map_cut must be in (0, 1) and map_recovery >= 1, got {self.map_cut} and {self.map_recovery}"
            )


class LossWeight:
    """λ of one auxiliary loss over the course of a training run.

    Args:
        config: see :class:`LossWeightConfig`.

    Example:
        >>> weight = LossWeight(LossWeightConfig(mode="gradient_ratio", value=2.0))
        >>> weight(0, main_norm=0.5, auxiliary_norm=0.25)
        4.0
    """

    def __init__(self, config: LossWeightConfig = LossWeightConfig()) -> None:
        self.config = config
        self._main: float | None = None
        self._auxiliary: float | None = None
        self._gate = 1.0
        self._best_map: float | None = None

    @property
    def needs_norms(self) -> bool:
        """Whether calls must bring gradient norms."""
        return self.config.mode == "gradient_ratio"

    @property
    def gate(self) -> float:
        """Factor in (0, 1] that the mAP gate has left of λ."""
        return self._gate

    def __call__(self, step: int, main_norm: float | None = None, auxiliary_norm: float | None = None) -> float:
        """λ for optimiser step ``step``.

        Args:
            step: 0-based.
            main_norm: |∂ main loss / ∂ class maps|, see :func:`gradient_norm`. Only ``gradient_ratio`` looks at it.
            auxiliary_norm: the same of the *unweighted* auxiliary loss. Zero (no depth in the batch) or non-finite
                norms leave the running means as they are.

        Raises:
            ValueError: in ``gradient_ratio`` if no norms were ever given.
        """
        config = self.config
        if self.needs_norms:
            if main_norm is None or auxiliary_norm is None:
                if self._main is None and step >= config.start_step:
                    raise ValueError("gradient_ratio must be given main_norm and auxiliary_norm, got none so far")
            elif _usable(main_norm) and _usable(auxiliary_norm):
                self._main = self._average(self._main, main_norm)
                self._auxiliary = self._average(self._auxiliary, auxiliary_norm)
        return self._ramp(step) * self._gate * self._full_value()

    def observe_map(self, step: int, mean_average_precision: float, baseline: float | None = None) -> bool:
        """Tell the gate the newest classification mAP; it cuts λ when the classifier suffers.

        Args:
            step: 0-based; as long as λ is 0, nothing is the auxiliary loss's fault.
            mean_average_precision: of image labels on held-out data, [0, 1].
            baseline: mAP that the same network reaches without the auxiliary loss, where known; else the best seen so
                far. While the classifier has not come that far yet, λ falls with each call.

        Returns:
            Whether λ was cut now.
        """
        if not math.isfinite(mean_average_precision):
            return False
        own_best = max(mean_average_precision, self._best_map if self._best_map is not None else 0.0)
        self._best_map = own_best
        if self.config.map_tolerance is None or self._ramp(step) == 0:
            return False
        reference = own_best if baseline is None else baseline
        if mean_average_precision < reference - self.config.map_tolerance:
            self._gate *= self.config.map_cut
            logger.warning(
                "mAP %.3f is more than %.3f below %.3f: the auxiliary loss keeps %.3g of its weight",
                mean_average_precision,
                self.config.map_tolerance,
                reference,
                self._gate,
            )
            return True
        self._gate = min(1.0, self._gate * self.config.map_recovery)
        return False

    def state_dict(self) -> dict[str, float | None]:
        """All that a resumed run needs to go on exactly; plain numbers."""
        return {
            "main": self._main,
            "auxiliary": self._auxiliary,
            "gate": self._gate,
            "best_map": self._best_map,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned.

        Raises:
            ValueError: if entries are missing or unknown.
        """
        expected = set(self.state_dict())
        if set(state) != expected:
            raise ValueError(f"state must have exactly {sorted(expected)}, got {sorted(state)}")
        self._main, self._auxiliary = state["main"], state["auxiliary"]
        self._gate, self._best_map = float(state["gate"]), state["best_map"]

    def _ramp(self, step: int) -> float:
        since = step - self.config.start_step
        if since < 0:
            return 0.0
        if self.config.warmup_steps == 0:
            return 1.0
        return min(1.0, (since + 1) / self.config.warmup_steps)

    def _full_value(self) -> float:
        if not self.needs_norms:
            return self.config.value
        if self._main is None or self._auxiliary is None:
            return 0.0
        return min(self.config.max_weight, self.config.value * self._main / self._auxiliary)

    def _average(self, mean: float | None, value: float) -> float:
        return value if mean is None else self.config.ema * mean + (1 - self.config.ema) * value


def gradient_norm(loss: Tensor, at: Tensor) -> float:
    """Euclidean norm of ∂loss/∂at, keeping the graph for the backward pass that follows.

    Args:
        loss: scalar that depends on ``at``; a loss that does not has norm 0.
        at: the class maps, part of the graph (``CamOutput.raw``).

    Example:
        >>> maps = torch.zeros(1, 1, 2, 2, requires_grad=True)
        >>> gradient_norm((3 * maps).mean(), maps)
        1.5
    """
    if not loss.requires_grad:
        return 0.0
    # Through maps in half precision a plain gradient would underflow to 0.
    (gradient,) = torch.autograd.grad(loss * _LOSS_SCALE, at, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else float(gradient.float().norm()) / _LOSS_SCALE


def _usable(norm: float) -> bool:
    return math.isfinite(norm) and norm > 0
