# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the two training stages share: optimiser, checkpoints, resuming, and the choice of the best weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from torch import Tensor, nn

from deal_ros.engine.checkpoint import (
    load_checkpoint,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    seed_step,
)
from deal_ros.engine.distributed import Ranks
from deal_ros.engine.loader import Batch, BatchPlan, FrameSource, batches
from deal_ros.engine.optimization import OptimizationConfig, Stepper, build_optimizer, training_mode
from deal_ros.engine.progress import Cancelled, Progress, ProgressCallback, StopRequested
from deal_ros.engine.run_folder import BEST, LAST, RunFolder

logger = logging.getLogger(__name__)


class Trainable(Protocol):
    """A CAM network or a student, as far as this file is concerned."""

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups."""
        ...


class Session:
    """One training run between its first and its last step.

    Args:
        stage: its name in reports.
        folder: where it keeps its files.
        network: what is trained.
        settings: how.
        ranks: this process among its peers.
        tolerance: the newest weights whose signal is at most this much below the best one become the result.
        checkpoint_every, log_every: steps between two checkpoints and two lines of metrics.jsonl.
        extra: further JSON-ready state to keep, as an object with ``state()`` and ``load_state()``.
        averaged: moving average of the network's weights, kept in the checkpoint and chosen instead of them.
    """

    def __init__(
        self,
        stage: str,
        folder: RunFolder,
        network: nn.Module,
        settings: OptimizationConfig,
        ranks: Ranks,
        *,
        tolerance: float,
        checkpoint_every: int,
        log_every: int,
        extra: Any = None,
        averaged: nn.Module | None = None,
    ) -> None:
        self.stage, self.folder, self.network, self.settings, self.ranks = stage, folder, network, settings, ranks
        self._tolerance, self._checkpoint_every, self._log_every = tolerance, checkpoint_every, log_every
        self._extra, self._averaged = extra, averaged
        groups = cast(Trainable, network).parameter_groups(settings.lr, settings.weight_decay)
        self.optimizer = build_optimizer(groups, settings)
        self.stepper = Stepper(self.optimizer, settings, ranks.device)
        self.start = 0
        self.latest: dict[str, float] = {}
        self.chosen: dict[str, Any] = {"step": 0, "signal": 0.0}
        self._best_signal = -1.0
        self._began = self._ended = time.perf_counter()
        self._restore()

    def steps(self, source: FrameSource) -> Iterator[tuple[int, list[Batch], dict[str, float]]]:
        """Step number, micro-batches and an empty log for each step that is left; generators are seeded before each.

        Data that the loader decodes ahead does not touch the generators: its choices are functions of step and sample.
        """
        settings, ranks = self.settings, self.ranks
        plan = BatchPlan(len(source), settings.batch_size, settings.seed)
        self._ended = time.perf_counter()
        stream = batches(
            source,
            plan,
            start=self.start,
            stop=settings.steps,
            rank=ranks.rank,
            world=ranks.world,
            accumulate=settings.accumulate,
            pin_memory=ranks.device.type == "cuda",
        )
        for step, rounds in enumerate(stream, self.start):
            self._began = time.perf_counter()
            seed_step(settings.seed, step, ranks.rank)
            training_mode(self.network, settings)
            yield step, [part.to(ranks.device) for part in rounds], {}

    def consider(self, step: int, signal: float) -> None:
        """Keep the weights after ``step`` as the result so far if their weak signal is good enough."""
        self._best_signal = max(self._best_signal, signal)
        if signal >= self._best_signal - self._tolerance or self.chosen["step"] == 0:
            self.chosen = {"step": step + 1, "signal": signal}
            if self.ranks.first:
                network = self._averaged if self._averaged is not None else self.network
                save_checkpoint(self.folder / BEST, {"network": network.state_dict()}, self.chosen)

    def finish_step(
        self,
        step: int,
        log: Mapping[str, float],
        shown: tuple[str, ...],
        on_progress: ProgressCallback,
        should_stop: StopRequested,
    ) -> None:
        """Log, report, write a checkpoint if it is time, and stop if asked to.

        Args:
            step: the step that is done.
            log: its figures.
            shown: names of those that progress reports carry.
            on_progress: called with a report.
            should_stop: asked once.

        Raises:
            Cancelled: after the checkpoint was written.
        """
        done, total = step + 1, self.settings.steps
        now = time.perf_counter()
        if done % self._log_every == 0 or done == total or step + 1 == self.chosen["step"]:
            times = {"seconds": now - self._began, "wait_seconds": self._began - self._ended}
            self.folder.log({"step": step, **self.ranks.means(log), **times})
        self.latest.update(log)
        on_progress(
            Progress(self.stage, done, total, {name: self.latest[name] for name in shown if name in self.latest})
        )
        stop = self.ranks.any(should_stop())
        if done % self._checkpoint_every == 0 or done == total or stop:
            self._save(done)
        if stop and done < total:
            raise Cancelled(f"{self.stage}: stopped after step {done} of {total}; start again to go on")
        self._ended = time.perf_counter()

    def _save(self, done: int) -> None:
        if not self.ranks.first:
            return
        tensors, scalars = optimizer_tensors(self.optimizer)
        groups: dict[str, Mapping[str, Tensor]] = {"network": self.network.state_dict(), "optimizer": tensors}
        if self._averaged is not None:
            groups["averaged"] = self._averaged.state_dict()
        state = {
            "step": done,
            "best_signal": self._best_signal,
            "chosen": self.chosen,
            "latest": self.latest,
            "optimizer": scalars,
            "stepper": self.stepper.state_dict(),
            "extra": self._extra.state() if self._extra is not None else None,
        }
        save_checkpoint(self.folder / LAST, groups, state)

    def _restore(self) -> None:
        path = self.folder / LAST
        if path.exists():
            saved = load_checkpoint(path)
            load_weights(self.network, saved.tensors["network"], str(path))
            if self._averaged is not None:
                load_weights(self._averaged, saved.tensors["averaged"], str(path))
            restore_optimizer(self.optimizer, saved.tensors.get("optimizer", {}), saved.state["optimizer"])
            self.stepper.load_state_dict(saved.state["stepper"])
            if self._extra is not None:
                self._extra.load_state(saved.state["extra"])
            self.start, self.chosen = saved.state["step"], saved.state["chosen"]
            self._best_signal, self.latest = saved.state["best_signal"], saved.state["latest"]
            logger.info("%s: going on at step %d of %d", self.folder.path, self.start, self.settings.steps)
        self.folder.rewind(self.start)
