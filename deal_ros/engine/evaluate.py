# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stage 4: compare CAM seeds, label maps or a student with true masks, and with image labels where there are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deal_ros.cams.base import CamNetwork
from deal_ros.datasets.base import SampleDataset
from deal_ros.datasets.views import spread
from deal_ros.engine.distributed import Ranks, alone
from deal_ros.engine.label_folder import LabelFolder
from deal_ros.engine.progress import Cancelled, Progress, ProgressCallback, StopRequested, ignore_progress, never_stop
from deal_ros.engine.pseudo_label import CamMaker, PseudoLabelStageConfig
from deal_ros.labels import label_vector
from deal_ros.metrics import SegmentationMetrics, contour_f_score, mean_average_precision
from deal_ros.pseudo_labels import ThresholdSweep
from deal_ros.sample import Sample
from deal_ros.students import InferenceConfig, Student, segment
from deal_ros.students.pixels import Size, network_size

STAGE = "evaluate"
SWEEP = tuple(round(0.01 * i, 2) for i in range(1, 100))
"""Thresholds that are tried on true masks. Papers stop at .59; sharp maps can want more."""
CONTOUR_IMAGES = 500
"""Most images, evenly spread, whose maps are kept for the contour F-score: their threshold is known only at the end."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured.

    Args:
        samples: most samples per measurement, evenly spread over the data set; 0 takes all.
        contours: also compute the contour F-score (a tenth of a second per 640×480 image); of activation maps on
            :data:`CONTOUR_IMAGES` of the images at most.
        inference: how students are asked. Single-shot by default, at the size that a robot's predictor would choose;
            windows and several scales are of the image's own size, as in papers.
        longest_side: with windows or several scales, students see images no larger than this; 0 leaves them as they
            are.
    """

    samples: int = 0
    contours: bool = True
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    longest_side: int = 0


