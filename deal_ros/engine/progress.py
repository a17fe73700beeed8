# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How a long stage reports and how it is asked to stop. The CLI draws bars from it, the trainer node a status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Progress:
    """One report of a running stage.

    Args:
        stage: ``train-cam``, ``pseudo-label``, ``correct-labels``, ``train-student`` or ``evaluate``; what is special
            about it may follow in parentheses: ``train-student (teacher)``.
        done: units finished (optimiser steps or samples).
        total: units in all.
        metrics: newest figures by name, for example ``{"loss": 0.31, "map": 0.72}``.
    """

    stage: str
    done: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


ProgressCallback = Callable[[Progress], None]
StopRequested = Callable[[], bool]


class Cancelled(RuntimeError):
    """The stage was asked to stop; its newest checkpoint is on disk and a second start resumes there."""


def renamed(on_progress: ProgressCallback, suffix: str) -> ProgressCallback:
    """Report under the stage's name with ``suffix`` behind it."""
    return lambda progress: on_progress(replace(progress, stage=progress.stage + suffix))


def ignore_progress(progress: Progress) -> None:
    """Report to nobody."""


def never_stop() -> bool:
    """Run to the end."""
    return False
