# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Run a recipe: train-cam → pseudo-label → correct-labels → train-student → evaluate → report.

A second start goes on where the first one stopped.

::

    OUT/config.yaml              resolved settings
    OUT/data.json                which samples the run began with; later ones of a growing store are left out
    OUT/seed-0/cam-baseline/     CAM network without extra losses, if the recipe asks for it
    OUT/seed-0/cam/  labels/  student/bundle/  evaluation/
    OUT/seed-0/labels-simple/  teacher/  labels-corrected/    if the recipe has a section correct_labels, and then
    OUT/seed-0/labels-several/  second-teacher/  labels-checked/    unless its parts is 0
    OUT/report.md  report.json   written when all seeds are done
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deal_ros.config import to_mapping
from deal_ros.datasets import open_dataset
from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.datasets.views import Subset, spread
from deal_ros.engine.checkpoint import CheckpointError
from deal_ros.engine.distributed import Ranks, alone
from deal_ros.engine.evaluate import evaluate_cam, evaluate_student, student_probabilities
from deal_ros.engine.label_folder import map_path, read_map
from deal_ros.engine.plots import plot_thresholds
from deal_ros.engine.progress import ProgressCallback, StopRequested, ignore_progress, never_stop, renamed
from deal_ros.engine.provenance import provenance
from deal_ros.engine.pseudo_label import CamMaker, PseudoLabelResult, pseudo_label
from deal_ros.engine.recipe import ExperimentData, Recipe, check_layout, open_data
from deal_ros.engine.report import rows_of, write_report
from deal_ros.engine.run_folder import RunFolder
from deal_ros.engine.teachers import TaughtStudent, train_with_teachers
from deal_ros.engine.train_cam import TrainCamResult, load_cam, train_cam, without_losses
from deal_ros.files import write_json
from deal_ros.sample import Sample
from deal_ros.students import read_bundle
from deal_ros.visualization import colorize_depth, contact_sheet, heatmap, overlay, save_png

logger = logging.getLogger(__name__)
DATA = "data.json"
OVERLAYS = 6
"""Rows of a contact sheet."""


@dataclass(frozen=True)
class PipelineResult:
    """What a recipe gave.

    Args:
        bundle: the student of the first seed.
        report: report.md.
        metrics: the figures that matter, by name; means over seeds.
        rows: the report's table, see :mod:`deal_ros.engine.report`.
    """

    bundle: Path
    report: Path
    metrics: dict[str, float | None]
    rows: list[dict[str, Any]]


