# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stage 2b: from simple to complex. Images that show one class correct the label maps of those that show several.

Where several classes are in view, activation maps mistake things for one another, and things without a class for
objects; where one class is in view there is nothing to confuse. So a teacher, a student like the last, learns objects
from simple images alone and background from all, is told the image labels of the others, and names their objects anew.
It never saw what the first maps called these objects: a second round, whose teacher did, was seen to repeat their
mistakes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deal_ros.config import to_mapping
from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.engine.distributed import Ranks, alone
from deal_ros.engine.evaluate import EvaluateConfig, student_probabilities
from deal_ros.engine.label_folder import LabelFolder, map_path, write_index, write_map
from deal_ros.engine.progress import Cancelled, Progress, ProgressCallback, StopRequested, ignore_progress, never_stop
from deal_ros.engine.run_folder import RunFolder
from deal_ros.engine.train_student import TrainStudentConfig, TrainStudentResult, train_student
from deal_ros.labels import label_vector
from deal_ros.pseudo_labels import corrected_map, without_classes
from deal_ros.sample import IGNORE_ID, Sample
from deal_ros.students import InferenceConfig, read_bundle

STAGE = "relabel"
SIMPLE, TEACHER, CORRECTED = "labels-simple", "teacher", "labels-corrected"
"""Folders of a run whose student has a teacher."""


