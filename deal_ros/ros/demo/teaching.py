# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Walks a simulated robot through what it is to learn: one object after the other, then tables full of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deal_ros.ros.demo.operator import Operator


@dataclass(frozen=True)
class Lesson:
    """One scene and what the operator says of it.

    Args:
        scenario: ``onboarding`` or ``tabletop``.
        seed: of the scene.
        views: camera positions, each of which should become one sample.
        object: what is shown (onboarding).
        resting_pose: 0 as it is used, 1 turned over (onboarding).
    """

    scenario: str
    seed: int
    views: int
    object: str = ""
    resting_pose: int = 0

    @property
    def title(self) -> str:
        """Return a few words for people."""
        if self.scenario == "tabletop":
            return f"table {self.seed}"
        return f"{self.object}{', turned over' if self.resting_pose else ''}"


def curriculum(objects: tuple[str, ...], views: int, tables: int, table_views: int) -> list[Lesson]:
    """Each object in two resting poses, then ``tables`` tables with several of them."""
    lessons = [
        Lesson("onboarding", 10 * index + pose, views, name, pose)
        for index, name in enumerate(objects)
        for pose in (0, 1)
    ]
    return lessons + [Lesson("tabletop", 1000 + number, table_views) for number in range(tables)]


def show_scene(
    operator: Operator, lesson: Lesson, split: str, check: Callable[[], None], timeout_s: float = 60.0
) -> str:
    """Let the simulator change its scene; returns what is in view once the camera shows it."""
    operator.forget("ground_truth/labels")
    operator.set_parameters(
        "camera_simulator",
        scenario=lesson.scenario,
        object=lesson.object,
        resting_pose=lesson.resting_pose,
        seed=lesson.seed,
        split=split,
        views=lesson.views,
    )
    operator.wait_for(
        f"the camera showing {lesson.title}", lambda: bool(operator.text("ground_truth/labels")), timeout_s, check
    )
    return operator.text("ground_truth/labels")


def teach(operator: Operator, lesson: Lesson, check: Callable[[], None], timeout_s: float = 60.0) -> int:
    """One lesson: show the scene, say what is in view, wait until it is gathered, fall silent.

    Returns:
        The number of samples that the store has afterwards.
    """
    before = operator.status("collection/status").get("total", 0)
    in_view = show_scene(operator, lesson, "train", check)
    operator.say(tuple(name.strip() for name in in_view.split(",")))
    operator.wait_for(
        f"gathering {lesson.views} samples of {lesson.title}",
        lambda: operator.status("collection/status").get("total", 0) >= before + lesson.views,
        timeout_s,
        check,
    )
    operator.say(())
    operator.wait_for(
        "the collector falling silent",
        lambda: operator.status("collection/status").get("state") == "no_labels",
        timeout_s,
        check,
    )
    return int(operator.status("collection/status")["total"])
