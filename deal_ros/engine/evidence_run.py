# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Carry out an evidence file, cell by cell; a second start goes on where the first one stopped.

::

    OUT/data/              the benchmark, rendered once, unless other data is given
    OUT/cam/…/seed-N/      CAM runs; cells with the same settings share one, above all the baselines
    OUT/student/…/seed-N/  label maps and student
    OUT/raw/CELL--val.json one per cell and split: figures, seed, commit, machine, wall time
    OUT/chosen.json        what the validation split chose

Test data is opened by :func:`measure_table` alone, which trains nothing and chooses nothing.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deal_ros.datasets import open_dataset
from deal_ros.datasets.base import SampleDataset
from deal_ros.datasets.rendered import render_dataset
from deal_ros.datasets.views import ForgottenLabels, Subset, spread
from deal_ros.engine.checkpoint import CheckpointError
from deal_ros.engine.distributed import Ranks, alone
from deal_ros.engine.evaluate import evaluate_student
from deal_ros.engine.evidence import (
    FORGOTTEN_LABELS,
    TRAIN_SAMPLES,
    Cell,
    DepthCondition,
    Evidence,
    digest,
    first_choice,
    normalized,
    plain,
)
from deal_ros.engine.evidence_measure import RAW, SWEPT, DegradedDepth, measure_cam
from deal_ros.engine.objective import parse_terms
from deal_ros.engine.progress import Cancelled, Progress, ProgressCallback, StopRequested, ignore_progress, never_stop
from deal_ros.engine.provenance import commit, provenance
from deal_ros.engine.pseudo_label import pseudo_label
from deal_ros.engine.recipe import Recipe
from deal_ros.engine.run_folder import read_result
from deal_ros.engine.teachers import train_with_teachers
from deal_ros.engine.train_cam import TrainCamResult, load_cam, train_cam, without_losses
from deal_ros.engine.train_student import TrainStudentResult, train_student
from deal_ros.files import json_ready, replace_file, write_json
from deal_ros.students import read_bundle

logger = logging.getLogger(__name__)
RAW_FOLDER, CHOSEN = "raw", "chosen.json"
VALIDATION, TEST = "val", "test"


