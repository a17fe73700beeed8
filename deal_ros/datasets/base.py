# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every data set offers: samples by position, a stable id and a sequence for each, and the class names."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from deal_ros.labels import label_text
from deal_ros.sample import Sample

_IDENTIFYING = 1000


class DatasetError(ValueError):
    """A data set that cannot be read; the message names the file, what was expected and where it comes from."""


def need_classes(dataset: SampleDataset, classes: Sequence[str], whose: str) -> None:
    """Refuse a data set of other classes than ``classes``, or of the same in another order.

    Args:
        dataset: what is to be used.
        classes: names in id order.
        whose: what was trained for them, for the message.

    Raises:
        DatasetError: if they differ.
    """
    if tuple(classes) != tuple(dataset.classes):
        raise DatasetError(
            f"data set must have the classes that {whose} was trained for ({', '.join(classes)}), in this order,"
            f" got {', '.join(dataset.classes)}"
        )


def data_identity(dataset: SampleDataset) -> dict[str, Any]:
    """Tell one data set from another: classes, number of samples, CRC-32 of ids and labels of up to 2,000 of them."""
    count = len(dataset)
    chosen = range(0, count, max(1, count // _IDENTIFYING))
    known = [f"{dataset.sample_id(index)}: {label_text(dataset.labels(index))}" for index in chosen]
    return {"classes": list(dataset.classes), "samples": count, "content": zlib.crc32("\n".join(known).encode())}


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
