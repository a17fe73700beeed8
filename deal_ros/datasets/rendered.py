# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rendered data sets: the benchmark that anyone can make, written as sample stores.

::

    manifest.json                what was asked for, with which assets and renderer, and a checksum per scene
    onboarding/{train,val,test}  stores; one object at a time on a table, a sequence per object, pose and seed
    tabletop/{train,val,test}    stores; several objects hiding one another, among clutter that no class covers

Scenes follow from the configuration alone, so two machines make the same scenes, in the same order, under the same ids,
with any number of processes. Pixels may differ in their last bits between OpenGL libraries: see
:func:`deal_ros.datasets.rendered_manifest.compare_manifests`.
"""

from __future__ import annotations

import bisect
import logging
import multiprocessing
import os
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.rendered_manifest import (
    ManifestError,
    SceneRecord,
    append_record,
    check_resumable,
    cut_records,
    read_records,
    summarize,
    write_manifest,
)
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import EncodedSample, encode_sample
from deal_ros.sample import Sample
from deal_ros.scenes import SPLITS, Scene, SceneRenderer, Split, available_objects, onboarding_scene, tabletop_scene

logger = logging.getLogger(__name__)

Scenario = Literal["onboarding", "tabletop"]
SCENARIOS: tuple[Scenario, ...] = ("onboarding", "tabletop")
Counts = tuple[int, int, int]
FRAME_INTERVAL_NS = 100_000_000
_DEPTH_UNIT_M = 0.0001  # 16 bits at a tenth of a millimetre reach 6.5 m; rooms are smaller

OnScene = Callable[[int, int], None]
"""Called with (scenes done, scenes in all)."""


@dataclass(frozen=True)
class RenderConfig:
    """What to render. Counts are for train, val and test.

    Args:
        scenarios: which of ``onboarding`` and ``tabletop``.
        classes: class names in id order; empty takes all available objects (26 with the 0.1.0 wheels).
        seed: of everything random.
        height, width: of the pictures, pixels.
        onboarding_scenes: scenes per object and resting pose.
        onboarding_frames: frames of each, spread over one orbit.
        tabletop_scenes: scenes in all.
        tabletop_frames: frames of each, spread over one orbit.
        tabletop_objects: least and most objects in a scene.
        tabletop_clutter: least and most things that no class covers.
        noise_strength: of ``filters.realsense_like`` on the stored depth; 0 stores the true depth.
        shadows: let the key light cast shadows.
        supersampling: colour is drawn this many times finer and averaged.
        image_format: ``jpg`` or ``png``.

    Raises:
        ValueError: if a field is out of range.
    """

    scenarios: tuple[Scenario, ...] = SCENARIOS
    classes: tuple[str, ...] = ()
    seed: int = 0
    height: int = 240
    width: int = 320
    onboarding_scenes: Counts = (2, 1, 1)
    onboarding_frames: int = 12
    tabletop_scenes: Counts = (80, 25, 25)
    tabletop_frames: int = 8
    tabletop_objects: tuple[int, int] = (3, 6)
    tabletop_clutter: tuple[int, int] = (1, 3)
    noise_strength: float = 0.0
    shadows: bool = True
    supersampling: int = 2
    image_format: Literal["jpg", "png"] = "jpg"

    def __post_init__(self) -> None:
        """Check ranges; names of classes are checked where the assets are looked up."""
        unknown = [name for name in self.scenarios if name not in SCENARIOS]
        if unknown or not self.scenarios or len(set(self.scenarios)) != len(self.scenarios):
            raise ValueError(f"scenarios must be some of {', '.join(SCENARIOS)}, each once, got {self.scenarios}")
        for name in ("onboarding_scenes", "tabletop_scenes"):
            if len(getattr(self, name)) != 3 or min(getattr(self, name)) < 0:
                raise ValueError(f"{name} must be three counts >= 0 for train, val, test, got {getattr(self, name)}")
        for name in ("onboarding_frames", "tabletop_frames"):
            if not 1 <= getattr(self, name) <= 1000:
                raise ValueError(f"{name} must be 1..1000, got {getattr(self, name)}")
        for name, low, high in (("tabletop_objects", 1, 12), ("tabletop_clutter", 0, 8)):
            least, most = getattr(self, name)
            if not low <= least <= most <= high:
                raise ValueError(f"{name} must be two numbers {low} <= least <= most <= {high}, got {least}, {most}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if not 0 <= self.noise_strength < float("inf"):
            raise ValueError(f"noise_strength must be >= 0, got {self.noise_strength}")
        if self.image_format not in ("jpg", "png"):
            raise ValueError(f"image_format must be 'jpg' or 'png', got {self.image_format!r}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the classes in id order."""
        return self.classes or tuple(available_objects())


@dataclass(frozen=True)
class RenderReport:
    """What a run did: frames rendered now, frames found from an earlier run, stores written."""

    rendered: int
    found: int
    stores: dict[str, Path]


