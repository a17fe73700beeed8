# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How much of a training step is waiting for data, and what do cached features of a frozen trunk save?

    python benchmarks/training.py [--quick] [--json FILE]

CAM training (EfficientNet-Lite0, output stride 16, DEAL) on a store of 240×320 frames (quick: 120×160), in turn:
batches from the engine's loader (decoded once, augmented anew each time), the same step on one batch that lies in
memory, and the loader with cached views and features of the frozen trunk, as config/recipes/robot.yaml has it. Decoding
itself, which a run pays once per frame where the cache holds them and at every use where it does not, is timed beside.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import Report, main, median_ratio, row, time_calls

from deal_ros.cams import create_cam_network
from deal_ros.datasets.miniature import miniature_sample
from deal_ros.datasets.store import SampleStore
from deal_ros.engine.distributed import alone
from deal_ros.engine.feature_cache import feature_cache
from deal_ros.engine.loader import Batch, BatchPlan, FrameSource, LoaderConfig, batches
from deal_ros.engine.objective import CamLossConfig, CamObjective
from deal_ros.engine.optimization import OptimizationConfig, Stepper, build_optimizer, training_mode

QUESTION = "training throughput"
CLASSES = tuple(f"thing_{number}" for number in range(6))
SIZE = (240, 320)


def run(quick: bool) -> Report:
    """Measure on the GPU if there is one, else on the CPU."""
    ranks = alone()
    batch, repeats, frames, size = (8, 5, 16, (120, 160)) if quick else (16, 15, 64, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", frames, size)
        calls, sources = ways(store, batch, ranks, size)
        series = time_calls(calls, warmup=1 if quick else 2, repeats=repeats)
        decoding = time_calls({"decode": lambda: store[0]}, repeats=20)["decode"]
        store.close()
    device = ranks.device.type
    wait = 100 * (1 - 1 / median_ratio(series["loader"], series["memory"], device))
    speedup = median_ratio(series["loader"], series["cached"], device)
    clock = "cpu_s" if device == "cpu" else "wall_s"
    loaded = batch / series["loader"].median_s
    rows = [
        row(QUESTION, f"images/s, loader, batch {batch} of {size[1]}×{size[0]}", loaded, "1/s"),
        row(QUESTION, "images/s, tensors in memory", batch / series["memory"].median_s, "1/s"),
        row(QUESTION, "data's share of a step", max(0.0, wait), "%", at_most=5),
        row(QUESTION, "images/s, cached features of four frozen stages", batch / series["cached"].median_s, "1/s"),
        row(QUESTION, "cached features make a step faster", speedup, "×"),
        row(QUESTION, "decoding one frame of a store", 1e3 * statistics.median(getattr(decoding, clock)), "ms"),
    ]
    timings = {name: values.summary() for name, values in {**series, "decode": decoding}.items()}
    return Report(rows, {"batch": batch, "size": size, "frames": frames, "timings": timings, "views": sources})


def make_store(path: Path, frames: int, size: tuple[int, int]) -> SampleStore:
    """A store of drawn scenes."""
    store = SampleStore.create(path, CLASSES)
    for number in range(frames):
        kind = 1 + number % len(CLASSES)
        store.append(miniature_sample([kind], CLASSES, seed=number, size=size), sequence=str(number))
    return store


def ways(
    store: SampleStore, batch: int, ranks: Any, size: tuple[int, int]
) -> tuple[dict[str, Callable[[], None]], dict[str, int]]:
    """One optimiser step by each way of getting data."""
    settings = OptimizationConfig(batch_size=batch)
    live = FrameSource(store, LoaderConfig(size=size), seed=0)
    kept = FrameSource(store, LoaderConfig(size=size, cached_views=2), seed=0)
    for position in range(len(live)):  # a run decodes each frame once
        live.frame(position)
    full, full_step = stepper(0, settings, ranks)
    upper, upper_step = stepper(4, settings, ranks)
    cache = feature_cache(kept, upper.network, ranks.device)
    assert cache is not None
    live_batches, kept_batches = endless(live, settings), endless(kept, settings)
    fixed = next(endless(live, settings)).to(ranks.device)
    for _ in range(2 * len(kept) // batch + 2):  # … and its frozen features once per view
        cache(next(kept_batches).to(ranks.device))

    def from_loader() -> None:
        full_step(next(live_batches).to(ranks.device), None)

    def from_cache() -> None:
        views = next(kept_batches).to(ranks.device)
        upper_step(views, cache(views))

    calls = {"loader": from_loader, "memory": lambda: full_step(fixed, None), "cached": from_cache}
    return calls, {"loader": len(live), "cached": len(kept)}


def stepper(
    frozen_stages: int, settings: OptimizationConfig, ranks: Any
) -> tuple[CamObjective, Callable[[Batch, Any], None]]:
    """A network, and what trains it by one step."""
    torch.manual_seed(0)
    network = create_cam_network("timm", len(CLASSES), weights="none", output_stride=16, frozen_stages=frozen_stages)
    objective = CamObjective(network.to(ranks.device), CamLossConfig(terms="deal"), ranks)
    optimizer = build_optimizer(network.parameter_groups(1e-4, 1e-2), settings)
    engine = Stepper(optimizer, settings, ranks.device)

    def step(views: Batch, features: Any) -> None:
        training_mode(network, settings)
        with engine.autocast():
            loss, _, _ = objective(0, True, views.rgb, views.depth_m, views.labels, features)
        engine.backward(loss)
        engine.step(0)

    return objective, step


def endless(source: FrameSource, settings: OptimizationConfig) -> Iterator[Batch]:
    """Batches as the engine draws them."""
    plan = BatchPlan(len(source), settings.batch_size, 0)
    for rounds in batches(source, plan, start=0, stop=10**9):
        yield rounds[0]


main(__name__, run)
