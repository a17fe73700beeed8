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

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deal_ros.config import to_mapping
from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.engine.distributed import Ranks, alone
from deal_ros.engine.evaluate import EvaluateConfig, student_probabilities
from deal_ros.engine.label_folder import LabelFolder, check_size, map_path, write_index, write_map
from deal_ros.engine.progress import (
    Cancelled,
    Progress,
    ProgressCallback,
    StopRequested,
    ignore_progress,
    never_stop,
    renamed,
)
from deal_ros.engine.run_folder import RunFolder
from deal_ros.engine.train_student import TrainStudentConfig, TrainStudentResult, train_student
from deal_ros.labels import label_vector
from deal_ros.pseudo_labels import background_only, corrected_map
from deal_ros.sample import IGNORE_ID, Sample
from deal_ros.students import InferenceConfig, read_bundle

STAGE = "correct-labels"
SIMPLE, TEACHER, CORRECTED = "labels-simple", "teacher", "labels-corrected"
"""Folders of a run whose student has a teacher."""
_LEAST_SHARE = 0.001
"""A map shows its class if at least this share of it does."""


@dataclass(frozen=True)
class CorrectLabelsConfig:
    """How label maps of images with several classes are corrected.

    Source: the order of learning is that of STC (Wei et al., arXiv 1509.03150), with depth in the place of saliency.

    Args:
        least: maps that show a class in an image of that class alone, without which its labels stay as they are.
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
class CorrectedLabels:
    """What the stage gave.

    Args:
        folder: of the new label maps.
        taught: classes that enough images show alone.
        changed: images with several classes, some of them taught: their maps are new.
        fractions: mean share of background, foreground and ignored pixels.
    """

    folder: Path
    taught: tuple[str, ...]
    changed: int
    fractions: dict[str, float]


@dataclass(frozen=True)
class TaughtStudent:
    """A student, and the label maps that it learned from.

    Args:
        student: its training run.
        labels: folder of the maps.
        corrected: how they were made; ``None`` if they are the first ones.
    """

    student: TrainStudentResult
    labels: Path
    corrected: CorrectedLabels | None = None


def shown_alone(dataset: SampleDataset, maps: LabelFolder, least: int) -> tuple[str, ...]:
    """Classes with at least ``least`` maps that show them, of images in which nothing else is, in id order."""
    counts = dict.fromkeys(dataset.classes, 0)
    for index in range(len(dataset)):
        labels, name = dataset.labels(index) or frozenset(), dataset.sample_id(index)
        only = next(iter(labels)) if len(labels) == 1 else None
        if only in counts and counts[only] < least and maps.has(name):
            shown = maps.read(name) == list(dataset.classes).index(only) + 1
            counts[only] += bool(shown.mean() >= _LEAST_SHARE)
    return tuple(name for name, count in counts.items() if count >= least)


@torch.no_grad()
def correct_labels(
    dataset: SampleDataset,
    labels: str | Path,
    out: str | Path,
    config: CorrectLabelsConfig = CorrectLabelsConfig(),
    *,
    teacher: str | Path | None = None,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> CorrectedLabels:
    """Write label maps in which a teacher named the objects of images with several classes anew.

    Without a teacher these maps keep their background alone: what a teacher is to learn from. Maps of images with at
    most one class are taken over, and so are those without any class that enough images show alone. Where only some
    classes are shown alone, the teacher names these, and pixels of the others stay as they are.

    Args:
        dataset: the images.
        labels: folder of their label maps, see :func:`~deal_ros.engine.pseudo_label.pseudo_label`.
        out: gets ``<sample id>.png`` and labels.json.
        config: see :class:`CorrectLabelsConfig`.
        teacher: bundle of a student that learned from the maps that this function writes without one.
        ranks: this process among its peers.
        on_progress: called after every image.
        should_stop: asked before every image.

    Raises:
        Cancelled: if asked to stop; start again to repeat the stage.
        DatasetError: if no map belongs to the data set, one has another size than its image, or the teacher knows
            other classes.
        CheckpointError: if ``out`` was made from other maps, by another teacher or with other settings.
    """
    ranks = ranks or alone()
    classes, maps = tuple(dataset.classes), LabelFolder(labels, dataset.classes)
    taught = shown_alone(dataset, maps, config.least)
    corrector = _Corrector(teacher, classes, taught, config, ranks.device) if teacher is not None else None
    identity = {"stage": STAGE, "classes": list(classes), "samples": len(dataset), "labels": maps.version}
    identity["teacher"] = corrector.version if corrector is not None else None
    folder = RunFolder(out, {**identity, "config": to_mapping(config)}, writer=ranks.first)
    ranks.barrier()
    if (done := folder.result()) is not None:
        return CorrectedLabels(folder.path, tuple(done["taught"]), done["changed"], done["fractions"])
    usable = maps.indices(dataset)
    stage, stopped = STAGE if teacher is not None else f"{STAGE} (simple)", False
    totals = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    for row in ranks.share(len(usable)):
        if stopped := should_stop():
            break
        name, present = dataset.sample_id(usable[row]), dataset.labels(usable[row]) or frozenset()
        mask = maps.read(name)
        several = len(present) > 1 and not present.isdisjoint(taught)
        if several:
            mask = background_only(mask) if corrector is None else corrector(name, dataset[usable[row]], mask)
        write_map(map_path(folder.path, name), mask)
        shares = [float(np.mean(mask == 0)), float(np.mean(mask == IGNORE_ID)), float(several)]
        totals += torch.tensor([shares[0], 1 - shares[0] - shares[1], *shares[1:]], device=ranks.device)
        on_progress(Progress(stage, min(row + ranks.world, len(usable)), len(usable)))
    if ranks.any(stopped):
        raise Cancelled(f"{STAGE}: stopped; start again to repeat it")
    sums = ranks.total(totals).tolist()
    fractions = dict(zip(("background", "foreground", "ignored"), (value / len(usable) for value in sums)))
    result = {"taught": list(taught), "changed": round(sums[3]), "fractions": fractions}
    if ranks.first:
        write_index(folder.path, {"classes": list(classes), "from": maps.version, **result})
    folder.finish({"stage": STAGE, **result})
    ranks.barrier()
    return CorrectedLabels(folder.path, taught, result["changed"], fractions)


class _Corrector:
    """A teacher that is told which of the classes that it was taught are in view; pixels of other classes stay."""

    def __init__(
        self,
        bundle: str | Path,
        classes: tuple[str, ...],
        taught: tuple[str, ...],
        config: CorrectLabelsConfig,
        device: torch.device,
    ) -> None:
        student, spec = read_bundle(bundle)
        if spec.classes != classes:
            raise DatasetError(f"{bundle}: teacher must know {', '.join(classes)}, got {', '.join(spec.classes)}")
        self.version = spec.version
        self._student, self._size = student.to(device).eval(), spec.input_size
        self._classes, self._taught = classes, taught
        self._replaced = [0, IGNORE_ID, *(classes.index(name) + 1 for name in taught)]
        self._config, self._device = config, device
        self._asked = EvaluateConfig(inference=InferenceConfig(flip=True))

    def __call__(self, name: str, sample: Sample, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_size(labels, sample.size, name)
        likely = student_probabilities(self._student, sample, self._asked, self._device, self._size)
        present = label_vector((sample.labels or frozenset()).intersection(self._taught), self._classes)
        sure = self._config.confidence, self._config.background_confidence
        return np.where(np.isin(labels, self._replaced), corrected_map(labels, likely, present, *sure), labels)


def train_with_teacher(
    dataset: SampleDataset,
    labels: str | Path,
    out: str | Path,
    config: TrainStudentConfig,
    correction: CorrectLabelsConfig | None,
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
    plain, corrected = {**reports, "on_progress": on_progress}, None
    if correction is not None:
        simple = correct_labels(dataset, labels, out / SIMPLE, correction, **plain)
        if simple.changed:
            marked = {**reports, "on_progress": renamed(on_progress, " (teacher)")}
            teacher = train_student(dataset, simple.folder, out / TEACHER, config, **marked)
            corrected = correct_labels(dataset, labels, out / CORRECTED, correction, teacher=teacher.bundle, **plain)
            maps = corrected.folder
    student = train_student(dataset, maps, out / "student", config, provenance=provenance, **plain)
    return TaughtStudent(student, maps, corrected)
