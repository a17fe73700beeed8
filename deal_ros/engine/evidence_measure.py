# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure a CAM network once for all ways of making a mask from it, and degrade the depth of a data set."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deal_ros.cams.base import CamNetwork
from deal_ros.datasets.base import SampleDataset
from deal_ros.datasets.views import spread
from deal_ros.engine.distributed import alone
from deal_ros.engine.evaluate import STAGE, MapScores
from deal_ros.engine.progress import Cancelled, Progress, ProgressCallback, StopRequested, ignore_progress, never_stop
from deal_ros.engine.pseudo_label import CamMaker, PseudoLabelStageConfig
from deal_ros.filters import DepthNoiseConfig, add_depth_noise
from deal_ros.labels import label_vector
from deal_ros.metrics import mean_average_precision
from deal_ros.pseudo_labels import ContourAgreement, refine_cam
from deal_ros.pseudo_labels.config import Refinement
from deal_ros.sample import Sample

SWEPT, TRUTH_FREE, FIXED = "swept", "truth-free", "fixed"
RAW: Literal["none"] = "none"
"""The refinement that is none: the maps as the network gives them."""


class DegradedDepth:
    """A data set seen by a worse depth camera. Each frame's noise is its own and always the same.

    Args:
        dataset: the data set.
        noise: what is wrong with its depth.
    """

    def __init__(self, dataset: SampleDataset, noise: DepthNoiseConfig) -> None:
        self._dataset, self._noise = dataset, noise

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order."""
        return tuple(self._dataset.classes)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample and spoil its depth."""
        sample = self._dataset[index]
        rng = np.random.default_rng(zlib.crc32(self.sample_id(index).encode()))
        return replace(sample, depth_m=add_depth_noise(sample.depth_m, self._noise, rng))

    def labels(self, index: int) -> frozenset[str] | None:
        """Return the image labels alone."""
        return self._dataset.labels(index)

    def sample_id(self, index: int) -> str:
        """As without noise."""
        return self._dataset.sample_id(index)

    def sequence(self, index: int) -> str:
        """As without noise."""
        return self._dataset.sequence(index)


@torch.no_grad()
def measure_cam(
    dataset: SampleDataset,
    network: CamNetwork,
    config: PseudoLabelStageConfig,
    size: tuple[int, int],
    *,
    refinements: Sequence[Refinement] = (),
    samples: int = 0,
    device: torch.device | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> dict[str, Any]:
    """Figures of activation maps, raw and refined, at three thresholds, from one pass over the images.

    Args:
        dataset: with image labels, masks and depth; samples without labels or mask are left out.
        network: in evaluation mode.
        config: scales, mirroring, and the constants of refinement.
        size: height and width that the network was trained on.
        refinements: ``rgb``, ``rgbd``, ``crf``; the raw maps are always measured.
        samples: most images, evenly spread; 0 takes all.
        device: where to compute.
        on_progress: called after every image.
        should_stop: asked before every image.

    Returns:
        ``samples``, ``map`` (classification mAP on these images), ``map_of_maps`` (the same of the averages of the
        class maps, which are the scores unless the network has others) and, by refinement, ``curve``,
        ``contour_counts`` (see :class:`~deal_ros.pseudo_labels.ContourAgreement`) and, by way of choosing the
        threshold, ``{"threshold", "miou", "contour_f"}``: ``swept`` on the true masks of these very images,
        ``truth-free`` on their depth and image labels, ``fixed`` as configured.

    Raises:
        ValueError: if no image can be measured.
    """
    device = device or torch.device("cpu")
    classes = tuple(dataset.classes)
    maker = CamMaker(network.to(device).eval(), config, size, device)
    kinds: list[Refinement] = [RAW, *refinements]
    chosen = spread([i for i in range(len(dataset)) if dataset.labels(i)], samples)
    measured = {kind: MapScores(len(classes), len(chosen)) for kind in kinds}
    agreements = {kind: ContourAgreement(config.labels.contour) for kind in kinds}
    scores, averages, labels = [], [], []
    for row, index in enumerate(chosen):
        if should_stop():
            raise Cancelled(f"{STAGE}: stopped; start again to measure anew")
        sample = dataset[index]
        if sample.mask is not None:
            maps, present = maker(sample, classes, refined=False)
            said, average = _scores(network, sample.rgb, size, device)
            scores.append(said)
            averages.append(average)
            labels.append(label_vector(sample.labels or (), classes))
            for kind in kinds:
                options = replace(config.labels, refine=kind)
                cam = maps if kind == RAW else refine_cam(maps, sample.rgb, sample.depth_m, options, present)
                measured[kind].update(row, cam, sample.mask, present)
                agreements[kind].update(cam, sample.depth_m, present)
        on_progress(Progress(STAGE, row + 1, len(chosen)))
    if not scores:
        raise ValueError(f"a measurement must have samples with image labels and masks, got none of {len(dataset)}")
    result: dict[str, Any] = {"samples": len(scores)}
    result["map"] = mean_average_precision(np.stack(scores), np.stack(labels))
    result["map_of_maps"] = mean_average_precision(np.stack(averages), np.stack(labels))
    for kind in kinds:
        found = agreements[kind].result(fallback=config.labels.threshold)
        thresholds = {TRUTH_FREE: found.threshold, FIXED: config.labels.threshold}
        result[kind] = measured[kind].result(thresholds, alone(str(device)))
        result[kind]["contour_counts"] = agreements[kind].counts.tolist()
    return result


def _scores(
    network: CamNetwork, rgb: NDArray[np.uint8], size: tuple[int, int], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return class scores (K,) of one image at the training size, and the average of its class maps (K,)."""
    if rgb.shape[:2] != tuple(size):
        rgb = np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].to(device)
    output = network(network.normalize(image))
    return output.scores[0].float().cpu().numpy(), output.raw[0].mean((1, 2)).float().cpu().numpy()