class Scores:
    """Segmentation figures gathered over a data set.

    Args:
        classes: K names in id order.
        contours: whether to compute the contour F-score.
    """

    def __init__(self, classes: tuple[str, ...], contours: bool = True) -> None:
        self.classes = classes
        self._segmentation = SegmentationMetrics(len(classes))
        self._contours = contours
        self._contour_sum, self._contour_count, self._images = 0.0, 0, 0

    def update(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Count one image."""
        self._segmentation.update(prediction, truth)
        self._images += 1
        if self._contours:
            value = contour_f_score(prediction, truth)
            if math.isfinite(value):
                self._contour_sum += value
                self._contour_count += 1

    def gather(self, ranks: Ranks) -> None:
        """Add up the counts of all ranks."""
        if ranks.world > 1:
            self._segmentation.all_reduce()
            sums = torch.tensor(
                [self._contour_sum, self._contour_count, self._images], dtype=torch.float64, device=ranks.device
            )
            total, count, images = ranks.total(sums).tolist()
            self._contour_sum, self._contour_count, self._images = total, round(count), round(images)

    def result(self) -> dict[str, Any]:
        """Figures by name; shares in [0, 1], ``None`` where there is nothing to divide by."""
        iou = self._segmentation.iou_per_class()
        names = ("background", *self.classes)
        figures: dict[str, Any] = {
            "miou": _known(self._segmentation.miou()),
            "pixel_accuracy": _known(self._segmentation.pixel_accuracy()),
            "iou": {name: _known(value) for name, value in zip(names, iou.tolist())},
            "samples": self._images,
        }
        if self._contours:
            figures["contour_f"] = self._contour_sum / self._contour_count if self._contour_count else None
        return figures


class MapScores:
    """Figures of activation maps at the thresholds of :data:`SWEEP`, gathered over a data set.

    Args:
        num_classes: K.
        images: how many there are at most.
        contours: whether to compute the contour F-score.
    """

    def __init__(self, num_classes: int, images: int, contours: bool = True) -> None:
        self._sweep = ThresholdSweep(num_classes, SWEEP)
        self._contours, self._every = contours, max(1, math.ceil(images / CONTOUR_IMAGES))
        self._kept: list[tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]] = []

    def update(self, row: int, cam: Tensor, truth: NDArray[np.uint8], present: Tensor) -> None:
        """Count image ``row``: activations float (K, H, W), true mask (H, W), and (K,), true for classes in view."""
        self._sweep.update(cam, truth, present)
        if self._contours and row % self._every == 0:
            activation, strongest = cam.max(0)
            self._kept.append(((strongest + 1).byte().cpu().numpy(), activation.half().cpu().numpy(), truth))

    def result(self, thresholds: Mapping[str, float], ranks: Ranks) -> dict[str, Any]:
        """Figures over all ranks.

        Returns:
            ``thresholds`` that were tried and ``curve``, mIoU at each; ``swept``, ``{"threshold", "miou",
            "contour_f"}`` of the best one on these true masks, and the same for each of ``thresholds`` by its name.
        """
        self._sweep.counts = ranks.total(torch.from_numpy(self._sweep.counts).to(ranks.device)).cpu().numpy()
        best = self._sweep.result()
        result: dict[str, Any] = {"thresholds": list(SWEEP), "curve": list(best.scores)}
        for name, threshold in {"swept": best.threshold, **thresholds}.items():
            index = int(np.argmin(np.abs(np.subtract(SWEEP, threshold))))
            result[name] = {"threshold": threshold, "miou": best.scores[index]}
            if self._contours:
                result[name]["contour_f"] = self._contour_f(threshold, ranks)
        return result

    def _contour_f(self, threshold: float, ranks: Ranks) -> float | None:
        masks = ((np.where(a > threshold, strongest, 0).astype(np.uint8), truth) for strongest, a, truth in self._kept)
        values = [value for mask, truth in masks if math.isfinite(value := contour_f_score(mask, truth))]
        sums = torch.tensor([sum(values), len(values)], dtype=torch.float64, device=ranks.device)
        total, count = ranks.total(sums).tolist()
        return total / count if count else None


def evaluate_labels(
    dataset: SampleDataset,
    labels: str | Path,
    config: EvaluateConfig = EvaluateConfig(),
    *,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> dict[str, Any]:
    """Compare label maps with the true masks of their samples.

    Returns:
        ``miou``, ``iou`` by class, ``pixel_accuracy``, ``contour_f`` and ``samples``; a 255 in a map counts as a miss.
        ``miou`` is ``None`` if no sample has both.
    """
    ranks = ranks or alone()
    maps, scores = LabelFolder(labels, dataset.classes), Scores(tuple(dataset.classes), config.contours)
    usable = [i for i in range(len(dataset)) if maps.has(dataset.sample_id(i))]
    for _, sample, name in _walk(dataset, spread(usable, config.samples), ranks, on_progress, should_stop):
        if sample.mask is not None:
            scores.update(maps.read(name), sample.mask)
    scores.gather(ranks)
    return scores.result()


@torch.no_grad()
def evaluate_student(
    dataset: SampleDataset,
    student: Student,
    config: EvaluateConfig = EvaluateConfig(),
    *,
    input_size: Size | None = None,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> dict[str, Any]:
    """Compare a student's masks with the truth. It sees colour only and is told nothing of what is in view.

    Args:
        dataset: its classes must be the student's.
        student: in evaluation mode; read one with ``students.read_bundle``.
        config: see :class:`EvaluateConfig`.
        input_size: height and width that it was trained on, ``BundleSpec.input_size``; ``None`` asks it at the size of
            each image.
        ranks: this process among its peers.
        on_progress: called after every image.
        should_stop: asked before every image.

    Returns:
        As :func:`evaluate_labels`, and ``label_recovery``: mAP of each image's labels given the strongest probability
        of each class, which needs no masks.
    """
    ranks = ranks or alone()
    student = student.to(ranks.device).eval()
    if student.num_classes != len(dataset.classes):
        raise ValueError(
            f"data set must have the student's {student.num_classes} classes, got {len(dataset.classes)}:"
            f" {', '.join(dataset.classes)}"
        )
    scores = Scores(tuple(dataset.classes), config.contours)
    chosen = spread(range(len(dataset)), config.samples)
    strongest = torch.zeros(len(chosen), student.num_classes, dtype=torch.float32)
    labels = torch.full_like(strongest, -1)
    for row, sample, _ in _walk(dataset, chosen, ranks, on_progress, should_stop):
        probabilities = student_probabilities(student, sample, config, ranks.device, input_size)
        strongest[row] = probabilities[1:].amax((1, 2)).cpu()
        if sample.labels is not None:
            labels[row] = torch.from_numpy(label_vector(sample.labels, dataset.classes))
        if sample.mask is not None:
            scores.update(probabilities.argmax(0).byte().cpu().numpy(), sample.mask)
    scores.gather(ranks)
    figures = scores.result()
    figures["label_recovery"] = _mean_ap(_gathered(strongest, ranks), _gathered(labels, ranks, filled=-1.0))
    return figures


def student_probabilities(
    student: Student,
    sample: Sample,
    config: EvaluateConfig,
    device: torch.device,
    input_size: Size | None = None,
) -> Tensor:
    """Class probabilities float (K+1, H, W) of one sample at its own size; see :func:`evaluate_student`."""
    rgb = torch.from_numpy(sample.rgb).permute(2, 0, 1)[None].to(device)
    size = asked = sample.size
    inference = config.inference
    if input_size is not None and inference.window is None and inference.scales == (1.0,):
        asked = network_size(size, input_size)
    elif config.longest_side and max(size) > config.longest_side:
        scale = config.longest_side / max(size)
        asked = max(32, round(size[0] * scale)), max(32, round(size[1] * scale))
    if asked != size:
        rgb = F.interpolate(rgb.float() / 255, asked, mode="bilinear", align_corners=False, antialias=True)
    probabilities = segment(student, rgb, config.inference)
    if probabilities.shape[-2:] != size:
        probabilities = F.interpolate(probabilities, size, mode="bilinear", align_corners=False)
    return probabilities[0]


@torch.no_grad()
def evaluate_cam(
    dataset: SampleDataset,
    network: CamNetwork,
    seeds: PseudoLabelStageConfig,
    size: tuple[int, int],
    config: EvaluateConfig = EvaluateConfig(),
    *,
    thresholds: dict[str, float] | None = None,
    refined: bool = False,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> dict[str, Any]:
    """Compare activation maps, given the image labels, with the true masks.

    Args:
        dataset: with image labels and masks; samples without either are left out.
        network: in evaluation mode.
        seeds: scales, mirroring and refinement, as for making pseudo-labels.
        size: height and width that the network was trained on.
        config: see :class:`EvaluateConfig`.
        thresholds: background thresholds to report beside the swept one, by name.
        refined: measure the maps after refinement instead of as the network gives them.
        ranks: this process among its peers.
        on_progress: called after every image.
        should_stop: asked before every image.

    Returns:
        ``curve``, mIoU at each of :data:`SWEEP`; ``swept``, ``{"threshold", "miou", "contour_f"}`` of its best point,
        chosen on these true masks for comparison with papers and used for nothing; the same for each of
        ``thresholds``; ``samples``.
    """
    ranks = ranks or alone()
    classes = tuple(dataset.classes)
    maker = CamMaker(network.to(ranks.device).eval(), seeds, size, ranks.device)
    chosen = spread([i for i in range(len(dataset)) if dataset.labels(i)], config.samples)
    scores = MapScores(len(classes), len(chosen), config.contours)
    images = 0.0
    for row, sample, _ in _walk(dataset, chosen, ranks, on_progress, should_stop):
        if sample.mask is None:
            continue
        cam, present = maker(sample, classes, refined=refined)
        scores.update(row, cam, sample.mask, present)
        images += 1
    images = float(ranks.total(torch.tensor(images, device=ranks.device)))
    if not images:
        return {"samples": 0, "swept": None}
    return {"samples": round(images), **scores.result(thresholds or {}, ranks)}


def _walk(
    dataset: SampleDataset,
    indices: list[int],
    ranks: Ranks,
    on_progress: ProgressCallback,
    should_stop: StopRequested,
) -> Iterable[tuple[int, Sample, str]]:
    """(row, sample, id) of this rank's share, with reports."""
    for row in ranks.share(len(indices)):
        if should_stop():
            raise Cancelled(f"{STAGE}: stopped; start again to measure anew")
        yield row, dataset[indices[row]], dataset.sample_id(indices[row])
        on_progress(Progress(STAGE, min(row + ranks.world, len(indices)), len(indices)))


def _gathered(rows: Tensor, ranks: Ranks, filled: float = 0.0) -> NDArray[np.float32]:
    """Rows of all ranks; each rank filled its own and left ``filled`` elsewhere."""
    if ranks.world == 1:
        return rows.numpy()
    return (ranks.total((rows - filled).to(ranks.device)).cpu() + filled).numpy()


def _mean_ap(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> float | None:
    known = labels[:, 0] >= 0
    return _known(mean_average_precision(scores[known], labels[known])) if known.any() else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
