# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration's table and pictures, all from the run that just ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deal_ros.datasets.views import spread
from deal_ros.engine.evaluate import EvaluateConfig, evaluate_cam, evaluate_labels
from deal_ros.engine.label_folder import LabelFolder
from deal_ros.engine.pseudo_label import CamMaker
from deal_ros.engine.recipe import Recipe
from deal_ros.engine.teachers import CHECKED, CORRECTED
from deal_ros.engine.train_cam import load_cam
from deal_ros.ros.demo.judging import TruthfulDataset
from deal_ros.ros.demo.operator import Show
from deal_ros.sample import Sample
from deal_ros.students import Predictor
from deal_ros.visualization import colorize_depth, contact_sheet, heatmap, overlay, save_png

CAMS = {"without DEAL": "cam-baseline", "with DEAL": "cam"}
LABELS = {"pseudo-labels": ("labels",), "corrected": (CHECKED, CORRECTED)}
"""Label maps by name, in the first folder that is there; corrected ones where the recipe and the images allow it."""
TILE_PX = 200


@dataclass(frozen=True)
class StageScores:
    """MIoU of what lies between labels and masks, on the gathered samples and their true masks.

    Args:
        cams: of the CAM seeds, by ``without DEAL`` and ``with DEAL``, each at its best threshold.
        labels: of the label maps, by name; a 255 counts as a miss.
        maps: classification mAP of the CAM networks, as ``cams``.
    """

    cams: Mapping[str, float]
    labels: Mapping[str, float]
    maps: Mapping[str, float]


def score_stages(run: Path, recipe: Recipe, dataset: TruthfulDataset, samples: int) -> StageScores:
    """Judge the stages of a finished training run.

    Args:
        run: the run's folder of one seed.
        recipe: what was run.
        dataset: the gathered samples with their truths.
        samples: how many of them to look at.
    """
    config = EvaluateConfig(samples=samples, contours=False)
    cams, maps = {}, {}
    for name, folder in CAMS.items():
        network, _, trained = load_cam(run / folder)
        found = evaluate_cam(dataset, network, recipe.pseudo_label, trained.loader.size, config)
        cams[name] = found["swept"]["miou"]
        maps[name] = read_map(run / folder)
    labels = {name: evaluate_labels(dataset, path, config)["miou"] for name, path in _label_folders(run).items()}
    return StageScores(cams, labels, maps)


def _label_folders(run: Path) -> dict[str, Path]:
    there = {name: [run / folder for folder in folders if (run / folder).is_dir()] for name, folders in LABELS.items()}
    return {name: folders[0] for name, folders in there.items() if folders}


def read_map(folder: Path) -> float:
    """Classification mAP of a finished CAM training."""
    from deal_ros.engine.run_folder import read_result

    result = read_result(folder)
    assert result is not None, f"{folder} did not finish"
    return float(result["map"])


def training_sheet(run: Path, recipe: Recipe, dataset: TruthfulDataset, indices: Sequence[int], path: Path) -> Path:
    """One row per sample: image · depth · CAM · CAM with DEAL · label maps · student · truth."""
    classes = tuple(dataset.classes)
    networks = {name: load_cam(run / folder) for name, folder in CAMS.items()}
    makers = {
        name: CamMaker(network, recipe.pseudo_label, trained.loader.size, torch.device("cpu"))
        for name, (network, _, trained) in networks.items()
    }
    labels = {name: LabelFolder(folder, classes) for name, folder in _label_folders(run).items()}
    rows = []
    with_masks = [i for i in indices if all(maps.has(dataset.sample_id(i)) for maps in labels.values())]
    predictor = Predictor(run / "student" / "bundle")
    try:
        for index in with_masks:
            sample = dataset[index]
            row = [sample.rgb, colorize_depth(sample.depth_m)]
            row += [_activation(maker, sample, classes) for maker in makers.values()]
            drawn = [maps.read(dataset.sample_id(index)) for maps in labels.values()]
            for mask in (*drawn, predictor.predict(sample.rgb).mask, sample.mask):
                shown = mask if mask is not None else np.full(sample.size, 255, np.uint8)
                row.append(overlay(sample.rgb, shown, classes))
            rows.append(row)
    finally:
        predictor.close()
    titles = ["image", "depth", *(f"CAM {name}" for name in makers), *labels, "student", "truth"]
    return save_png(path, contact_sheet(rows, titles, TILE_PX))


def show_sheet(shows: Sequence[Show], classes: tuple[str, ...], path: Path, views: int = 2) -> Path:
    """Scenes that were never taught: image · mask as it came over DDS · truth, ``views`` of them for each show."""
    rows: list[list[NDArray[np.uint8]]] = []
    for show in shows:
        complete = sorted(show.rgb.keys() & show.masks.keys() & show.truths.keys())
        row: list[NDArray[np.uint8]] = []
        for position in spread(range(len(complete)), views):
            stamp = complete[position]
            rgb = show.rgb[stamp]
            row += [rgb, overlay(rgb, show.masks[stamp], classes), overlay(rgb, show.truths[stamp], classes)]
        if len(row) == 3 * views:
            rows.append(row)
    if not rows:
        raise RuntimeError("no frame of the show arrived with its image, mask and truth")
    return save_png(path, contact_sheet(rows, ["image", "mask over DDS", "truth"] * views, TILE_PX))


def example_indices(dataset: TruthfulDataset, count: int) -> list[int]:
    """Choose samples for the sheet: alternating between one object and several, where there are both."""
    single = [i for i in range(len(dataset)) if len(dataset.labels(i) or ()) == 1]
    several = [i for i in range(len(dataset)) if len(dataset.labels(i) or ()) > 1]
    return sorted([*spread(single, count - count // 2), *spread(several, count // 2)])


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns of text, aligned."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _activation(maker: CamMaker, sample: Sample, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    cam, present = maker(sample, classes, refined=False)
    return heatmap(cam[present].amax(0).numpy(), sample.rgb)