def planned_scenes(config: RenderConfig, scenario: Scenario, split: Split) -> Iterator[Scene]:
    """Yield the scenes of one store, in order; composed one by one as they are asked for."""
    count = len(_plan(config, scenario, split))
    return (compose(config, scenario, split, number) for number in range(count))


def compose(config: RenderConfig, scenario: Scenario, split: Split, number: int) -> Scene:
    """Scene ``number`` of a store."""
    names = config.class_names
    what = _plan(config, scenario, split)[number]
    if scenario == "onboarding":
        name, pose, repeat = what
        return onboarding_scene(name, pose, seed=_seed(config.seed, repeat), split=split, classes=names)
    seed = _seed(config.seed, what[2])
    rng = np.random.default_rng([SPLITS.index(split), seed, zlib.crc32(b"tabletop objects")])
    least, most = config.tabletop_objects
    count = min(int(rng.integers(least, most + 1)), len(names))
    chosen = [names[index] for index in rng.permutation(len(names))[:count]]
    clutter = int(rng.integers(config.tabletop_clutter[0], config.tabletop_clutter[1] + 1))
    return tabletop_scene(chosen, clutter, seed=seed, split=split, classes=names)


def render_dataset(
    out: str | Path, config: RenderConfig = RenderConfig(), *, jobs: int = 0, on_scene: OnScene | None = None
) -> RenderReport:
    """Render every store of ``config`` below ``out``; goes on where an interrupted run stopped.

    Args:
        out: the folder; new, or of an earlier run with the same configuration.
        config: what to render.
        jobs: processes; 0 takes one per core. The result does not depend on it.
        on_scene: called in this process after each scene.

    Raises:
        ManifestError: if ``out`` holds something else, or a run with another configuration.
        AssetError, OpenGLError: if objects or an OpenGL library are missing; the message says what to install.
        StoreError: if it cannot be written.
    """
    out = Path(out)
    names = config.class_names
    check_resumable(out, config)
    counts = {
        (scenario, split): len(_plan(config, scenario, split)) for scenario in config.scenarios for split in SPLITS
    }
    total, done, rendered, found = sum(counts.values()), 0, 0, 0
    stores = {f"{scenario}/{split}": out / scenario / split for (scenario, split), count in counts.items() if count}
    pool = None
    jobs = jobs or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1
    with SceneRenderer((16, 16)) as probe:  # fails here, with one clear message, rather than in every process
        opengl = probe.opengl
    write_manifest(out, config, names, opengl, complete=False)
    try:
        if jobs > 1 and total > 1:
            # spawn: a forked child would share this process's OpenGL, threads and locks
            pool = multiprocessing.get_context("spawn").Pool(min(jobs, total), initializer=_prepare_worker)
        for (scenario, split), count in counts.items():
            if not count:
                continue
            folder = out / scenario / split
            options = {"image_format": config.image_format, "depth_unit_m": _DEPTH_UNIT_M}
            with SampleStore.open_or_create(folder, names, **options) as store:
                records = _resume(store, folder, config, scenario, split)
                found += sum(record.frames for record in records)
                done += len(records)
                if records and on_scene:
                    on_scene(done, total)
                work = partial(render_scene, config, scenario, split)
                numbers = range(len(records), count)
                for record, samples in pool.imap(work, numbers) if pool else map(work, numbers):
                    store.append_encoded(samples)
                    append_record(folder, record)
                    rendered += len(samples)
                    done += 1
                    if on_scene:
                        on_scene(done, total)
    finally:
        if pool is not None:
            pool.terminate()
            pool.join()
        _release_renderer()
    write_manifest(out, config, names, opengl, complete=True)
    return RenderReport(rendered, found, stores)


def render_scene(
    config: RenderConfig, scenario: Scenario, split: Split, number: int
) -> tuple[SceneRecord, list[EncodedSample]]:
    """Compose, render and compress one scene; runs in a worker process."""
    scene = compose(config, scenario, split, number)
    renderer = _renderer((config.height, config.width), config.shadows, config.supersampling)
    renderer.load(scene)
    frames = config.onboarding_frames if scenario == "onboarding" else config.tabletop_frames
    samples = []
    for frame in range(frames):
        sample = renderer.render(frame / frames)
        stamp = (number * frames + frame) * FRAME_INTERVAL_NS
        samples.append(replace(_with_noise(sample, config, scene.name, frame), stamp_ns=stamp))
    encoded = [encode_sample(sample, scene.name, config.image_format, _DEPTH_UNIT_M) for sample in samples]
    return summarize(scene, samples), encoded