class EvidenceRun:
    """An evidence file, its data and its folder.

    Args:
        evidence: the file.
        out: the folder.
        data: the benchmark; ``None`` renders it into ``out`` first.
        device: where to compute, see :func:`~deal_ros.engine.distributed.choose_device`.
        on_progress: reports of all stages, each named after its cell.
        should_stop: asked throughout.

    Raises:
        CheckpointError: if another process works in ``out``, when work begins.
        ValueError: if there is neither data nor a description of what to render.
    """

    def __init__(
        self,
        evidence: Evidence,
        out: str | Path,
        data: str | Path | None = None,
        *,
        device: str = "auto",
        on_progress: ProgressCallback = ignore_progress,
        should_stop: StopRequested = never_stop,
    ) -> None:
        if data is None and evidence.render is None:
            raise ValueError("the evidence file has no section render; say with --data where its data is")
        self.evidence, self.out = evidence, Path(out)
        self._data, self._ranks = Path(data) if data is not None else None, alone(device)
        self._report, self._should_stop, self._mark = on_progress, should_stop, ""

    def run(self, only: str = "*") -> list[str]:
        """Train and measure on the validation split what is not done yet: first the trials, then the cells.

        Args:
            only: pattern of cell names, as in a shell; trials that they need are always run.

        Returns:
            What failed, in words. One cell that fails does not stop the others.
        """
        with self._alone():
            self._prepare()
            trials, failed = self.evidence.trials(), []
            for number, cell in enumerate(trials, 1):
                failed += self._guarded(cell, VALIDATION, f"trial {number}/{len(trials)}")
            chosen = self.choose()
            cells = [c for c in self.decided(chosen) if fnmatch.fnmatchcase(c.name, only)]
            for number, cell in enumerate(cells, 1):
                failed += self._guarded(cell, VALIDATION, f"cell {number}/{len(cells)}")
        return failed

    def measure_table(self) -> list[str]:
        """Measure the cells of the table on the test split; all of them must be trained. Returns what failed."""
        with self._alone():
            self._prepare()
            cells = [cell for cell in self.decided(self.choose()) if cell.table]
            missing = [cell.name for cell in cells if not self.done(cell, VALIDATION)]
            if missing:
                raise CheckpointError(
                    f"{self.out}: {len(missing)} cells of the table are not trained yet, {missing[0]} for one;"
                    " run without --table first"
                )
            failed = []
            for number, cell in enumerate(cells, 1):
                failed += self._guarded(cell, TEST, f"test {number}/{len(cells)}")
        return failed

    def choose(self) -> dict[str, str]:
        """``NETWORK/ROW`` → name of the choice with the best mean validation mIoU of raw CAMs; also in chosen.json.

        Rows that could not be measured with any choice are missing.
        """
        scores: dict[str, dict[str, list[float]]] = {}
        for cell in self.evidence.trials():
            if (record := self.done(cell, VALIDATION)) is not None:
                value = float(np.mean([figures[RAW][SWEPT]["miou"] for figures in record["cam"].values()]))
                scores.setdefault(f"{cell.network}/{cell.losses}", {}).setdefault(cell.choice, []).append(value)
        means = {row: {name: float(np.mean(v)) for name, v in found.items()} for row, found in scores.items()}
        chosen = {row: max(found, key=lambda name: found[name]) for row, found in means.items()}
        if means:
            content = {"by": "mean mIoU of raw CAMs at the swept threshold on val", "chosen": chosen, "scores": means}
            write_json(self.out / CHOSEN, content)
        return chosen

    def done(self, cell: Cell, split: str) -> dict[str, Any] | None:
        """Return the raw record of a cell, if it was made with the present settings."""
        path = self.out / RAW_FOLDER / f"{cell.name}--{split}.json"
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        wanted = self._settings(cell, split)
        return record if wanted == {key: record["settings"].get(key) for key in wanted} else None

    def decided(self, chosen: dict[str, str]) -> list[Cell]:
        """All cells with the choices of the validation split."""
        result = []
        for cell in self.evidence.cells():
            row = f"{cell.network}/{self.evidence.row(cell.losses).tuned or cell.losses}"
            result.append(replace(cell, choice=chosen.get(row, first_choice(self.evidence, cell.network))))
        return result

    def _guarded(self, cell: Cell, split: str, mark: str) -> list[str]:
        """Do one cell; returns what failed."""
        if self.done(cell, split) is not None:
            return []
        self._mark = f"{mark} {cell.name}: "
        try:
            self._do(cell, split)
        except Cancelled:
            raise
        except (ValueError, RuntimeError, OSError) as error:
            logger.exception("%s failed", cell.name)
            return [f"{cell.name}: {error}"]
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return []

    def _do(self, cell: Cell, split: str) -> None:
        evidence, recipe = self.evidence, self.evidence.cell_recipe(cell)
        condition = evidence.condition(cell.depth)
        record: dict[str, Any] = {"cell": asdict(cell), "split": split, "settings": self._settings(cell, split)}
        record |= {"row": cell.losses, **provenance(self._ranks.device), "seed": cell.seed}
        began = time.monotonic()
        wall: dict[str, float] = {}
        masks = evidence.row(cell.losses).supervision == "true masks"
        samples = evidence.test_samples if split == TEST else evidence.validation_samples
        if not masks:
            cam, spent = self._cam(cell, recipe, condition)
            record |= {"map": cam.map, "step": cam.step, "trained": spent["commits"]}
            record |= {name: cam.metrics.get(name) for name in ("collapsed", "cam_activation", "gate")}
            wall["train_cam_s"] = spent["seconds"]
            network, _, trained = load_cam(cam.run, self._ranks.device)
            record["cam"] = {}
            began = time.monotonic()
            for domain in evidence.domains:
                record["cam"][domain] = measure_cam(
                    self._open(domain, split, condition),
                    network,
                    recipe.pseudo_label,
                    trained.loader.size,
                    refinements=evidence.refinements,
                    samples=samples,
                    device=self._ranks.device,
                    **self._reports(with_ranks=False),
                )
        if masks or cell.students:
            before = time.monotonic() - began
            student, labels, spent = self._student(cell, recipe, condition, masks)
            wall["train_student_s"], began = spent["seconds"], time.monotonic() - before
            record["trained"] = sorted({*record.get("trained", []), *spent["commits"]})
            record |= {"labels": labels, "agreement": student.agreement, "student": {}}
            network_of_student, spec = read_bundle(student.bundle)
            measured = replace(recipe.evaluate, samples=samples)
            for domain in evidence.domains:
                record["student"][domain] = evaluate_student(
                    self._open(domain, split, DepthCondition()),
                    network_of_student,
                    measured,
                    input_size=spec.input_size,
                    **self._reports(),
                )
        wall["measure_s"] = time.monotonic() - began
        record["wall"] = {name: round(value, 1) for name, value in wall.items()}
        path = self.out / RAW_FOLDER / f"{cell.name}--{split}.json"
        replace_file(path, json.dumps(json_ready(_rounded(record)), separators=(",", ":")) + "\n")

    def _cam(self, cell: Cell, recipe: Recipe, condition: DepthCondition) -> tuple[TrainCamResult, dict[str, Any]]:
        """Make the CAM run of a cell; return it and its cost. If the gate asks, first the same without losses."""
        config, folder = recipe.train_cam, self._cam_folder(cell, recipe, condition)
        if "deal" in parse_terms(config.losses.terms) and config.losses.deal_weight.map_tolerance is not None:
            baseline = normalized(without_losses(config))
            reference, _ = self._cam(cell, replace(recipe, train_cam=baseline), DepthCondition())
            config = replace(config, baseline_map=reference.map)
        train = self._training(cell)
        if condition.effects is not None and "deal" in parse_terms(config.losses.terms):
            train = DegradedDepth(train, condition.effects)
        validation = open_dataset(self._path, **self.evidence.train, split="val")
        with _accounted(folder) as spent:
            result = train_cam(train, folder, config, validation=validation, **self._reports())
        return result, spent

    def _student(
        self, cell: Cell, recipe: Recipe, condition: DepthCondition, masks: bool
    ) -> tuple[TrainStudentResult, dict[str, Any] | None, dict[str, Any]]:
        """Make the student of a cell; return it, facts about its label maps, and what both cost."""
        train = self._training(cell)
        identity: dict[str, Any] = {"student": plain(recipe.train_student), "train": self._part(cell)}
        identity["student"]["optimization"]["seed"] = 0
        if masks:
            folder = self.out / "student" / f"true-masks-{digest(identity)}" / f"seed-{cell.seed}"
            with _accounted(folder / "student") as spent:
                student = train_student(train, None, folder / "student", recipe.train_student, **self._reports())
            return student, None, spent
        cam = self._cam_folder(cell, recipe, condition)
        identity |= {"cam": str(cam.relative_to(self.out)), "labels": plain(recipe.pseudo_label)}
        identity["correct_labels"] = plain(recipe)["correct_labels"]
        identity["depth"] = plain(condition.effects) if condition.effects is not None else None
        folder = self.out / "student" / f"{cam.parent.name}-{digest(identity)}" / f"seed-{cell.seed}"
        seen = DegradedDepth(train, condition.effects) if condition.effects is not None else train
        with _accounted(folder / "student") as spent:
            labels = pseudo_label(seen, cam, folder / "labels", recipe.pseudo_label, **self._reports())
            origin = {**provenance(self._ranks.device), "cell": cell.name, "threshold": labels.threshold}
            taught = train_with_teachers(
                train,
                labels.folder,
                folder,
                recipe.train_student,
                recipe.correct_labels,
                provenance=origin,
                **self._reports(),
            )
        facts = {"threshold": labels.threshold, "fractions": labels.fractions, **taught.figures}
        return taught.student, facts, spent

    def _cam_folder(self, cell: Cell, recipe: Recipe, condition: DepthCondition) -> Path:
        config = recipe.train_cam
        identity = {"train_cam": plain(replace(config, baseline_map=None)), "train": self._part(cell)}
        identity["train_cam"]["optimization"]["seed"] = 0
        if condition.effects is not None and "deal" in parse_terms(config.losses.terms):
            identity["depth"] = plain(condition.effects)
        terms = config.losses.terms.replace(",", "-")
        return self.out / "cam" / f"{cell.network}-{terms}-{digest(identity)}" / f"seed-{cell.seed}"

    def _settings(self, cell: Cell, split: str) -> dict[str, str]:
        """Digest what a raw record depends on; a record with a student also serves where none is asked for."""
        evidence, recipe = self.evidence, plain(self.evidence.cell_recipe(cell))
        masks = evidence.row(cell.losses).supervision == "true masks"
        common: dict[str, Any] = {"domains": evidence.domains, "train": self._part(cell)}
        common["samples"] = evidence.test_samples if split == TEST else evidence.validation_samples
        cam = {key: recipe[key] for key in ("train_cam", "pseudo_label")}
        cam |= {"refinements": list(evidence.refinements), "depth": plain(evidence.condition(cell.depth)), **common}
        student = {"true masks": common} if masks else cam
        student = {**student, **{key: recipe[key] for key in ("train_student", "evaluate")}}
        student |= {} if masks else {"correct_labels": recipe["correct_labels"]}
        result = {} if masks else {"cam": digest(cam)}
        return result | ({"student": digest(student)} if masks or cell.students else {})

    def _training(self, cell: Cell) -> SampleDataset:
        changes = self.evidence.training_changes(cell)
        everything = open_dataset(self._path, **self.evidence.train, split="train")
        train = ForgottenLabels(everything, changes.get(FORGOTTEN_LABELS, 0.0))
        count = changes.get(TRAIN_SAMPLES, 0)
        if count > len(train):
            raise ValueError(f"{cell.name}: train_samples must be at most {len(train)}, all there are, got {count}")
        return Subset(train, spread(range(len(train)), count)) if count else train

    def _part(self, cell: Cell) -> dict[str, Any]:
        """Plain values that name the training part of a cell."""
        return {**self.evidence.train, **self.evidence.training_changes(cell)}

    def _open(self, domain: str, split: str, condition: DepthCondition) -> SampleDataset:
        dataset = open_dataset(self._path, **(self.evidence.domains[domain] or {}), split=split)
        return DegradedDepth(dataset, condition.effects) if condition.effects is not None else dataset

    @property
    def _path(self) -> Path:
        return self._data or self.out / "data"

    def _prepare(self) -> None:
        if self._data is None:
            assert self.evidence.render is not None
            report = self._report
            render_dataset(
                self._path,
                self.evidence.render,
                on_scene=lambda done, total: report(Progress("render", done, total)),
            )

    def _reports(self, with_ranks: bool = True) -> dict[str, Any]:
        mark, report = self._mark, self._report
        ranks: dict[str, Ranks] = {"ranks": self._ranks} if with_ranks else {}
        return {
            **ranks,
            "on_progress": lambda progress: report(replace(progress, stage=mark + progress.stage)),
            "should_stop": self._should_stop,
        }

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second process out of the folder."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CheckpointError(f"{self.out}: another process is working here; choose another --out") from error
            yield


def read_raw(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """All raw records below ``folders``, in a fixed order; trials included.

    Raises:
        CheckpointError: if one cannot be read.
    """
    records = []
    for path in sorted(path for folder in folders for path in Path(folder).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if {"cell", "split", "settings"} <= set(record):
                records.append(record)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: not readable ({error}); remove it to measure this cell again") from error
    return records


@contextmanager
def _accounted(run: Path) -> Iterator[dict[str, Any]]:
    """Seconds and commits that went into a run over all its starts; kept beside it, unchanged once it is done."""
    path = run.with_name(f"{run.name}-cost.json")
    spent: dict[str, Any] = {"seconds": 0.0, "commits": []}
    if path.is_file():
        spent = json.loads(path.read_text(encoding="utf-8"))
    finished, began = read_result(run) is not None and bool(spent["commits"]), time.monotonic()
    try:
        yield spent
    finally:
        if not finished:
            spent["seconds"] += time.monotonic() - began
            spent["commits"] = sorted({*spent["commits"], commit()})
            write_json(path, spent)


def _rounded(value: Any) -> Any:
    """Five decimals are more than any figure here is worth."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(float(value), 5) if isinstance(value, (float, np.floating)) else value
