# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Curves of a run as PNG, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CURVES = (
    ("loss", ("loss", "classification", "deal", "isl", "fsl", "distillation")),
    ("weight of DEAL", ("lambda", "gradient_ratio", "gate")),
    ("weak signals", ("map", "agreement", "label_recovery")),
    ("maps and edges", ("depth_edge_fraction", "cam_edge_fraction", "cam_activation", "valid_fraction")),
    ("learning rate", ("lr",)),
)


def plot_metrics(folder: Path, records: Sequence[Mapping[str, Any]]) -> Path | None:
    """Draw what metrics.jsonl holds to ``folder``/curves.png; returns its path, ``None`` if there is nothing."""
    panels = []
    for title, names in CURVES:
        lines = {}
        for name in names:
            points = [(r["step"], r[name]) for r in records if isinstance(r.get(name), (int, float))]
            if points:
                lines[name] = points
        if lines:
            panels.append((title, lines))
    if not panels:
        return None
    figure = _figure(len(panels))
    for number, (title, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        for name, points in lines.items():
            axes.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
        _label(axes, title, "step")
    return _save(figure, folder / "curves.png")


def plot_thresholds(
    path: Path, thresholds: Sequence[float], miou: Sequence[float], marks: Mapping[str, float] | None = None
) -> Path:
    """Draw mIoU (0..1) against the background threshold, with named thresholds as vertical lines."""
    figure = _figure(1)
    axes = figure.add_subplot(1, 1, 1)
    axes.plot(thresholds, miou, label="mIoU")
    for number, (name, value) in enumerate((marks or {}).items(), 1):
        axes.axvline(value, linestyle="--", color=f"C{number}", label=f"{name} {value:.2f}")
    _label(axes, "seeds against true masks", "background threshold")
    return _save(figure, path)


def plot_lines(path: Path, title: str, x_label: str, lines: Mapping[str, Sequence[tuple[float, float, float]]]) -> Path:
    """Draw named lines of (x, y, half height of its error bar)."""
    figure = _figure(2)
    axes = figure.add_subplot(1, 1, 1)
    for name, points in lines.items():
        xs, ys, bars = zip(*points)
        axes.errorbar(xs, ys, yerr=bars, label=name, marker=".", capsize=2)
    _label(axes, title, x_label)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))  # beside the lines, which may lie anywhere
    return _save(figure, path)


def plot_bars(
    path: Path, groups: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[tuple[str, float, float]]]]
) -> Path:
    """Draw panels of grouped bars: for each name, (group, y, half height of its error bar); groups may be missing.

    Panels have one scale, one colour per name and one legend, so that they can be compared.
    """
    from matplotlib.patches import Patch

    columns = len(panels) if len(panels) < 4 else -(-len(panels) // 2)
    rows = -(-len(panels) // columns)
    figure = _figure(columns, rows)
    names = list(dict.fromkeys(name for bars in panels.values() for name in bars))
    for number, (title, bars) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, number)
        width = 0.8 / len(bars)
        drawn = [group for group in groups if any(group == point[0] for points in bars.values() for point in points)]
        for place, (name, points) in enumerate(bars.items()):
            xs = [drawn.index(group) + (place - (len(bars) - 1) / 2) * width for group, _, _ in points]
            heights, errors = [y for _, y, _ in points], [bar for _, _, bar in points]
            axes.bar(xs, heights, width, yerr=errors, color=f"C{names.index(name)}", capsize=2)
        axes.set_xticks(range(len(drawn)), drawn, fontsize=8)
        axes.set_ylim(0, 100)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.set_ylabel("mIoU, percent")
    handles = [Patch(color=f"C{number}", label=name) for number, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(names), fontsize=8)
    return _save(figure, path)


def _figure(columns: int, rows: int = 1) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _label(axes: Any, title: str, x: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    return path