def run_pipeline(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> PipelineResult:
    """Run every stage of a recipe for each of its seeds, and write the report.

    Args:
        recipe: what to do.
        data: the data set's folder.
        out: the experiment's folder; stages that are done there are not repeated.
        ranks: this process among its peers.
        on_progress: reports of all stages.
        should_stop: asked throughout.

    Raises:
        Cancelled: if asked to stop; start again to go on.
        CheckpointError: if ``out`` holds an experiment with other settings.
        DatasetError: if the data set cannot be used.
    """
    ranks = ranks or alone()
    out = Path(out)
    folder = RunFolder(out, {"recipe": to_mapping(replace(recipe, smoke={}))}, writer=ranks.first)
    ranks.barrier()
    parts = _freeze(recipe, data, out, ranks)
    reports: dict[str, Any] = {"ranks": ranks, "on_progress": on_progress, "should_stop": should_stop}
    results = []
    for seed in recipe.seeds:
        results.append(_run_seed(recipe.seeded(seed), parts, out / f"seed-{seed}", Path(data).name, reports))
    origin = provenance(ranks.device)
    rows = rows_of(recipe, [result["evaluation"] for result in results], origin)
    metrics = _headline(results)
    report = out / "report.md"
    if ranks.first:
        write_report(report, recipe, rows, results, origin)
        folder.finish({"rows": rows, "metrics": metrics})
    ranks.barrier()
    return PipelineResult(out / f"seed-{recipe.seeds[0]}" / "student" / "bundle", report, metrics, rows)


def _run_seed(recipe: Recipe, data: ExperimentData, out: Path, name: str, reports: dict[str, Any]) -> dict[str, Any]:
    """All stages for one seed; returns their results by stage."""
    ranks: Ranks = reports["ranks"]
    config, baseline = recipe.train_cam, None
    if recipe.baseline:
        marked = {**reports, "on_progress": renamed(reports["on_progress"], " (baseline)")}
        plain = without_losses(config)
        baseline = train_cam(data.train, out / "cam-baseline", plain, validation=data.validation, **marked)
        config = replace(config, baseline_map=baseline.map)
    cam = train_cam(data.train, out / "cam", config, validation=data.validation, **reports)
    labels = pseudo_label(data.train, cam.run, out / "labels", recipe.pseudo_label, **reports)
    origin = {**provenance(ranks.device), "data": name, "recipe": recipe.name, "losses": config.losses.terms}
    origin |= {"seed": recipe.seeds[0], "map": cam.map, "threshold": labels.threshold}
    taught = train_with_teachers(
        data.train, labels.folder, out, recipe.train_student, recipe.correct_labels, provenance=origin, **reports
    )
    evaluation = _evaluate(recipe, data, out / "evaluation", baseline, cam, labels, taught, reports)
    return {"seed": recipe.seeds[0], "folder": out, "cam": cam, "student": taught.student, "evaluation": evaluation}


def _evaluate(
    recipe: Recipe,
    data: ExperimentData,
    out: Path,
    baseline: TrainCamResult | None,
    cam: TrainCamResult,
    labels: PseudoLabelResult,
    taught: TaughtStudent,
    reports: dict[str, Any],
) -> dict[str, Any]:
    """Figures of all stages and a contact sheet."""
    ranks: Ranks = reports["ranks"]
    identity = {"stage": "evaluate", "config": to_mapping(recipe.evaluate), "threshold": labels.threshold}
    folder = RunFolder(out, identity, writer=ranks.first)
    ranks.barrier()
    if (done := folder.result()) is not None:
        return done
    fixed = {"fixed": recipe.pseudo_label.labels.threshold}
    figures: dict[str, Any] = {"map": {}, "cam": {}, "student": {}}
    networks = {"none": baseline} if baseline is not None else {}
    networks[recipe.train_cam.losses.terms] = cam
    makers = {}
    for losses, run in networks.items():
        network, _, trained = load_cam(run.run, ranks.device)
        makers[losses] = CamMaker(network, recipe.pseudo_label, trained.loader.size, ranks.device)
        measure = _measurement(data.seeds, network, recipe, trained.loader.size, reports)
        figures["map"][losses] = run.map
        figures["cam"][losses] = {"seeds": measure(fixed, False)}
        if run is cam:
            chosen = {"truth-free" if recipe.pseudo_label.labels.mode == "contour" else "chosen": labels.threshold}
            figures["cam"][losses]["refined"] = measure(chosen, True)
    network_of_student, spec = read_bundle(taught.student.bundle)
    tests = dict(data.test) or {"held-out" if data.validation is not None else "train": data.validation or data.train}
    for name, test in tests.items():
        figures["student"][name] = evaluate_student(
            test, network_of_student, recipe.evaluate, input_size=spec.input_size, **reports
        )
    figures["agreement"] = taught.student.agreement
    figures["fractions"] = labels.fractions
    figures |= taught.figures
    if ranks.first:
        ask = partial(
            student_probabilities,
            network_of_student.to(ranks.device),
            config=recipe.evaluate,
            device=ranks.device,
            input_size=spec.input_size,
        )
        view = next(iter(tests.values()))
        folders = {"pseudo-label": labels.folder}
        if taught.labels != labels.folder:
            folders["corrected"] = taught.labels
        rows, titles = _pictures(data, makers, folders, ask)
        save_png(out / "overlays.png", contact_sheet(rows, titles))
        rows, titles = _student_pictures(view, ask)
        save_png(out / "student.png", contact_sheet(rows, titles))
        refined = figures["cam"][recipe.train_cam.losses.terms]["refined"]
        if refined["samples"]:
            marks = {key: value["threshold"] for key, value in refined.items() if isinstance(value, dict)}
            plot_thresholds(out / "thresholds.png", refined["thresholds"], refined["curve"], marks)
    folder.finish(figures)
    ranks.barrier()
    return folder.result() or figures


def _measurement(
    dataset: SampleDataset, network: Any, recipe: Recipe, size: tuple[int, int], reports: dict[str, Any]
) -> Callable[[dict[str, float], bool], dict[str, Any]]:
    def measure(thresholds: dict[str, float], refined: bool) -> dict[str, Any]:
        return evaluate_cam(
            dataset,
            network,
            recipe.pseudo_label,
            size,
            recipe.evaluate,
            thresholds=thresholds,
            refined=refined,
            **reports,
        )

    return measure


def _pictures(
    data: ExperimentData,
    makers: dict[str, CamMaker],
    folders: dict[str, Path],
    ask: Callable[[Sample], Tensor],
) -> tuple[list[list[NDArray[np.uint8]]], list[str]]:
    """Rows of image · depth · activations · label maps · student · truth, on training samples."""
    classes = tuple(data.train.classes)
    titles = ["image", "depth", *(f"CAM {name}" for name in makers), *folders, "student", "truth"]
    rows: list[list[NDArray[np.uint8]]] = []
    for index in _labelled(data.train, OVERLAYS):
        sample = data.train[index]
        row = [sample.rgb, colorize_depth(sample.depth_m)]
        for maker in makers.values():
            cam, present = maker(sample, classes, refined=False)
            row.append(heatmap(cam[present].amax(0).cpu().numpy() if present.any() else cam[0].numpy(), sample.rgb))
        for folder in folders.values():
            path = map_path(folder, data.train.sample_id(index))
            row.append(overlay(sample.rgb, read_map(path, len(classes)), classes))
        row.append(overlay(sample.rgb, ask(sample).argmax(0).byte().cpu().numpy(), classes))
        row += _truth(sample, classes)
        rows.append([_fitted(tile, rows[0][0].shape if rows else row[0].shape) for tile in row])
    return _even(rows, titles)


def _student_pictures(
    dataset: SampleDataset, ask: Callable[[Sample], Tensor]
) -> tuple[list[list[NDArray[np.uint8]]], list[str]]:
    """Rows of image · student · truth on images that the student is measured on."""
    classes = tuple(dataset.classes)
    rows: list[list[NDArray[np.uint8]]] = []
    for index in spread(range(len(dataset)), OVERLAYS):
        sample = dataset[index]
        mask = ask(sample).argmax(0).byte().cpu().numpy()
        row = [sample.rgb, overlay(sample.rgb, mask, classes), *_truth(sample, classes)]
        rows.append([_fitted(tile, rows[0][0].shape if rows else row[0].shape) for tile in row])
    return _even(rows, ["image", "student", "truth"])


def _truth(sample: Sample, classes: tuple[str, ...]) -> list[NDArray[np.uint8]]:
    return [] if sample.mask is None else [overlay(sample.rgb, sample.mask, classes)]


def _even(rows: list[list[NDArray[np.uint8]]], titles: list[str]) -> tuple[list[list[NDArray[np.uint8]]], list[str]]:
    """White tiles where a row is shorter than others, and the titles of columns that there are."""
    widest = max(map(len, rows), default=0)
    return [row + [np.full_like(row[0], 255)] * (widest - len(row)) for row in rows], titles[:widest]


def _labelled(dataset: SampleDataset, count: int) -> Iterator[int]:
    return iter(spread([i for i in range(len(dataset)) if dataset.labels(i)], count))


def _fitted(tile: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Put a picture into a canvas of the sheet's shape; photographs of a data set differ in theirs."""
    import cv2

    if tile.shape == shape:
        return tile
    scale = min(shape[0] / tile.shape[0], shape[1] / tile.shape[1])
    size = (max(1, round(tile.shape[1] * scale)), max(1, round(tile.shape[0] * scale)))
    canvas = np.full(shape, 255, np.uint8)
    small = cv2.resize(tile, size, interpolation=cv2.INTER_AREA)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas


def _freeze(recipe: Recipe, path: str | Path, out: Path, ranks: Ranks) -> ExperimentData:
    """Open the data; a store that has grown since the first start is cut to what it was then."""
    check_layout(recipe.data, path)
    train: SampleDataset = open_dataset(path, **recipe.data.train)
    if not len(train):
        raise DatasetError(f"{path}: holds no sample yet; collect some first")
    stored = out / DATA
    if stored.exists():
        first = json.loads(stored.read_text(encoding="utf-8"))
        count = first["samples"]
        same = count <= len(train) and [train.sample_id(0), train.sample_id(count - 1)] == first["ends"]
        if not same or list(train.classes)[: len(first["classes"])] != first["classes"]:
            raise CheckpointError(f"{path}: not the data that {out} was started with; choose another --out")
        if count < len(train) or len(first["classes"]) < len(train.classes):
            logger.info("%s: going on with the first %d of %d samples", out, count, len(train))
            train = Subset(train, range(count), first["classes"])
    elif ranks.first:
        ends = [train.sample_id(0), train.sample_id(len(train) - 1)]
        summary = {"layout": recipe.data.layout, "classes": list(train.classes), "samples": len(train), "ends": ends}
        write_json(stored, summary)
    ranks.barrier()
    return open_data(recipe.data, path, train)


def _headline(results: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means over seeds of the figures that a robot's operator wants to see."""
    gathered: dict[str, list[float]] = {}
    for result in results:
        evaluation = result["evaluation"]
        for losses, value in evaluation["map"].items():
            gathered.setdefault("map" if len(evaluation["map"]) == 1 else f"map ({losses})", []).append(value)
        for losses, cam in evaluation["cam"].items():
            for kind, figures in cam.items():
                if figures["swept"]:
                    gathered.setdefault(f"cam {kind} miou swept ({losses})", []).append(figures["swept"]["miou"])
        for name, figures in evaluation["student"].items():
            for key in ("miou", "contour_f", "label_recovery"):
                if figures.get(key) is not None:
                    gathered.setdefault(f"student {key} ({name})", []).append(figures[key])
        gathered.setdefault("agreement", []).append(evaluation["agreement"])
    return {name: float(np.mean(values)) for name, values in gathered.items()}


def summary(result: PipelineResult) -> dict[str, Any]:
    """Return the result as plain values: what ``deal run`` prints and the trainer node reads."""
    plain = asdict(result)
    return {**plain, "bundle": str(result.bundle), "report": str(result.report)}
