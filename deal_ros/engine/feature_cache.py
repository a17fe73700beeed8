# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Features of a frozen lower part, computed once per view and kept as float16: what makes training on a CPU quick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deal_ros.engine.loader import Batch, FrameSource, collate


class FeatureCache:
    """Frozen features of cached views, in memory.

    All views of a frame are computed together, by themselves: the numbers then do not depend on which batch asked
    first, so that a resumed run, which fills its cache in another order, computes the same bits.

    Args:
        source: where the views come from; its ``cached_views`` must be positive.
        frozen_features: a network's method of that name, on normalised images.
        normalize: the network's method of that name.
        device: where features are computed.
    """

    def __init__(
        self,
        source: FrameSource,
        frozen_features: Callable[[Tensor], Any],
        normalize: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        if source.config.cached_views < 1:
            raise ValueError(f"cached_views must be positive to cache features, got {source.config.cached_views}")
        self._source, self._frozen, self._normalize, self._device = source, frozen_features, normalize, device
        self._views: dict[int, list[Any]] = {}
        self._capacity: int | None = None

    def __call__(self, batch: Batch) -> Any:
        """Features for a batch's views, float32 on the device, in the form that the network gave them."""
        rows = [self._features(*key) for key in batch.keys]
        return _map(lambda row: torch.stack(row).to(self._device).float(), rows)

    def _features(self, position: int, number: int) -> Any:
        if position in self._views:
            return self._views[position][number]
        if self._capacity is not None and position >= self._capacity:
            return self._compute(position, [number])[0]
        views = self._compute(position, range(self._source.config.cached_views))
        if self._capacity is None:
            size = sum(tensor.nbytes for view in views for tensor in _leaves(view))
            self._capacity = (self._source.config.cache_mb << 20) // max(1, size)
        if position < self._capacity:
            self._views[position] = views
        return views[number]

    def _compute(self, position: int, numbers: Sequence[int]) -> list[Any]:
        views = collate([(self._source.view(position, n), (position, n)) for n in numbers]).to(self._device)
        with torch.no_grad():
            features = self._frozen(self._normalize(views.rgb))
        stored = _map(lambda row: row[0].half().cpu(), [features])
        return [_map(lambda row: row[0][n].clone(), [stored]) for n in range(len(numbers))]  # noqa: B023


def feature_cache(source: FrameSource, network: Any, device: torch.device) -> FeatureCache | None:
    """Make a cache for a CAM network or student, if the views are fixed and it has a frozen part; else ``None``."""
    if not source.config.cached_views:
        return None
    network.eval()
    with torch.no_grad():
        probe = network.normalize(collate([source[0, 0]]).rgb.to(device))
        if network.frozen_features(probe) is None:
            return None
    return FeatureCache(source, network.frozen_features, network.normalize, device)


def _map(function: Callable[[list[Tensor]], Tensor], rows: list[Any]) -> Any:
    """Apply ``function`` to the tensors that stand at the same place of each row (tensors or lists of tensors)."""
    if isinstance(rows[0], Tensor):
        return function(rows)
    return [_map(function, list(parts)) for parts in zip(*rows)]


def _leaves(features: Any) -> list[Tensor]:
    return [features] if isinstance(features, Tensor) else [leaf for part in features for leaf in _leaves(part)]
