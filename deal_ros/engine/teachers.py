# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A student and its teachers: from simple to complex, and back.

Where several classes are in view, activation maps mistake things for one another, and things without a class for
objects; where one class is in view there is nothing to confuse. So a teacher, a student like the last, learns objects
from simple images alone and background from all, is told the image labels of the others, and names their objects anew.

What always lies beside an object in the images of its own, however, is learnt with it. Among others it lies elsewhere.
So a second teacher learns objects from the corrected images alone, and where the first maps give several parts of a
simple image its class, it tells which of them to believe.

No teacher saw what the first maps called the objects that it judges: one that did was seen to repeat their mistakes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deal_ros.datasets.base import SampleDataset
from deal_ros.engine.correct_labels import CorrectedLabels, CorrectLabelsConfig, Images, correct_labels
from deal_ros.engine.progress import ProgressCallback, ignore_progress, renamed
from deal_ros.engine.train_student import TrainStudentConfig, TrainStudentResult, train_student

CORRECTED, CHECKED = "labels-corrected", "labels-checked"
"""Folders of the label maps that a first and a second teacher gave."""
_FOLDERS: dict[Images, tuple[str, str, str]] = {
    "several": ("labels-simple", "teacher", CORRECTED),
    "one": ("labels-several", "second-teacher", CHECKED),
}
"""By the images to correct: maps for the teacher, the teacher, and what it gave."""


@dataclass(frozen=True)
class TaughtStudent:
    """A student, and the label maps that it learned from.

    Args:
        student: its training run.
        labels: folder of the maps.
        corrected: what the teacher gave; ``None`` if there was nothing to learn or to correct.
        checked: the same of the second teacher.
    """

    student: TrainStudentResult
    labels: Path
    corrected: CorrectedLabels | None = None
    checked: CorrectedLabels | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """What each teacher that there was knew and changed, as plain values: ``corrected`` and ``checked``."""
        steps = {"corrected": self.corrected, "checked": self.checked}
        return {
            name: {"taught": step.taught, "changed": step.changed, **step.fractions}
            for name, step in steps.items()
            if step is not None
        }


def train_with_teachers(
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
    """Train a student on label maps that teachers corrected; an earlier start is continued.

    Args:
        dataset: the images.
        labels: folder of their label maps.
        out: gets ``student/``, and with teachers ``labels-simple/``, ``teacher/``, ``labels-corrected/`` and, where
            parts are asked for, ``labels-several/``, ``second-teacher/``, ``labels-checked/``.
        config: of student and teachers; the second teacher does without ``paste`` and ``loss.absent``.
        correction: ``None`` trains on the maps as they are. So does data in which no class of images with several is
            shown alone: there is nothing to learn from.
        provenance: plain values to keep in the student's bundle.
        on_progress: reports of all stages.
        reports: ``ranks`` and ``should_stop`` of the stages.
    """
    out, maps, corrected, checked = Path(out), Path(labels), None, None
    reports["on_progress"] = on_progress
    if correction is not None:
        corrected = _taught(dataset, maps, out, config, correction, "several", None, **reports)
        maps = maps if corrected is None else corrected.folder
    if correction is not None and corrected is not None and correction.parts > 0:
        # Its maps show no object alone that could be pasted; and that unlabelled objects may be background is what it
        # must not learn about those that it is asked for.
        other = replace(config, paste=None, loss=replace(config.loss, absent=0.0))
        checked = _taught(dataset, maps, out, other, correction, "one", corrected.taught, **reports)
        maps = maps if checked is None else checked.folder
    student = train_student(dataset, maps, out / "student", config, provenance=provenance, **reports)
    return TaughtStudent(student, maps, corrected, checked)


def _taught(
    dataset: SampleDataset,
    maps: Path,
    out: Path,
    config: TrainStudentConfig,
    correction: CorrectLabelsConfig,
    images: Images,
    known: Collection[str] | None,
    *,
    on_progress: ProgressCallback,
    **reports: Any,
) -> CorrectedLabels | None:
    """Train a teacher on maps that hide what it is to correct, and correct; ``None`` where there is nothing to."""
    hidden, teacher, new = (out / name for name in _FOLDERS[images])
    stage: dict[str, Any] = {"images": images, "known": known, "on_progress": on_progress, **reports}
    basis = correct_labels(dataset, maps, hidden, correction, **stage)
    if not basis.changed:
        return None
    marked = renamed(on_progress, f" ({teacher.name})")
    bundle = train_student(dataset, basis.folder, teacher, config, on_progress=marked, **reports).bundle
    return correct_labels(dataset, maps, new, correction, teacher=bundle, **stage)
