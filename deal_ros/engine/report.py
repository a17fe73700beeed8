# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The report of an experiment: one table for people (report.md) and the same rows for programs (report.json)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deal_ros.config import to_mapping
from deal_ros.engine.recipe import Recipe
from deal_ros.files import replace_file, write_json

COLUMNS = ("stage", "losses", "data", "threshold", "mIoU", "contour F", "mAP")


def rows_of(recipe: Recipe, evaluations: Sequence[dict[str, Any]], origin: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows ``{data, network, losses, stage, threshold, depth, seeds, miou, miou_sd, contour_f, map, commit, machine}``.

    Args:
        recipe: the experiment.
        evaluations: figures of each seed.
        origin: see :func:`~deal_ros.engine.provenance.provenance`.
    """
    found: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for evaluation in evaluations:
        for losses, kinds in evaluation["cam"].items():
            for kind, figures in kinds.items():
                stage = "cam seeds" if kind == "seeds" else "pseudo-labels"
                measured = {name: value for name, value in figures.items() if isinstance(value, dict)}
                if not measured and kind == "seeds":  # no masks; what the classifier learnt is known
                    measured = {"none": {"threshold": None}}
                for name, value in measured.items():
                    entry = {**value, "map": evaluation["map"][losses]}
                    found.setdefault((stage, losses, "train", name), []).append(entry)
        for name, figures in evaluation["student"].items():
            entry = {**figures, "map": figures.get("label_recovery"), "threshold": None}
            found.setdefault(("student", recipe.train_cam.losses.terms, name, "none"), []).append(entry)
    loader = recipe.train_cam.loader
    depth = "shuffled" if loader.shuffle_depth else "noise" if loader.depth_noise is not None else "as recorded"
    rows = []
    for (stage, losses, part, threshold), entries in found.items():
        rows.append(
            {
                "data": f"{recipe.name}/{part}",
                "network": recipe.train_cam.network if stage != "student" else recipe.train_student.student,
                "losses": losses,
                "stage": stage,
                "threshold": threshold,
                "threshold_value": _mean(entries, "threshold"),
                "depth": depth,
                "seeds": list(recipe.seeds),
                "miou": _mean(entries, "miou"),
                "miou_sd": _spread(entries, "miou"),
                "contour_f": _mean(entries, "contour_f"),
                "map": _mean(entries, "map"),
                "commit": origin["commit"],
                "machine": origin["machine"],
            }
        )
    return rows


def write_report(
    path: Path,
    recipe: Recipe,
    rows: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    origin: dict[str, Any],
) -> None:
    """Write ``path`` (Markdown) and report.json beside it."""
    content = {"recipe": to_mapping(recipe), "origin": origin, "rows": list(rows)}
    content["evaluations"] = {str(result["seed"]): result["evaluation"] for result in results}
    write_json(path.with_suffix(".json"), content)
    lines = [f"# {recipe.name}, losses: {recipe.train_cam.losses.terms}", ""]
    versions = ", ".join(f"{key} {value}" for key, value in origin.items() if key not in ("machine", "commit"))
    seeds = ", ".join(map(str, recipe.seeds))
    lines += [f"Commit {origin['commit']}, {origin['machine']}, {versions}. Seeds: {seeds}.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        threshold = (
            row["threshold"] if row["threshold_value"] is None else f"{row['threshold']} {row['threshold_value']:.2f}"
        )
        miou = _percent(row["miou"]) + (f" ± {100 * row['miou_sd']:.1f}" if row["miou_sd"] is not None else "")
        cells = [row["stage"], row["losses"], row["data"].partition("/")[2], threshold, miou]
        lines.append("| " + " | ".join([*cells, _percent(row["contour_f"]), _percent(row["map"])]) + " |")
    lines += [
        "",
        "All figures in percent. *Swept* thresholds were chosen on true masks, for comparison with papers, and were"
        " used for nothing. mAP of CAM rows is the classifier's; of students, how well their masks recover image"
        " labels.",
        "",
    ]
    for result in results:
        folder = Path(result["folder"]).name
        lines += [f"## Seed {result['seed']}", ""]
        if corrected := result["evaluation"].get("corrected"):
            names = ", ".join(corrected["taught"])
            lines += [f"A teacher corrected the label maps of {corrected['changed']} images; it knew {names}.", ""]
        if checked := result["evaluation"].get("checked"):
            names = ", ".join(checked["taught"])
            lines += [f"A second one checked those of {checked['changed']} images with one class; it knew {names}.", ""]
        for name, file in (
            ("training samples", "evaluation/overlays.png"),
            ("the student", "evaluation/student.png"),
            ("thresholds", "evaluation/thresholds.png"),
            ("CAM training", "cam/curves.png"),
            ("student training", "student/curves.png"),
        ):
            if (path.parent / folder / file).is_file():
                lines += [f"![{name}]({folder}/{file})", ""]
    lines += ["## Settings", "", "```yaml", yaml.safe_dump(to_mapping(recipe), sort_keys=False).rstrip(), "```", ""]
    replace_file(path, "\n".join(lines))


def _values(entries: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [entry[key] for entry in entries if entry.get(key) is not None]


def _mean(entries: Sequence[dict[str, Any]], key: str) -> float | None:
    values = _values(entries, key)
    return float(np.mean(values)) if values else None


def _spread(entries: Sequence[dict[str, Any]], key: str) -> float | None:
    """Return the standard deviation over seeds; ``None`` for a single one."""
    values = _values(entries, key)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
