# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a data set that are data sets themselves, and splits that never cut through a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.sample import Sample


class Subset:
    """Some samples of a data set, in a given order.

    Args:
        dataset: the whole.
        indices: positions in it.
        classes: the first of its class names, if later ones shall be left out (a store's list can grow); labels that
            name others are refused when they are asked for.
    """

    def __init__(self, dataset: SampleDataset, indices: Sequence[int], classes: Sequence[str] | None = None) -> None:
        self._dataset, self._indices = dataset, list(indices)
        self._classes = tuple(dataset.classes if classes is None else classes)
        if self._classes != tuple(dataset.classes)[: len(self._classes)]:
            raise DatasetError(f"classes must begin with {', '.join(self._classes)}, got {', '.join(dataset.classes)}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order."""
        return self._classes

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample."""
        return self._dataset[self._at(index)]

    def labels(self, index: int) -> frozenset[str] | None:
        """Return the image labels alone."""
        return self._dataset.labels(self._at(index))

    def sample_id(self, index: int) -> str:
        """Return the whole's name for the sample."""
        return self._dataset.sample_id(self._at(index))

    def sequence(self, index: int) -> str:
        """Return the recording that the sample belongs to."""
        return self._dataset.sequence(self._at(index))

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self._indices):
            raise IndexError(f"sample {index} of {len(self._indices)}")
        return self._indices[index]


class ForgottenLabels(Subset):
    """A data set whose operator did not name all that was in view.

    A name is forgotten for a whole recording, as someone does who says once what stands on a table. One name of every
    recording is kept; frames that show only what was forgotten are labelled as showing nothing.

    Args:
        dataset: the whole.
        share: probability of each name of a recording to be forgotten, 0..1.
        seed: of the choice, which is the same for whoever opens the data.

    Raises:
        ValueError: if ``share`` is outside its range.
    """

    def __init__(self, dataset: SampleDataset, share: float, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share of forgotten labels must be 0..1, got {share}")
        super().__init__(dataset, range(len(dataset)))
        names: dict[str, set[str]] = {}
        for index in range(len(dataset)):
            names.setdefault(dataset.sequence(index), set()).update(dataset.labels(index) or ())
        random = np.random.default_rng(seed)
        self._forgotten: dict[str, set[str]] = {}
        for sequence in sorted(names):
            said = random.permutation(sorted(names[sequence])).tolist()
            self._forgotten[sequence] = {name for name in said[1:] if random.random() < share}

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample, with what was named."""
        return replace(super().__getitem__(index), labels=self.labels(index))

    def labels(self, index: int) -> frozenset[str] | None:
        """Return what was named."""
        labels = super().labels(index)
        return None if labels is None else labels - self._forgotten[self.sequence(index)]


def spread(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of ``indices``, evenly spread; 0 takes all."""
    if not count or count >= len(indices):
        return list(indices)
    return [indices[i] for i in np.unique(np.linspace(0, len(indices) - 1, count).astype(int)).tolist()]


def split_by_sequence(dataset: SampleDataset, share: float, seed: int = 0) -> tuple[Subset, Subset | None]:
    """Hold out whole recordings, about ``share`` of the labelled samples, but no class's last recording.

    Args:
        dataset: with image labels.
        share: 0..1; 0 holds nothing out.
        seed: of the choice.

    Returns:
        The part to train on, and the held-out part or ``None`` if nothing can be spared.
    """
    everything = range(len(dataset))
    if share <= 0:
        return Subset(dataset, everything), None
    members: dict[str, list[int]] = {}
    for index in everything:
        if dataset.labels(index) is not None:
            members.setdefault(dataset.sequence(index), []).append(index)
    shows = {name: frozenset().union(*(dataset.labels(i) or () for i in rows)) for name, rows in members.items()}
    left = {label: sum(label in shown for shown in shows.values()) for shown in shows.values() for label in shown}
    wanted, names = share * sum(map(len, members.values())), sorted(members)
    held: list[int] = []
    for place in np.random.default_rng(seed).permutation(len(names)).tolist():
        name = names[place]
        if len(held) + len(members[name]) > wanted + 0.5 or any(left[label] <= 1 for label in shows[name]):
            continue
        held += members[name]
        for label in shows[name]:
            left[label] -= 1
    if not held:
        return Subset(dataset, everything), None
    kept = set(held)
    return Subset(dataset, [i for i in everything if i not in kept]), Subset(dataset, sorted(held))
