# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From raw records to results.json, the tables of results.md and the plots: a function of the records alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deal_ros.engine.evidence import CLEAN, DEFAULT
from deal_ros.engine.evidence_measure import FIXED, RAW, SWEPT, TRUTH_FREE
from deal_ros.engine.evidence_run import RAW_FOLDER, TEST, VALIDATION, EvidenceRun, read_raw
from deal_ros.engine.evidence_tables import JUDGED, LABELS, SEEDS, STUDENT, Row, changed, tables
from deal_ros.engine.plots import plot_bars, plot_lines
from deal_ros.files import replace_file, write_json

BEGIN, END = "<!-- generated tables: begin -->", "<!-- generated tables: end -->"
AXES = {"strength": "noise strength", "missing": "share of depth missing", "shift": "misregistration, pixels"}
"""Conditions of depth whose names are one of these words and a number are drawn as a curve, ``clean`` being 0."""

logger = logging.getLogger(__name__)
Drawn = TypeVar("Drawn")


def rows_of(records: Iterable[dict[str, Any]]) -> list[Row]:
    """One row per part of the data, network, losses, depth, stage and threshold, as :func:`write_results` writes them.

    ``miou``, ``contour_f``, ``map``, ``map_of_maps`` and ``gate`` are means over ``seeds`` in [0, 1], ``miou_sd`` the
    standard deviation (one degree of freedom; ``null`` for a single seed). ``map`` is the classifier's on the measured
    images, a student's says how well its masks recover image labels; ``map_of_maps`` is that of the averages of the
    class maps, ``gate`` the share of DEAL's weight that the mAP gate left at the end of training.
    """
    found: dict[tuple[str, ...], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for record in records:
        cell = record["cell"]
        losses = cell["losses"] + (f" [{cell['ablation']}]" if cell["ablation"] != DEFAULT else "")

        def add(
            domain: str, stage: str, threshold: str, figures: dict[str, Any], record: Any = record, losses: str = losses
        ) -> None:
            cell = record["cell"]
            key = (f"{domain} {record['split']}", cell["network"], losses, stage, threshold, cell["depth"])
            found.setdefault(key, []).append((record, figures))

        for domain, kinds in record.get("cam", {}).items():
            judged = {"map": kinds["map"], "map_of_maps": kinds.get("map_of_maps"), "gate": record.get("gate")}
            for kind, figures in kinds.items():
                if isinstance(figures, dict):
                    stage = SEEDS if kind == RAW else f"{LABELS} {kind}"
                    for name in (SWEPT, TRUTH_FREE, FIXED):
                        add(domain, stage, name, {**figures[name], **judged})
        for domain, figures in record.get("student", {}).items():
            add(domain, STUDENT, "none", {**figures, "map": figures.get("label_recovery")})
    rows = []
    for (data, network, losses, stage, threshold, depth), entries in found.items():
        values = [figures["miou"] for _, figures in entries]
        rows.append(
            {
                "data": data,
                "network": network,
                "losses": losses,
                "stage": stage,
                "threshold": threshold,
                "depth": depth,
                "seeds": sorted(record["seed"] for record, _ in entries),
                "miou": _mean(values),
                "miou_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                **{n: _mean(figures.get(n) for _, figures in entries) for n in JUDGED},
                "commit": " ".join(sorted({name for record, _ in entries for name in record["trained"]})),
                "machine": " / ".join(sorted({record["machine"] for record, _ in entries})),
            }
        )
    return rows


def publish(run: EvidenceRun, docs: str | Path) -> Path:
    """Copy the raw records of a run into ``docs``/evidence, trials apart, and write the results; returns results.md.

    Trials of settings that validation did not choose go to evidence/trials and into no table. Records that were made
    with other settings than the present ones, or of cells that are no longer asked for, are left out and named.
    """
    docs = Path(docs)
    decided = {cell.name: cell for cell in run.decided(run.choose())}
    cells = {**{cell.name: cell for cell in run.evidence.trials()}, **decided}
    for record_path in sorted((run.out / RAW_FOLDER).glob("*.json")):
        name, _, split = record_path.stem.rpartition("--")
        if name not in cells or run.done(cells[name], split) is None:
            logger.warning("%s: of other settings than the present ones, left out", record_path.name)
            continue
        folder = docs / "evidence" if name in decided else docs / "evidence" / "trials"
        replace_file(folder / record_path.name, record_path.read_bytes())
    return write_results(docs)


def write_results(docs: str | Path) -> Path:
    """Write results.json, the tables between the markers of results.md, and the plots, from ``docs``/evidence.

    Raises:
        ValueError: if there is no record, or results.md lacks its markers.
    """
    docs = Path(docs)
    records = read_raw([docs / "evidence"])
    if not records:
        raise ValueError(f"{docs / 'evidence'}: must hold raw records, got none; run `deal evidence CONFIG` first")
    rows = rows_of(records)
    write_json(docs / "results.json", rows, indent=1)
    plots = draw(rows, docs / "images")
    page = docs / "results.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# Results\n\n{BEGIN}\n{END}\n"
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page}: must have the markers {BEGIN} and {END} once each")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    pictures = [f"![{path.stem.replace('_', ' ')}](images/{path.name})\n" for path in plots]
    replace_file(page, "\n".join([head + BEGIN, "", *tables(rows, records), *pictures, END + tail]))
    return page


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Bars of the main rows by stage, and curves of mIoU against each numeric ablation and axis of depth damage.

    Curves are of the validation split, which has more points: of raw maps at the swept threshold, or of students, where
    an ablation was run with students.
    """
    curves: dict[tuple[str, str], dict[str, list[tuple[float, Row]]]] = {}
    with_students = {changed(row)[1] for row in rows if row["stage"] == STUDENT} - {""}
    for row in rows:
        losses, topic, value = changed(row)
        drawn_of = (STUDENT, "none") if topic in with_students else (SEEDS, SWEPT)
        if (row["stage"], row["threshold"]) != drawn_of or row["data"].endswith(f" {TEST}"):
            continue
        line = f"{row['network']} {row['data']}"
        if isinstance(value, float) and row["depth"] == CLEAN:
            curves.setdefault((topic, topic), {}).setdefault(f"{line} {losses}", []).append((value, row))
        elif not topic:
            match = re.fullmatch(r"(\w+) ([\d.]+)", row["depth"])
            axes = [match[1]] if match else list(AXES) if row["depth"] == CLEAN else []
            for axis in axes:
                if axis in AXES:
                    x = float(match[2]) if match else 0.0
                    curves.setdefault((axis, AXES[axis]), {}).setdefault(f"{line} {losses}", []).append((x, row))
    paths = _draw_stages(rows, folder)
    for (name, label), lines in curves.items():
        drawn = {
            title: [(x, *_point(row)) for x, row in sorted(points, key=lambda p: p[0])]
            for title, points in lines.items()
            if len({x for x, _ in points}) > 1
        }
        if drawn:
            file = "evidence_" + re.sub(r"\W+", "_", name) + ".png"
            subject = "students" if name in with_students else "CAM seeds"
            paths.append(plot_lines(folder / file, f"mIoU of {subject} against {label}", label, drawn))
    return paths


def _draw_stages(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw what becomes of the main rows from stage to stage, one panel per part of the data."""
    stages = ((SEEDS, SWEPT), (f"{LABELS} rgbd", TRUTH_FREE), (STUDENT, "none"))
    names = {
        ("baseline", CLEAN): "baseline",
        ("deal", "shuffled"): "DEAL, depth shuffled",
        ("deal", CLEAN): "DEAL",
        ("true masks", CLEAN): "true masks",
    }
    panels: dict[str, dict[str, list[tuple[str, float, float]]]] = {}
    for row in rows:
        name = names.get((row["losses"], row["depth"]))
        if name and (row["stage"], row["threshold"]) in stages:
            bars = panels.setdefault(f"{row['network']}, {row['data']}", {})
            bars.setdefault(name, []).append((row["stage"], *_point(row)))
    drawn = {
        title: {n: bars[n] for n in names.values() if n in bars} for title, bars in panels.items() if len(bars) > 1
    }
    if not drawn:
        return []
    return [plot_bars(folder / "evidence_stages.png", [stage for stage, _ in stages], _once(drawn))]


def _once(drawn: Mapping[str, Drawn]) -> Mapping[str, Drawn]:
    """Leave out of a picture what it would show on both splits: the test split is enough."""
    return {
        title: points
        for title, points in drawn.items()
        if f" {VALIDATION}" not in title or title.replace(f" {VALIDATION}", f" {TEST}") not in drawn
    }


def _point(row: Row) -> tuple[float, float]:
    """Return mIoU and half its error bar, in percent."""
    return 100 * row["miou"], 100 * (row["miou_sd"] or 0)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
