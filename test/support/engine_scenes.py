# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Data and settings so small that a training run takes seconds. Networks are timm's own test sizes, untrained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deal_ros.datasets.miniature import miniature_sample
from deal_ros.engine.augmentation import PLAIN
from deal_ros.engine.loader import LoaderConfig
from deal_ros.engine.objective import CamLossConfig
from deal_ros.engine.optimization import OptimizationConfig
from deal_ros.engine.pseudo_label import PseudoLabelStageConfig
from deal_ros.engine.train_cam import TrainCamConfig
from deal_ros.engine.train_student import TrainStudentConfig
from deal_ros.losses import LossWeightConfig
from deal_ros.pseudo_labels import PseudoLabelConfig
from deal_ros.sample import Sample

SIZE = (48, 64)
CLASSES = ("milk", "ketchup", "butter")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "timm": ("timm", {"backbone": "test_efficientnet", "output_stride": 16, "frozen_stages": 1}),
    "timm-vit": ("timm", {"backbone": "test_vit"}),
    "weaktr": ("weaktr", {"backbone": "test_vit"}),
    "seam": (
        "seam",
        {
            "backbone": "test_resnet",
            "output_stride": 16,
            "frozen_stages": 0,
            "frozen_norm": False,
            "small_scale": 0.5,
            "dropout": 0.1,
        },
    ),
}


class MemoryDataset:
    """A SampleDataset in memory; counts how often a sample is decoded."""

    def __init__(self, samples: list[Sample], classes: tuple[str, ...] = CLASSES, per_sequence: int = 2) -> None:
        self.samples, self._classes, self._per_sequence = samples, classes, per_sequence
        self.decoded: list[int] = []

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.decoded.append(index)
        return self.samples[index]

    def labels(self, index: int) -> frozenset[str] | None:
        return self.samples[index].labels

    def sample_id(self, index: int) -> str:
        return f"s{index:03d}"

    def sequence(self, index: int) -> str:
        return f"q{index // self._per_sequence}"


def scenes(count: int = 12, seed: int = 0, size: tuple[int, int] = SIZE) -> MemoryDataset:
    """``count`` scenes, one object each, the classes in turn."""
    samples = [miniature_sample([1 + i % 3], CLASSES, seed=seed + i, size=size, objects=0) for i in range(count)]
    return MemoryDataset(samples)


def cam_config(network: str = "timm", terms: str = "deal", steps: int = 6, **loader: Any) -> TrainCamConfig:
    """Settings for a CAM network that learns the miniature classes by colour."""
    name, arguments = NETWORKS[network]
    rate = 3e-3 if network in ("weaktr", "timm-vit") else 1e-2
    return TrainCamConfig(
        network=name,
        arguments={**arguments, "weights": "none"},
        loader=LoaderConfig(**{"size": SIZE, "augmentation": replace(PLAIN, flip=True), **loader}),
        optimization=OptimizationConfig(steps=steps, batch_size=6, lr=rate, batchnorm="batch"),
        losses=CamLossConfig(terms=terms, deal_weight=LossWeightConfig(mode="gradient_ratio", value=1.0)),
        evaluate_every=max(1, steps // 2),
        checkpoint_every=3,
        log_every=1,
    )


def label_config(**labels: Any) -> PseudoLabelStageConfig:
    """Settings for making label maps quickly."""
    return PseudoLabelStageConfig(labels=PseudoLabelConfig(**{"refine_px": 64, **labels}), threshold_samples=4)


def student_config(steps: int = 6, **changes: Any) -> TrainStudentConfig:
    """Settings for the light student on an untrained test-size encoder."""
    return TrainStudentConfig(
        **{
            "arguments": {"encoder": "test_efficientnet", "channels": 16, "frozen_stages": 1, "encoder_lr_factor": 1.0},
            "weights": "none",
            "loader": LoaderConfig(size=SIZE, augmentation=replace(PLAIN, flip=True), cached_views=2),
            "optimization": OptimizationConfig(steps=steps, batch_size=6, lr=1e-2, batchnorm="batch"),
            "evaluate_every": max(1, steps // 2),
            "checkpoint_every": 3,
            "log_every": 1,
            **changes,
        }
    )