@dataclass(frozen=True)
class RelabelConfig:
    """How label maps of images with several classes are corrected.

    Source: the order of learning is that of STC (Wei et al., arXiv 1509.03150), with depth in the place of saliency.

    Args:
        least: images that show a class alone, without which its labels stay as they are.
        confidence: least probability, 0..1, of a class that the teacher names; less is left unlabelled.
        background_confidence: the same of background. It is how things without a class that stand out in depth become
            background, and must be high, because a teacher misses objects more often than it invents them.
    """

    least: int = 5
    confidence: float = 0.5
    background_confidence: float = 0.9

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.least < 1:
            raise ValueError(f"least must be at least 1, got {self.least}")
        for name in ("confidence", "background_confidence"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class RelabelResult:
    """What the stage gave.

    Args:
        folder: of the new label maps.
        taught: classes that enough images show alone.
        changed: maps of images with several classes, some of them taught.
        fractions: mean share of background, foreground and ignored pixels.
    """

    folder: Path
    taught: tuple[str, ...]
    changed: int
    fractions: dict[str, float]


@dataclass(frozen=True)
class TaughtStudent:
    """A student and the label maps that it learned from in the end."""

    student: TrainStudentResult
    labels: Path


def shown_alone(dataset: SampleDataset, least: int) -> tuple[str, ...]:
    """Classes that are the only one in view in at least ``least`` samples, in id order."""
    shown = (dataset.labels(index) or frozenset() for index in range(len(dataset)))
    counts = Counter(next(iter(labels)) for labels in shown if len(labels) == 1)
    return tuple(name for name in dataset.classes if counts[name] >= least)


@torch.no_grad()
def relabel(
    dataset: SampleDataset,
    labels: str | Path,
    out: str | Path,
    config: RelabelConfig = RelabelConfig(),
    *,
    teacher: str | Path | None = None,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> RelabelResult:
    """Write label maps in which images with several classes are corrected, or, without a teacher, hide what they name.

    Maps of images with at most one class are taken over. Classes that too few images show alone keep their pixels.

    Args:
        dataset: the images.
        labels: folder of their label maps, see :func:`~deal_ros.engine.pseudo_label.pseudo_label`.
        out: gets ``<sample id>.png`` and labels.json.
        config: see :class:`RelabelConfig`.
        teacher: bundle of a student; ``None`` leaves objects of taught classes unlabelled.
        ranks: this process among its peers.
        on_progress: called after every image.
        should_stop: asked after every image.

    Raises:
        Cancelled: if asked to stop; start again to repeat the stage.
        DatasetError: if a map is missing or the teacher knows other classes.
    """
    ranks = ranks or alone()
    classes, maps = tuple(dataset.classes), LabelFolder(labels, dataset.classes)
    taught = shown_alone(dataset, config.least)
    ids = [classes.index(name) + 1 for name in taught]
    corrector = _Corrector(teacher, classes, ids, config, ranks.device) if teacher is not None else None
    identity = {"stage": STAGE, "classes": list(classes), "samples": len(dataset), "labels": maps.info}
    identity["teacher"] = corrector.version if corrector is not None else None
    folder = RunFolder(out, {**identity, "config": to_mapping(config)}, writer=ranks.first)
    ranks.barrier()
    if (done := folder.result()) is not None:
        return RelabelResult(folder.path, tuple(done["taught"]), done["changed"], done["fractions"])
    usable = [i for i in range(len(dataset)) if maps.has(dataset.sample_id(i))]
    if not usable:
        raise DatasetError(f"{labels}: no label map belongs to a sample of this data set; make them from the same data")
    totals = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    for row in ranks.share(len(usable)):
        name, present = dataset.sample_id(usable[row]), dataset.labels(usable[row]) or frozenset()
        mask = maps.read(name)
        several = len(present) > 1 and not present.isdisjoint(taught)
        if several:
            mask = without_classes(mask, ids) if corrector is None else corrector(dataset[usable[row]], mask)
        write_map(map_path(folder.path, name), mask)
        shares = [float(np.mean(mask == 0)), float(np.mean(mask == IGNORE_ID)), float(several)]
        totals += torch.tensor([shares[0], 1 - shares[0] - shares[1], *shares[1:]], device=ranks.device)
        on_progress(Progress(STAGE, min(row + ranks.world, len(usable)), len(usable)))
        if should_stop():
            raise Cancelled(f"{STAGE}: stopped after {row + 1} of {len(usable)} images; start again to repeat it")
    sums = ranks.total(totals).tolist()
    fractions = dict(zip(("background", "foreground", "ignored"), (value / len(usable) for value in sums)))
    result = {"taught": list(taught), "changed": round(sums[3]), "fractions": fractions}
    if ranks.first:
        write_index(folder.path, {"classes": list(classes), **result})
    folder.finish({"stage": STAGE, **result})
    ranks.barrier()
    return RelabelResult(folder.path, taught, result["changed"], fractions)


class _Corrector:
    """A teacher that is told the image labels; pixels of classes other than ``ids`` stay."""

    def __init__(
        self, bundle: str | Path, classes: tuple[str, ...], ids: list[int], config: RelabelConfig, device: torch.device
    ) -> None:
        student, spec = read_bundle(bundle)
        if spec.classes != classes:
            raise DatasetError(f"{bundle}: teacher must know {', '.join(classes)}, got {', '.join(spec.classes)}")
        self.version = spec.version
        self._student, self._size, self._classes = student.to(device).eval(), spec.input_size, classes
        self._replaced, self._config, self._device = [*ids, 0, IGNORE_ID], config, device
        self._asked = EvaluateConfig(inference=InferenceConfig(flip=True))

    def __call__(self, sample: Sample, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        likely = student_probabilities(self._student, sample, self._asked, self._device, self._size)
        present = label_vector(sample.labels or (), self._classes)
        sure = self._config.confidence, self._config.background_confidence
        return np.where(np.isin(labels, self._replaced), corrected_map(labels, likely, present, *sure), labels)


def train_with_teacher(
    dataset: SampleDataset,
    labels: str | Path,
    out: str | Path,
    config: TrainStudentConfig,
    correction: RelabelConfig | None,
    *,
    provenance: dict[str, Any] | None = None,
    on_progress: ProgressCallback = ignore_progress,
    **reports: Any,
) -> TaughtStudent:
    """Train a student on label maps that a teacher corrected; an earlier start is continued.

    Args:
        dataset: the images.
        labels: folder of their label maps.
        out: gets ``student/``, and with a teacher ``labels-simple/``, ``teacher/`` and ``labels-corrected/``.
        config: of student and teacher.
        correction: ``None`` trains on the maps as they are. So does data in which no class of images with several is
            shown alone: there is nothing to learn from.
        provenance: plain values to keep in the student's bundle.
        on_progress: reports of all stages.
        reports: ``ranks`` and ``should_stop`` of the stages.
    """
    out, maps = Path(out), Path(labels)
    plain = {**reports, "on_progress": on_progress}
    if correction is not None:
        simple = relabel(dataset, labels, out / SIMPLE, correction, **plain)
        if simple.changed:
            marked = {**reports, "on_progress": lambda p: on_progress(replace(p, stage=f"{p.stage} (teacher)"))}
            teacher = train_student(dataset, simple.folder, out / TEACHER, config, **marked)
            maps = relabel(dataset, labels, out / CORRECTED, correction, teacher=teacher.bundle, **plain).folder
    return TaughtStudent(train_student(dataset, maps, out / "student", config, provenance=provenance, **plain), maps)
