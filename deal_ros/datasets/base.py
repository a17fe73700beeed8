# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every data set offers: samples by position, a stable id and a sequence for each, and the class names."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from deal_ros.sample import Sample


class DatasetError(ValueError):
    """A data set that cannot be read; the message names the file, what was expected and where it comes from."""


@runtime_checkable
class SampleDataset(Protocol):
    """Random access to samples. Implementations decode on access and hold no images in memory."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order: ``classes[i]`` has id ``i + 1`` in masks."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample; ``IndexError`` beyond the end, :class:`DatasetError` if a file is broken."""
        ...

    def labels(self, index: int) -> frozenset[str] | None:
        """Return the image labels alone, without decoding an image."""
        ...

    def sample_id(self, index: int) -> str:
        """Return a name that is stable, unique and safe as a file name: pseudo-labels are stored under it."""
        ...

    def sequence(self, index: int) -> str:
        """Return the recording or scene that the sample belongs to; splits never cut through one."""
        ...
