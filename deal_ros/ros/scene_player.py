# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Renders a scene's orbit once, in a thread, and hands its views out at any rate while it does. Needs no ROS."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from deal_ros.sample import Sample
from deal_ros.scenes import Scene, SceneRenderer, onboarding_scene, tabletop_scene

logger = logging.getLogger(__name__)
_MAX_DISTRACTORS = 2


@dataclass(frozen=True)
class SceneRequest:
    """What to show.

    Args:
        scenario: ``onboarding`` or ``tabletop``.
        objects: class names in id order.
        object: the one in view in the onboarding scenario; empty takes the first.
        resting_pose: 0 as it is used, 1 turned over (onboarding).
        objects_in_view: how many of ``objects`` stand on the table (tabletop).
        clutter: things that no class covers; at most two in the onboarding scenario.
        seed, split: of the scene.
        size: height and width in pixels.
        views: camera positions on the orbit.
        shadows: render shadows.
        noise: add depth noise.

    Raises:
        ValueError: if ``object`` is not among ``objects``.
    """

    scenario: str
    objects: tuple[str, ...]
    object: str = ""
    resting_pose: int = 0
    objects_in_view: int = 4
    clutter: int = 2
    seed: int = 0
    split: Any = "train"
    size: tuple[int, int] = (480, 640)
    views: int = 48
    shadows: bool = False
    noise: bool = True

    def __post_init__(self) -> None:
        """Check what only fails later otherwise."""
        if not self.objects:
            raise ValueError("objects must name at least one class, got none")
        if self.object and self.object not in self.objects:
            raise ValueError(f"object must be one of {', '.join(self.objects)}, got {self.object!r}")

    def scene(self) -> Scene:
        """Compose it; the errors of :mod:`deal_ros.scenes` apply."""
        if self.scenario == "onboarding":
            return onboarding_scene(
                self.object or self.objects[0],
                "down" if self.resting_pose else "up",
                self.seed,
                self.split,
                distractors=min(self.clutter, _MAX_DISTRACTORS),
                classes=self.objects,
            )
        order = np.random.default_rng(self.seed).permutation(len(self.objects))[: self.objects_in_view]
        names = [self.objects[index] for index in order]
        return tabletop_scene(names, self.clutter, self.seed, self.split, classes=self.objects)

    def following(self) -> SceneRequest:
        """Return what ``~/next`` shows: the other resting pose, then the next object; or the next tabletop."""
        if self.scenario == "tabletop":
            return dataclasses.replace(self, seed=self.seed + 1)
        if self.resting_pose == 0:
            return dataclasses.replace(self, resting_pose=1)
        index = self.objects.index(self.object or self.objects[0])
        return dataclasses.replace(self, object=self.objects[(index + 1) % len(self.objects)], resting_pose=0)


class ScenePlayer:
    """Owns the rendering thread (an OpenGL context belongs to one thread).

    Args:
        convert: called in the thread with each rendered sample; what it returns is what :meth:`next_view` hands out.
        on_error: called in the thread when a scene cannot be shown; the player waits for the next request.
    """

    def __init__(self, convert: Callable[[Sample], Any], on_error: Callable[[Exception], None]) -> None:
        self._convert = convert
        self._on_error = on_error
        self._condition = threading.Condition()
        self._wanted: SceneRequest | None = None
        self._shown: SceneRequest | None = None
        self._stopping = False
        self._views: list[Any] = []
        self._scene: Scene | None = None
        self._position, self._step = 0, 1
        self._thread = threading.Thread(target=self._run, name="scene_renderer", daemon=True)
        self._thread.start()

    @property
    def rendered(self) -> int:
        """Return the number of views of the present scene that are ready."""
        return len(self._views)

    def show(self, request: SceneRequest) -> None:
        """Change the scene; nothing is handed out until its first view is ready."""
        with self._condition:
            self._wanted = request
            self._clear()
            self._condition.notify()

    def next_view(self) -> tuple[Scene, Any] | None:
        """Return the next view of a walk to and fro over what is rendered; round and round once the orbit is whole."""
        with self._condition:
            if not self._views or self._scene is None or self._shown is None:
                return None
            count = len(self._views)
            view = self._views[self._position % count]
            if count == self._shown.views:
                self._position = (self._position + self._step) % count
            else:
                if not 0 <= self._position + self._step < count:
                    self._step = -self._step
                self._position = min(max(self._position + self._step, 0), count - 1)
            return self._scene, view

    def stop(self, timeout_s: float = 1.0) -> bool:
        """End the thread and free the OpenGL context; returns whether it ended in time."""
        with self._condition:
            self._stopping = True
            self._clear()
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _clear(self) -> None:
        self._views, self._scene, self._shown = [], None, None
        self._position, self._step = 0, 1

    def _run(self) -> None:
        renderer: SceneRenderer | None = None
        try:
            while True:
                with self._condition:
                    while self._wanted is None and not self._stopping:
                        self._condition.wait()
                    if self._stopping:
                        return
                    request, self._wanted = self._wanted, None
                assert request is not None
                try:
                    renderer = self._renderer_for(request, renderer)
                    self._render(request, renderer)
                except Exception as error:
                    self._on_error(error)
        finally:
            if renderer is not None:
                renderer.close()

    def _renderer_for(self, request: SceneRequest, renderer: SceneRenderer | None) -> SceneRenderer:
        if renderer is not None and (renderer.size, renderer.shadows) == (request.size, request.shadows):
            return renderer
        if renderer is not None:
            renderer.close()
        return SceneRenderer(request.size, request.shadows)

    def _render(self, request: SceneRequest, renderer: SceneRenderer) -> None:
        scene = request.scene()
        renderer.load(scene)
        rng = np.random.default_rng([request.seed, request.resting_pose])
        for index in range(request.views):
            if self._wanted is not None or self._stopping:
                return
            sample = renderer.render(index / request.views)
            if request.noise:
                sample = _with_noise(sample, rng)
            view = self._convert(sample)
            with self._condition:
                if self._wanted is not None or self._stopping:
                    return
                self._scene, self._shown = scene, request
                self._views.append(view)


def _with_noise(sample: Sample, rng: np.random.Generator) -> Sample:
    from deal_ros.filters import add_depth_noise, realsense_like

    return dataclasses.replace(sample, depth_m=add_depth_noise(sample.depth_m, realsense_like(), rng))
