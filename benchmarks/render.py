# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rendering: how many labelled RGB-D frames per second does one core make?

    python benchmarks/render.py [--quick] [--json FILE]

Colour with twofold supersampling, metric depth and mask, 240×320. The first rows are the renderer alone; the last is
``deal render`` in one process from nothing to synced stores: composing, compiling, rendering, compressing, writing.
Frames per second of processor time, with Mesa held to one thread: that is per core, whatever else the machine does.
Wall time is among the raw figures.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "1")

from common import Report, main, row

from deal_ros.datasets.rendered import RenderConfig, render_dataset
from deal_ros.scenes import Scene, SceneRenderer, available_objects, onboarding_scene, tabletop_scene

QUESTION = "labelled frames per second and core"
SIZE = (240, 320)
TARGET = 8.0


def run(quick: bool) -> Report:
    """Renderer alone with and without shadows, loading of scenes, and a whole data set."""
    names = list(available_objects())
    scenes = {
        "onboarding": [onboarding_scene(name, "up", seed=i) for i, name in enumerate(names[: 3 if quick else 12])],
        "tabletop": [tabletop_scene(names[i : i + 5], 2, seed=i) for i in range(2 if quick else 6)],
    }
    rows, raw = [], {}
    for shadows in (False, True):
        for scenario, chosen in scenes.items():
            figures = _render(chosen, shadows, frames=4 if quick else 12)
            name = f"{scenario}, {'with' if shadows else 'without'} shadows"
            raw[name] = figures
            rows.append(row(QUESTION, name, figures["frames_per_cpu_s"], "frames/s", at_least=TARGET))
    raw["dataset"] = figures = _dataset(names[: 2 if quick else 8], quick)
    rows.append(row(QUESTION, "deal render, one process", figures["frames_per_cpu_s"], "frames/s", at_least=TARGET))
    return Report(rows, raw)


def _render(scenes: list[Scene], shadows: bool, frames: int) -> dict[str, Any]:
    load_s, wall_s, cpu_s = 0.0, 0.0, 0.0
    with SceneRenderer(SIZE, shadows=shadows) as renderer:
        renderer.load(scenes[0])
        renderer.render(0.0)  # warm-up: shader compilation, first touch of memory
        opengl = renderer.opengl
        for scene in scenes:
            start = time.perf_counter()
            renderer.load(scene)
            load_s += time.perf_counter() - start
            start, cpu = time.perf_counter(), time.process_time()
            for frame in range(frames):
                renderer.render(frame / frames)
            wall_s += time.perf_counter() - start
            cpu_s += time.process_time() - cpu
    count = frames * len(scenes)
    return {
        "frames": count,
        "frames_per_wall_s": count / wall_s,
        "frames_per_cpu_s": count / cpu_s,
        "load_s_per_scene": load_s / len(scenes),
        "opengl": opengl,
    }


def _dataset(classes: list[str], quick: bool) -> dict[str, Any]:
    config = RenderConfig(
        classes=tuple(classes), onboarding_scenes=(1, 0, 0), tabletop_scenes=(2 if quick else 16, 0, 0)
    )
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        report = render_dataset(f"{folder}/out", config, jobs=1)
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return {
        "frames": report.rendered,
        "frames_per_wall_s": report.rendered / wall_s,
        "frames_per_cpu_s": report.rendered / cpu_s,
    }


main(__name__, run)
