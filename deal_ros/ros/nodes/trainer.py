# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Turns a sample store into a model in a separate, niced process: ``python -m deal_ros.ros.nodes.trainer``.

``~/start`` and ``~/cancel``; ``training/status`` says what goes on; a finished bundle is announced on ``model``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String
from std_srvs.srv import Trigger

from deal_ros.datasets.store import SampleStore
from deal_ros.installed import recipe_file
from deal_ros.ros.diagnostics import ERROR, WARN, Status
from deal_ros.ros.lifecycle import ACTIVE, PorchNode
from deal_ros.ros.qos import LATCHED, create_publisher
from deal_ros.ros.run import end_process, run_node
from deal_ros.ros.tables import TRAINER
from deal_ros.ros.training import DONE, FAILED, Training, TrainingError, check_options
from deal_ros.ros.yielding import RateKeeper

_STATUS_PERIOD_S = 0.2
"""Reports that come faster are published together."""


class Trainer(PorchNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("trainer", TRAINER)
        self._changed = threading.Event()
        self._training = Training(on_change=self._changed.set)
        self._keeper = RateKeeper()
        self._subscription: Any = None
        self._published_at = 0.0
        self.create_service(Trigger, "~/start", self.trigger(self._start))
        self.create_service(Trigger, "~/cancel", self.trigger(self._cancel))
        self.every(_STATUS_PERIOD_S, self._look)

    def configure(self) -> None:
        """Make the folder for models and announce the state."""
        folder = self._folder("models_folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"models_folder {folder} cannot be made: {error}; set another") from error
        self._status = create_publisher(self, String, "training/status", LATCHED)
        self._model = create_publisher(self, String, "model", LATCHED)
        self._changed.set()

    def activate(self) -> None:
        """Watch the inference rate."""
        callback = self.guard(self._on_diagnostics)
        self._subscription = self.create_subscription(DiagnosticArray, "/diagnostics", callback, 10)

    def deactivate(self) -> None:
        """End a running training; its checkpoint stays."""
        self._training.close()
        self._publish_status()
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None

    def cleanup(self) -> None:
        """Withdraw the topics."""
        for name in ("_status", "_model"):
            if hasattr(self, name):
                self.destroy_publisher(getattr(self, name))
                delattr(self, name)

    def parameters_changed(self, values: dict[str, Any]) -> None:
        """Refuse arguments that could lead the training elsewhere."""
        check_options(values.get("options", ()))

    def diagnose(self, status: Status) -> None:
        """Report the training's state."""
        training = self._training.status()
        if training.state == FAILED:
            status.report(ERROR, training.message)
        if self._keeper.warning:
            status.report(WARN, self._keeper.warning)
        progress = f"{training.done}/{training.total}"
        status.add({"training": training.state, "training stage": training.stage, "progress": progress})
        status.add({f"training {name}": value for name, value in training.metrics.items()})
        status.add({"eta s": training.eta_s, "bundle": training.bundle or "none yet"})

    def _folder(self, name: str) -> Path:
        return Path(self.parameters[name]).expanduser().absolute()

    def _start(self) -> str:
        if self.state != ACTIVE:
            raise TrainingError(f"the trainer is {self.state}; configure and activate it first")
        p = self.parameters
        if not p["recipe"]:
            raise TrainingError("no recipe: set the recipe parameter to robot or to a file")
        with SampleStore.open(self._folder("store")) as store:
            counts, labelled = store.counts(), int(store.index.rows["labelled"].sum())
        answer = self._training.start(
            recipe_file(p["recipe"]).absolute(),
            self._folder("store"),
            self._folder("models_folder"),
            counts,
            labelled,
            min_samples=p["min_samples_per_class"],
            options=p["options"],
            resume=p["resume"],
            niceness=p["niceness"],
            threads=p["threads"],
        )
        self._keeper = RateKeeper()  # what it knew was of another run
        self.get_logger().info(answer)
        self._publish_status()
        return answer

    def _cancel(self) -> str:
        answer = self._training.cancel()
        self._publish_status()
        return answer

    def _look(self) -> None:
        final = self._training.poll(self.parameters["stall_timeout_s"])
        if final is not None and final.state == DONE and self.state == ACTIVE:
            self._model.publish(String(data=final.bundle))
            self.get_logger().info(f"training done, announced {final.bundle}")
        elif final is not None and final.state == FAILED:
            self.get_logger().error(final.message)
        if self._training.running:
            pause, why = self._keeper.decide(self.parameters["min_inference_rate_hz"], time.monotonic())
            if pause is not None:
                self._training.pause(pause, why)
        stale = self._training.running and time.monotonic() - self._published_at > 2.0
        if self._changed.is_set() or stale:
            self._changed.clear()
            self._publish_status()

    def _publish_status(self) -> None:
        if hasattr(self, "_status"):
            self._published_at = time.monotonic()
            self._status.publish(String(data=self._training.status().to_json()))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        segmenter = f"{self.get_namespace()}/segmenter: status".lstrip("/")
        for entry in message.status:
            if entry.name == segmenter:
                values = {item.key: item.value for item in entry.values}
                self._keeper.observe(values, time.monotonic())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Console script."""
    end_process(run_node(Trainer, args))


if __name__ == "__main__":
    main()
