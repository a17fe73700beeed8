# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From raw records to results.json, the tables of results.md and the plots: a function of the records alone."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deal_ros.engine.checkpoint import write_text
from deal_ros.engine.evidence import CLEAN, DEFAULT
from deal_ros.engine.evidence_measure import FIXED, RAW, SWEPT, TRUTH_FREE
from deal_ros.engine.evidence_run import RAW_FOLDER, TEST, VALIDATION, EvidenceRun, read_raw
from deal_ros.engine.plots import plot_bars, plot_lines

BEGIN, END = "<!-- generated tables: begin -->", "<!-- generated tables: end -->"
SEEDS, LABELS, STUDENT = "cam seeds", "pseudo-labels", "student"
AXES = {"strength": "noise strength", "missing": "share of depth missing", "shift": "misregistration, pixels"}
"""Conditions of depth whose names are one of these words and a number are drawn as a curve, ``clean`` being 0."""

QUESTIONS = (
    ("DEAL − baseline, CAM seeds, swept", ("deal", CLEAN, SEEDS, SWEPT), ("baseline", CLEAN, SEEDS, SWEPT)),
    (
        "… of it earned by aligned depth (− shuffled control)",
        ("deal", CLEAN, SEEDS, SWEPT),
        ("deal", "shuffled", SEEDS, SWEPT),
    ),
    (
        "DEAL with noise as of a RealSense − baseline",
        ("deal", "strength 1", SEEDS, SWEPT),
        ("baseline", CLEAN, SEEDS, SWEPT),
    ),
    ("published form − baseline", ("deal published form", CLEAN, SEEDS, SWEPT), ("baseline", CLEAN, SEEDS, SWEPT)),
    ("ISL + FSL − baseline", ("isl,fsl", CLEAN, SEEDS, SWEPT), ("baseline", CLEAN, SEEDS, SWEPT)),
    ("ISL + FSL + DEAL − ISL + FSL", ("isl,fsl,deal", CLEAN, SEEDS, SWEPT), ("isl,fsl", CLEAN, SEEDS, SWEPT)),
    (
        "DEAL − baseline, both after RGB-D PAMR, swept",
        ("deal", CLEAN, f"{LABELS} rgbd", SWEPT),
        ("baseline", CLEAN, f"{LABELS} rgbd", SWEPT),
    ),
    (
        "RGB-D PAMR alone: refined − raw, baseline, swept",
        ("baseline", CLEAN, f"{LABELS} rgbd", SWEPT),
        ("baseline", CLEAN, SEEDS, SWEPT),
    ),
    ("truth-free − swept threshold, DEAL, raw", ("deal", CLEAN, SEEDS, TRUTH_FREE), ("deal", CLEAN, SEEDS, SWEPT)),
    (
        "truth-free − swept threshold, DEAL, after RGB-D PAMR",
        ("deal", CLEAN, f"{LABELS} rgbd", TRUTH_FREE),
        ("deal", CLEAN, f"{LABELS} rgbd", SWEPT),
    ),
    (
        "student of DEAL − student of the baseline",
        ("deal", CLEAN, STUDENT, "none"),
        ("baseline", CLEAN, STUDENT, "none"),
    ),
)
"""What is asked → (losses, depth, stage, threshold) of the row, and of the one that is taken from it."""

logger = logging.getLogger(__name__)
Row = dict[str, Any]
Drawn = TypeVar("Drawn")


