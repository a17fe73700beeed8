# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Data sets: whatever lies in a folder becomes samples. Bags become a store first (``datasets.bag``)."""

from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.datasets.bop import BopDataset
from deal_ros.datasets.coco import CocoDataset
from deal_ros.datasets.open import open_dataset, recognize
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.voc import VocDataset

__all__ = [
    "BopDataset",
    "CocoDataset",
    "DatasetError",
    "SampleDataset",
    "SampleStore",
    "VocDataset",
    "open_dataset",
    "recognize",
]
