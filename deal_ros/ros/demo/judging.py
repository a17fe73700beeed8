# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the masks that came over DDS are worth, beside what a blind segmenter would get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deal_ros.datasets.base import SampleDataset
from deal_ros.metrics import SegmentationMetrics
from deal_ros.ros.demo.operator import Show
from deal_ros.sample import Sample


@dataclass(frozen=True)
class Verdict:
    """Figures of one show.

    Args:
        offered: frames that the camera announced.
        masked: how many of them came back as masks.
        miou: of the masks.
        background_miou: if every pixel were background.
        constant_miou: of the best single class everywhere.
        latency_p50_ms, latency_p95_ms: stamp → mask received in another process.
    """

    offered: int
    masked: int
    miou: float
    background_miou: float
    constant_miou: float
    latency_p50_ms: float
    latency_p95_ms: float


def judge(shows: Sequence[Show], num_classes: int) -> Verdict:
    """Compare the masks of all shows with the truths of the same stamps.

    Raises:
        RuntimeError: if no mask has a truth.
    """
    pairs = [(show.masks[stamp], show.truths[stamp]) for show in shows for stamp in show.masks if stamp in show.truths]
    if not pairs:
        raise RuntimeError("no mask arrived for any frame that was offered; see the logs of segmenter and simulator")
    latency = np.concatenate([show.latency_ms for show in shows])
    constants = [_miou(pairs, num_classes, constant) for constant in range(num_classes + 1)]
    return Verdict(
        offered=sum(len(show.offered) for show in shows),
        masked=sum(len(show.offered & show.masks.keys()) for show in shows),
        miou=_miou(pairs, num_classes),
        background_miou=constants[0],
        constant_miou=max(constants[1:]),
        latency_p50_ms=float(np.percentile(latency, 50)),
        latency_p95_ms=float(np.percentile(latency, 95)),
    )


class TruthfulDataset:
    """A gathered store with the true masks that only a simulator knows, found by stamp.

    Training never sees this: it is made afterwards, to judge.
    """

    def __init__(self, dataset: SampleDataset, truths: dict[int, NDArray[np.uint8]]) -> None:
        self._dataset, self._truths = dataset, truths
        self.classes = dataset.classes
        self.labels: Callable[[int], frozenset[str] | None] = dataset.labels
        self.sample_id: Callable[[int], str] = dataset.sample_id
        self.sequence: Callable[[int], str] = dataset.sequence

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Return the sample with its truth, where one arrived."""
        sample = self._dataset[index]
        return replace(sample, mask=self._truths.get(sample.stamp_ns))


def _miou(pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], num_classes: int, constant: int = -1) -> float:
    metrics = SegmentationMetrics(num_classes)
    for mask, truth in pairs:
        metrics.update(mask if constant < 0 else np.full_like(truth, constant), truth)
    return metrics.miou()