def rows_of(records: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows ``{data, network, losses, stage, threshold, depth, seeds, miou, miou_sd, contour_f, map, commit, machine}``.

    ``miou``, ``contour_f`` and ``map`` are means over ``seeds`` in [0, 1], ``miou_sd`` the standard deviation (one
    degree of freedom; ``null`` for a single seed). ``map`` is the classifier's on the measured images; a student's says
    how well its masks recover image labels.
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
            for kind, figures in kinds.items():
                if isinstance(figures, dict):
                    stage = SEEDS if kind == RAW else f"{LABELS} {kind}"
                    for name in (SWEPT, TRUTH_FREE, FIXED):
                        add(domain, stage, name, {**figures[name], "map": kinds["map"]})
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
                "contour_f": _mean(figures.get("contour_f") for _, figures in entries),
                "map": _mean(figures.get("map") for _, figures in entries),
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
        write_text(folder / record_path.name, record_path.read_text(encoding="utf-8"))
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
    write_text(docs / "results.json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    plots = draw(rows, docs / "images")
    page = docs / "results.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# Results\n\n{BEGIN}\n{END}\n"
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page}: must have the markers {BEGIN} and {END} once each")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    pictures = [f"![{path.stem.replace('_', ' ')}](images/{path.name})\n" for path in plots]
    write_text(page, "\n".join([head + BEGIN, "", *tables(rows, records), *pictures, END + tail]))
    return page


def tables(rows: Sequence[Row], records: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: for each split and network the questions first, then a table per part of the data."""
    machines = sorted({record["machine"] for record in records})
    hours = sum(sum(record["wall"].values()) for record in records) / 3600
    lines = [f"{len(records)} records, {hours:.1f} hours of computing, on {'; '.join(machines)}.", ""]
    for split in (TEST, VALIDATION):
        chosen = [row for row in rows if row["data"].endswith(f" {split}")]
        if not chosen:
            continue
        lines += [f"## {'Test split' if split == TEST else 'Validation split, on which everything was chosen'}", ""]
        for network in dict.fromkeys(row["network"] for row in chosen):
            mine = [row for row in chosen if row["network"] == network]
            lines += [f"### {network}", "", *_answers(mine)]
            for data in dict.fromkeys(row["data"] for row in mine):
                lines += _table([row for row in mine if row["data"] == data], data)
    return lines


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Bars of the main rows by stage, and curves of mIoU against each numeric ablation and axis of depth damage.

    Curves are of the validation split, which has more points: of raw maps at the swept threshold, or of students, where
    an ablation was run with students.
    """
    curves: dict[tuple[str, str], dict[str, list[tuple[float, Row]]]] = {}
    with_students = {_topic(row) for row in rows if row["stage"] == STUDENT} - {None}
    for row in rows:
        topic = _topic(row)
        drawn_of = (STUDENT, "none") if topic in with_students else (SEEDS, SWEPT)
        if (row["stage"], row["threshold"]) != drawn_of or row["data"].endswith(f" {TEST}"):
            continue
        line = f"{row['network']} {row['data']}"
        if (match := re.fullmatch(r"(.+) \[.+ = ([\d.eE+-]+)\]", row["losses"])) and topic and row["depth"] == CLEAN:
            curves.setdefault((topic, topic), {}).setdefault(f"{line} {match[1]}", []).append((float(match[2]), row))
        elif "[" not in row["losses"]:
            match = re.fullmatch(r"(\w+) ([\d.]+)", row["depth"])
            axes = [match[1]] if match else list(AXES) if row["depth"] == CLEAN else []
            for axis in axes:
                if axis in AXES:
                    x = float(match[2]) if match else 0.0
                    curves.setdefault((axis, AXES[axis]), {}).setdefault(f"{line} {row['losses']}", []).append((x, row))
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


def _topic(row: Row) -> str | None:
    """Return what an ablation varies."""
    match = re.search(r" \[(.+) = ", row["losses"])
    return match[1] if match else None


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


def _answers(rows: Sequence[Row]) -> list[str]:
    """Say what the differences between rows are, where both are there; one column per part of the data."""
    at = {(r["data"], r["losses"], r["depth"], r["stage"], r["threshold"]): r for r in rows}
    parts = list(dict.fromkeys(row["data"] for row in rows))

    def figures(one: tuple[str, ...], key: str = "miou") -> list[float | None]:
        return [at[(part, *one)][key] if (part, *one) in at else None for part in parts]

    found: dict[str, list[str]] = {}
    for question, one, other in QUESTIONS:
        found[question] = _each(figures(one), figures(other), lambda a, b: f"{100 * (a - b):+.1f}")
    deal, baseline = ("deal", CLEAN, SEEDS, SWEPT), ("baseline", CLEAN, SEEDS, SWEPT)

    def gain(depth: str) -> list[float | None]:
        pairs = zip(figures(("deal", depth, SEEDS, SWEPT)), figures(baseline))
        return [None if a is None or b is None else a - b for a, b in pairs]

    found["DEAL's gain with noise as of a RealSense, share of that with clean depth"] = _each(
        gain("strength 1"), gain(CLEAN), lambda a, b: f"{100 * a / b:.0f} %" if b > 0 else "–"
    )
    found["DEAL − baseline, mAP of the classifier"] = _each(
        figures(deal, "map"), figures(baseline, "map"), lambda a, b: f"{100 * (a - b):+.1f}"
    )
    found["student of DEAL, share of the one on true masks"] = _each(
        figures(("deal", CLEAN, STUDENT, "none")),
        figures(("true masks", CLEAN, STUDENT, "none")),
        lambda a, b: f"{100 * a / b:.0f} %",
    )
    answered = {question: cells for question, cells in found.items() if any(cell != "–" for cell in cells)}
    if not answered:
        return []
    lines = ["| mIoU points | " + " | ".join(parts) + " |", "|" + " --- |" * (len(parts) + 1)]
    return [*lines, *(f"| {question} | " + " | ".join(cells) + " |" for question, cells in answered.items()), ""]


def _each(
    firsts: Sequence[float | None], seconds: Sequence[float | None], say: Callable[[float, float], str]
) -> list[str]:
    return ["–" if a is None or b is None else say(a, b) for a, b in zip(firsts, seconds)]


def _table(rows: Sequence[Row], data: str) -> list[str]:
    """One line per losses and depth of one part of the data, one column per stage."""
    stages = [stage for stage in dict.fromkeys(row["stage"] for row in rows) if stage != STUDENT]
    header = ["losses", "depth", *stages, STUDENT, "contour F", "mAP", "seeds"]
    found: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        found.setdefault((row["losses"], row["depth"]), {})[row["stage"], row["threshold"]] = row
    lines = [
        f"**{data}**: mIoU in percent, mean ± standard deviation over seeds, at the swept / truth-free threshold.",
        "",
    ]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for (losses, depth), kinds in found.items():
        best, student = kinds.get((SEEDS, SWEPT)), kinds.get((STUDENT, "none"))
        cells = [losses, depth]
        for stage in stages:
            swept, free = kinds.get((stage, SWEPT)), kinds.get((stage, TRUTH_FREE))
            cells.append(f"{_miou(swept)} / {_percent(free['miou'])}" if swept and free else "–")
        cells += [
            _miou(student),
            _percent(best["contour_f"] if best else None),
            _percent(best["map"] if best else None),
        ]
        lines.append("| " + " | ".join([*cells, str(len((best or student or {"seeds": ()})["seeds"]))]) + " |")
    return [*lines, ""]


def _miou(row: Row | None) -> str:
    spread = f" ± {100 * row['miou_sd']:.1f}" if row and row["miou_sd"] is not None else ""
    return _percent(row["miou"] if row else None) + spread


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
