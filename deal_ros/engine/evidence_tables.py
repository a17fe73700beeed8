# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The tables of results.md, from the rows of results.json: answers first, then what they rest on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from deal_ros.engine.evidence import CLEAN
from deal_ros.engine.evidence_measure import SWEPT, TRUTH_FREE
from deal_ros.engine.evidence_run import TEST, VALIDATION

SEEDS, LABELS, STUDENT = "cam seeds", "pseudo-labels", "student"
"""Stages; that of pseudo-labels goes on with the name of the refinement."""
JUDGED = {"contour_f": "contour F", "map": "mAP", "map_of_maps": "mAP of maps", "gate": "λ left"}
"""Means over seeds that stand beside mIoU, and their columns."""
Row = dict[str, Any]

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


def changed(row: Row) -> tuple[str, str, str | float]:
    """Take apart the losses of a row: their name, the setting that an ablation varies and its value, empty if none."""
    match = re.fullmatch(r"(.+) \[(.+) = (.+)\]", row["losses"])
    if match is None:
        return row["losses"], "", ""
    try:
        return match[1], match[2], float(match[3])
    except ValueError:
        return match[1], match[2], match[3]


def tables(rows: Sequence[Row], records: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: for each split and network the questions, a table per part of the data, then the ablations."""
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
            plain, ablations = [r for r in mine if not changed(r)[1]], [r for r in mine if changed(r)[1]]
            lines += [f"### {network}", "", *_answers(plain)]
            for data in dict.fromkeys(row["data"] for row in plain):
                lines += _table([row for row in plain if row["data"] == data], data)
            lines += _settings(ablations)
    return lines


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
    for losses, says in (("baseline", "baseline"), ("baseline as deal", "the same network without it")):
        for key, whose in (("map", "the classifier"), ("map_of_maps", "the maps' averages")):
            found[f"DEAL − {says}, mAP of {whose}"] = _each(
                figures(deal, key), figures((losses, CLEAN, SEEDS, SWEPT), key), lambda a, b: f"{100 * (a - b):+.1f}"
            )
    found["student of DEAL, share of the one on true masks"] = _each(
        figures(("deal", CLEAN, STUDENT, "none")),
        figures(("true masks", CLEAN, STUDENT, "none")),
        lambda a, b: f"{100 * a / b:.0f} %",
    )
    answered = {question: cells for question, cells in found.items() if any(cell != "–" for cell in cells)}
    if not answered:
        return []
    return _markdown(["mIoU points", *parts], ([question, *cells] for question, cells in answered.items()))


def _each(
    firsts: Sequence[float | None], seconds: Sequence[float | None], say: Callable[[float, float], str]
) -> list[str]:
    return ["–" if a is None or b is None else say(a, b) for a, b in zip(firsts, seconds)]


def _table(rows: Sequence[Row], data: str) -> list[str]:
    """One line per losses and depth of one part of the data, one column per stage."""
    stages = [stage for stage in dict.fromkeys(row["stage"] for row in rows) if stage != STUDENT]
    header = ["losses", "depth", *stages, STUDENT, *JUDGED.values(), "seeds"]
    found: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        found.setdefault((row["losses"], row["depth"]), {})[row["stage"], row["threshold"]] = row
    title = f"**{data}**: mIoU in percent, mean ± standard deviation over seeds, at the swept / truth-free threshold."
    lines = []
    for (losses, depth), kinds in found.items():
        best, student = kinds.get((SEEDS, SWEPT)), kinds.get((STUDENT, "none"))
        cells = [losses, depth]
        for stage in stages:
            swept, free = kinds.get((stage, SWEPT)), kinds.get((stage, TRUTH_FREE))
            cells.append(f"{_miou(swept)} / {_percent(free['miou'])}" if swept and free else "–")
        cells += [
            _miou(student),
            *(_percent(best[key] if best else None) for key in JUDGED),
        ]
        lines.append([*cells, str(len((best or student or {"seeds": ()})["seeds"]))])
    return [title, "", *_markdown(header, lines)]


def _settings(rows: Sequence[Row]) -> list[str]:
    """One line per value of a setting, the parts of the data side by side."""
    if not rows:
        return []
    parts = list(dict.fromkeys(row["data"] for row in rows))
    found: dict[tuple[Any, ...], dict[tuple[str, str, str], Row]] = {}
    for row in rows:
        losses, topic, value = changed(row)
        order = (0.0, value) if isinstance(value, str) else (value, "")
        at = found.setdefault((topic, losses, row["depth"], order), {})
        at[row["data"], row["stage"], row["threshold"]] = row
    header = ["setting", "value", "losses", "depth", SEEDS, f"{LABELS} rgbd", STUDENT, *JUDGED.values(), "seeds"]
    title, lines = f"**One setting at a time**, {' / '.join(parts)}: mIoU in percent at the swept threshold.", []
    for (topic, losses, depth, (number, name)), at in sorted(found.items()):
        best = [at.get((part, SEEDS, SWEPT)) for part in parts]
        columns = [
            [_miou(row) for row in best],
            [_miou(at.get((part, f"{LABELS} rgbd", SWEPT))) for part in parts],
            [_miou(at.get((part, STUDENT, "none"))) for part in parts],
            *([_percent(row[key] if row else None) for row in best] for key in JUDGED),
        ]
        seeds = max(len(row["seeds"]) for row in at.values())
        lines.append([topic, name or f"{number:g}", losses, depth, *map(_both, columns), str(seeds)])
    return [title, "", *_markdown(header, lines)]


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [*(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)), ""]


def _both(cells: Sequence[str]) -> str:
    """Join the figures of all parts; one that is the same for all, as none or the gate, is said once."""
    return " / ".join(cells) if len(set(cells)) > 1 else cells[0]


def _miou(row: Row | None) -> str:
    spread = f" ± {100 * row['miou_sd']:.1f}" if row and row["miou_sd"] is not None else ""
    return _percent(row["miou"] if row else None) + spread


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
