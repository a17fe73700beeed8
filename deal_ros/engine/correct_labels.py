# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stage 2b: images that show one class correct the label maps of those that show several, and these correct theirs.

One round of it: what a teacher is to learn from, and what it then says. :mod:`~deal_ros.engine.teachers` has the order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from deal_ros.config import to_mapping
from deal_ros.datasets.base import DatasetError, SampleDataset, data_identity
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
)
from deal_ros.engine.run_folder import RunFolder
from deal_ros.labels import label_vector
from deal_ros.pseudo_labels import background_only, corrected_map, likely_parts
from deal_ros.sample import IGNORE_ID, Sample
from deal_ros.students import InferenceConfig, read_bundle

STAGE = "correct-labels"
Images = Literal["several", "one"]
_MARKS = {
    ("several", False): " (for the teacher)",
    ("several", True): "",
    ("one", False): " (for the second teacher)",
    ("one", True): " (parts)",
}
"""How reports are marked, by the images to correct and whether there is a teacher."""
_LEAST_SHARE = 0.001
"""A map shows its class if at least this share of it does."""


@dataclass(frozen=True)
class CorrectLabelsConfig:
    """How label maps are corrected.

    Source: the order of learning is that of STC (Wei et al., arXiv 1509.03150), with depth in the place of saliency.
    That images with several classes correct the others in turn is ours.

    Args:
        least: maps that show a class, without which a teacher cannot learn it, and its labels stay as they are.
        confidence: least probability, 0..1, of a class that the teacher names; less is left unlabelled.
        background_confidence: the same of background. It is how things without a class that stand out in depth become
            background, and must be high, because a teacher misses objects more often than it invents them.
        parts: least belief of a second teacher in a part of the map of an image with one class, as a share, 0..1, of
            its belief in the surest part, see :func:`~deal_ros.pseudo_labels.likely_parts`. 0 does without this
            teacher, and saves a training.
    """

    least: int = 5
    confidence: float = 0.5
    background_confidence: float = 0.9
    parts: float = 0.75

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.least < 1:
            raise ValueError(f"least must be at least 1, got {self.least}")
        for name in ("confidence", "background_confidence", "parts"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class CorrectedLabels:
    """What the stage gave.

    Args:
        folder: of the new label maps.
        taught: classes that a teacher can learn from the other images.
        changed: images with a class that was taught: their maps are new.
        fractions: mean share of background, foreground and ignored pixels.
    """

    folder: Path
    taught: tuple[str, ...]
    changed: int
    fractions: dict[str, float]


def shown(dataset: SampleDataset, maps: LabelFolder, of: Images, least: int) -> tuple[str, ...]:
    """Classes with at least ``least`` maps that show them, of images with one or several classes, in id order."""
    counts = dict.fromkeys(dataset.classes, 0)
    for index in range(len(dataset)):
        present, name = dataset.labels(index) or frozenset(), dataset.sample_id(index)
        wanted = [c for c, count in counts.items() if c in present and count < least]
        if wanted and _among(present, of) and maps.has(name):
            mask = maps.read(name)
            shares = np.bincount(mask.ravel(), minlength=256) / mask.size
            for label in wanted:
                counts[label] += bool(shares[list(dataset.classes).index(label) + 1] >= _LEAST_SHARE)
    return tuple(name for name, count in counts.items() if count >= least)


def _among(present: frozenset[str], kind: Images) -> bool:
    return len(present) == 1 if kind == "one" else len(present) > 1


@torch.no_grad()
def correct_labels(
    dataset: SampleDataset,
    labels: str | Path,
    out: str | Path,
    config: CorrectLabelsConfig = CorrectLabelsConfig(),
    *,
    images: Images = "several",
    known: Collection[str] | None = None,
    teacher: str | Path | None = None,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> CorrectedLabels:
    """Write label maps in which a teacher corrected the images of one kind; it learnt objects from the other kind.

    Without a teacher these maps keep their background alone: what a teacher is to learn from. With one, objects of
    images with several classes are named anew, and of an image with one class those parts are kept that are likely.
    All other maps are taken over, also those without any class that enough images of the other kind show. Where they
    show only some of the classes, the teacher names these, and pixels of the others stay as they are.

    Args:
        dataset: the images.
        labels: folder of their label maps, see :func:`~deal_ros.engine.pseudo_label.pseudo_label`.
        out: gets ``<sample id>.png`` and labels.json.
        config: see :class:`CorrectLabelsConfig`.
        images: the kind to correct, with ``several`` classes or with ``one``.
        known: the only classes that may be taught, because maps of the others cannot be relied upon; ``None`` is all.
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
    found = shown(dataset, maps, "one" if images == "several" else "several", config.least)
    taught = tuple(name for name in found if known is None or name in known)
    corrector = _Corrector(teacher, classes, taught, config, images, ranks.device) if teacher is not None else None
    identity = {"stage": STAGE, **data_identity(dataset), "labels": maps.version}
    identity |= {"images": images, "known": None if known is None else sorted(known)}
    identity["teacher"] = corrector.version if corrector is not None else None
    folder = RunFolder(out, {**identity, "config": to_mapping(config)}, writer=ranks.first)
    ranks.barrier()
    if (done := folder.result()) is not None:
        return CorrectedLabels(folder.path, tuple(done["taught"]), done["changed"], done["fractions"])
    usable = maps.indices(dataset)
    stage, stopped = STAGE + _MARKS[images, teacher is not None], False
    totals = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    for row in ranks.share(len(usable)):
        if stopped := should_stop():
            break
        name, present = dataset.sample_id(usable[row]), dataset.labels(usable[row]) or frozenset()
        mask = maps.read(name)
        changed = _among(present, images) and not present.isdisjoint(taught)
        if changed:
            mask = background_only(mask) if corrector is None else corrector(name, dataset[usable[row]], mask)
        write_map(map_path(folder.path, name), mask)
        shares = [float(np.mean(mask == 0)), float(np.mean(mask == IGNORE_ID)), float(changed)]
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
        images: Images,
        device: torch.device,
    ) -> None:
        student, spec = read_bundle(bundle)
        if spec.classes != classes:
            raise DatasetError(f"{bundle}: teacher must know {', '.join(classes)}, got {', '.join(spec.classes)}")
        self.version = spec.version
        self._student, self._size = student.to(device).eval(), spec.input_size
        self._classes, self._taught = classes, taught
        self._replaced = [0, IGNORE_ID, *(classes.index(name) + 1 for name in taught)]
        self._config, self._images, self._device = config, images, device
        self._asked = EvaluateConfig(inference=InferenceConfig(flip=True))

    def __call__(self, name: str, sample: Sample, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_size(labels, sample.size, name)
        likely = student_probabilities(self._student, sample, self._asked, self._device, self._size)
        config, present = self._config, (sample.labels or frozenset()).intersection(self._taught)
        if self._images == "one":
            return likely_parts(labels, likely, self._classes.index(next(iter(present))) + 1, config.parts)
        named = label_vector(present, self._classes)
        new = corrected_map(labels, likely, named, config.confidence, config.background_confidence)
        return np.where(np.isin(labels, self._replaced), new, labels)