class JoinedStores:
    """Onboarding and tabletop one after the other: a robot that was shown objects alone and has seen tables since.

    Args:
        stores: by scenario, all with the same classes.
    """

    def __init__(self, stores: dict[str, SampleStore]) -> None:
        self._stores = stores
        self._ends = np.cumsum([len(store) for store in stores.values()]).tolist()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order."""
        return next(iter(self._stores.values())).classes

    def __len__(self) -> int:
        """Return the number of samples of all stores."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample."""
        _, store, position = self._find(index)
        return store[position]

    def labels(self, index: int) -> frozenset[str] | None:
        """Return the image labels alone."""
        _, store, position = self._find(index)
        return store.labels(position)

    def sample_id(self, index: int) -> str:
        """Return the scenario and the id within its store."""
        scenario, store, position = self._find(index)
        return f"{scenario}-{store.sample_id(position)}"

    def sequence(self, index: int) -> str:
        """Return the scene's name, which tells the scenario."""
        _, store, position = self._find(index)
        return store.sequence(position)

    def _find(self, index: int) -> tuple[str, SampleStore, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        scenario, store = list(self._stores.items())[number]
        return scenario, store, index - (self._ends[number - 1] if number else 0)


def open_rendered(
    path: str | Path, scenario: Scenario | Literal["all"] = "onboarding", split: Split = "train"
) -> SampleStore | JoinedStores:
    """Open one store of a rendered data set, or, with scenario ``all``, those of all scenarios as one data set.

    Raises:
        DatasetError: if there is no such store.
    """
    if scenario == "all":
        there = [name for name in SCENARIOS if SampleStore.is_store(Path(path) / name / split)]
        return JoinedStores({name: SampleStore.open(Path(path) / name / split) for name in there or SCENARIOS})
    folder = Path(path) / scenario / split
    if not SampleStore.is_store(folder):
        made = sorted(str(p.parent.relative_to(path)) for p in Path(path).glob("*/*/store.json"))
        raise DatasetError(f"{folder}: no such store; there is {', '.join(made) or 'none'}; make it with `deal render`")
    return SampleStore.open(folder)


def _plan(config: RenderConfig, scenario: Scenario, split: Split) -> list[tuple[str, Literal["up", "down"], int]]:
    position = SPLITS.index(split)
    if scenario == "tabletop":
        return [("", "up", repeat) for repeat in range(config.tabletop_scenes[position])]
    poses: tuple[Literal["up", "down"], ...] = ("up", "down")
    repeats = range(config.onboarding_scenes[position])
    return [(name, pose, repeat) for repeat in repeats for name in config.class_names for pose in poses]


def _seed(seed: int, repeat: int) -> int:
    return 100_000 * seed + repeat


def _resume(
    store: SampleStore, folder: Path, config: RenderConfig, scenario: Scenario, split: Split
) -> list[SceneRecord]:
    """Return the records of the scenes that are wholly there; take back what an interruption left half done."""
    if store.classes != config.class_names:
        raise ManifestError(f"{folder}: holds other classes; choose an empty folder")
    records, frames = [], 0
    for record in read_records(folder):
        if frames + record.frames > len(store):
            break
        records.append(record)
        frames += record.frames
    if len(store) > frames:
        logger.info("%s: taking back %d samples of an interrupted scene", folder, len(store) - frames)
        store.undo(len(store) - frames)
    cut_records(folder, len(records))
    return records


_shared: dict[tuple[tuple[int, int], bool, int], SceneRenderer] = {}


def _renderer(size: tuple[int, int], shadows: bool, supersampling: int) -> SceneRenderer:
    """One renderer per process and setting: making an OpenGL context takes longer than a picture."""
    key = (size, shadows, supersampling)
    if key not in _shared:
        _release_renderer()
        _shared[key] = SceneRenderer(size, shadows=shadows, supersampling=supersampling)
    return _shared[key]


def _prepare_worker() -> None:
    """One core's worth, without Mesa's and OpenCV's own threads; Ctrl-C is for the parent to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("LP_NUM_THREADS", "1")
    cv2.setNumThreads(1)


def _release_renderer() -> None:
    for renderer in _shared.values():
        renderer.close()
    _shared.clear()


def _with_noise(sample: Sample, config: RenderConfig, scene: str, frame: int) -> Sample:
    if not config.noise_strength:
        return sample
    from deal_ros.filters.noise import add_depth_noise, realsense_like  # imports torch, which clean depth spares

    rng = np.random.default_rng([config.seed, zlib.crc32(scene.encode()), frame])
    noisy = add_depth_noise(sample.depth_m, realsense_like(config.noise_strength), rng)
    return replace(sample, depth_m=noisy)


def expected_frames(config: RenderConfig, scenarios: Sequence[Scenario] = SCENARIOS) -> int:
    """Frames of all stores of ``config`` together."""
    frames = {"onboarding": config.onboarding_frames, "tabletop": config.tabletop_frames}
    return sum(
        len(_plan(config, scenario, split)) * frames[scenario]
        for scenario in scenarios
        if scenario in config.scenarios
        for split in SPLITS
    )
