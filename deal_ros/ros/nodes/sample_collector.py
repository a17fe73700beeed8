# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Gathers labelled RGB-D keyframes into a store: ``python -m deal_ros.ros.nodes.sample_collector``.

The ``labels`` topic says what is in view; ``~/capture``, ``~/enable`` and ``~/undo`` are for people's hands;
``collection/status`` says what has been gathered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from deal_ros.datasets.keyframes import KeyframeConfig, KeyframeSelector
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import StoreError
from deal_ros.labels import LabelError, exposed_before, label_text
from deal_ros.pairing import Pair
from deal_ros.ros.collection import Collection, CollectionError, Labelled, Limits
from deal_ros.ros.diagnostics import ERROR, WARN, Status
from deal_ros.ros.lifecycle import ACTIVE, PorchNode
from deal_ros.ros.pairs import CameraPairs
from deal_ros.ros.qos import LATCHED, LatchedSubscription, create_publisher
from deal_ros.ros.run import end_process, run_node
from deal_ros.ros.tables import SAMPLE_COLLECTOR
from deal_ros.ros.worker import LatestWins
from deal_ros.sample import Sample

_FRESH_S = 1.0
_KEYFRAME_PARAMETERS = ("min_interval_s", "min_view_change", "min_sharpness", "min_depth")


class SampleCollector(PorchNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("sample_collector", SAMPLE_COLLECTOR)
        self._collection: Collection | None = None
        self._pairs: CameraPairs | None = None
        self._worker: LatestWins[Labelled] | None = None
        self._labels_at = 0
        self._label_error = ""
        self._newest: tuple[float, Pair] | None = None
        self._warned_at = 0.0
        self.create_service(Trigger, "~/capture", self.trigger(self._capture))
        self.create_service(Trigger, "~/undo", self.trigger(self._undo))
        self.create_service(SetBool, "~/enable", self.guard(self._enable))
        self.every(1.0, self._report)

    def configure(self) -> None:
        """Open the store."""
        p = self.parameters
        path = Path(p["store"]).expanduser()
        store = SampleStore.open_or_create(path, p["classes"])
        if not store.classes:
            store.close()
            raise ValueError(f"store {path} has no classes; set the classes parameter, for example ['milk', 'butter']")
        self._collection = Collection(store, KeyframeSelector(self._keyframes()), self._limits())
        self._status = create_publisher(self, String, "collection/status", LATCHED)
        self.get_logger().info(f"store {path}: {len(store)} samples of {', '.join(store.classes)}")

    def activate(self) -> None:
        """Subscribe and start the worker."""
        self._newest = None
        self._worker = LatestWins(self._work, "collector", self._on_work_error)
        self._pairs = CameraPairs(self, self._on_pair)
        self.latched = LatchedSubscription(self, String, "labels", self.guard(self._on_labels))
        self._report()

    def deactivate(self) -> None:
        """Unsubscribe; a sample that is being written is finished."""
        if self._pairs is not None:
            self._pairs.destroy()
            self._pairs = None
        if self.latched is not None:
            self.latched.destroy()
            self.latched = None
        if self._collection is not None:
            self._collection.set_labels("")  # what is in view may change unheard; what is latched comes again
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def cleanup(self) -> None:
        """Close the store."""
        if self._collection is not None:
            self._collection.close()
            self._collection = None
            self.destroy_publisher(self._status)

    def parameters_changed(self, values: dict[str, Any]) -> None:
        """Use new limits at once."""
        if self._collection is not None:
            self._collection.limits = self._limits()
            if any(name in _KEYFRAME_PARAMETERS for name in values):
                self._collection.selector = KeyframeSelector(self._keyframes())
        if "slop_ms" in values and self._pairs is not None:
            self._pairs.set_slop(values["slop_ms"])

    def diagnose(self, status: Status) -> None:
        """Pairs, samples per class, disk."""
        if self._pairs is not None:
            self._pairs.diagnose(status)
        if self._collection is None:
            return
        if self._collection.problem:
            status.report(ERROR, self._collection.problem)
        elif self._collection.state() == "disk_floor":
            status.report(ERROR, "disk almost full: gathering stopped")
        if self._label_error:
            status.report(WARN, self._label_error)
        status.add(self._collection.figures(self._worker.counts.replaced if self._worker is not None else 0))

    def _keyframes(self) -> KeyframeConfig:
        return KeyframeConfig(**{name: self.parameters[name] for name in _KEYFRAME_PARAMETERS})

    def _limits(self) -> Limits:
        return Limits(self.parameters["quota_per_class"], self.parameters["min_disk_free_gb"])

    def _on_labels(self, message: String) -> None:
        assert self._collection is not None
        before, self._label_error = self._collection.labels, ""
        try:
            labels = self._collection.set_labels(message.data, self.parameters["sequence"])
            if labels != before:
                self._labels_at = self.get_clock().now().nanoseconds
                self.get_logger().info(f"in view: {label_text(labels) or 'nobody says what, gathering stops'}")
        except LabelError as error:
            self._label_error = f"labels refused, gathering stops: {error}"
            self.get_logger().error(self._label_error)
        self._report()

    def _on_pair(self, pair: Pair) -> None:
        self._newest = (time.monotonic(), pair)
        collection, worker = self._collection, self._worker
        if collection is None or worker is None or not self.parameters["automatic"]:
            return
        reason = collection.wanted()
        if not reason and exposed_before(pair.stamp_ns, self._labels_at):
            reason = "before_labels"
        if reason:
            collection.skip(reason)
        else:
            worker.offer(Labelled(pair, collection.labels, collection.sequence))

    def _work(self, item: Labelled) -> None:
        collection = self._collection
        if collection is None:
            return
        if collection.selector.due(item.pair.stamp_ns, item.labels):
            sample = self._sample(item)
            self.mended("frame")
            collection.offer(sample, item.sequence)
        else:
            collection.skip("too_soon")  # without decoding a pixel

    def _on_work_error(self, error: Exception) -> None:
        if isinstance(error, StoreError):  # the collection keeps it until a sample could be written
            self.get_logger().error(f"frame not stored: {error}", throttle_duration_sec=2.0)
            return
        if self._collection is not None and isinstance(error, ValueError):
            self._collection.skip("bad_image")
        self.fault("frame", f"frame not stored: {error}")

    def _sample(self, item: Labelled) -> Sample:
        pairs = self._pairs
        if pairs is None:
            raise CollectionError("the collector has been deactivated")
        source = self.resolve_topic_name("rgb/image")
        return item.to_sample(pairs.inputs.camera_matrix_for, self.parameters["max_depth_m"], source)

    def _capture(self) -> str:
        if self._collection is None or self.state != ACTIVE:
            raise CollectionError(f"the collector is {self.state}; configure and activate it first")
        if self._newest is None or time.monotonic() - self._newest[0] > _FRESH_S:
            complaint = self._pairs.complaint() if self._pairs is not None else ""
            raise CollectionError(complaint or "no pair of colour and depth in the last second")
        item = Labelled(self._newest[1], self._collection.labels, self._collection.sequence)
        name = self._collection.capture(self._sample(item), item.sequence)
        self._report()
        return f"stored {name} as {label_text(item.labels)}"

    def _undo(self) -> str:
        if self._collection is None:
            raise CollectionError("the collector is not configured, no store is open")
        names = self._collection.undo(self.parameters["undo_count"])
        self._report()
        return f"removed {', '.join(names)}" if names else "the store is empty, nothing was removed"

    def _enable(self, request: Any, response: Any) -> Any:
        if self._collection is None:
            response.success, response.message = False, "the collector is not configured; configure it first"
            return response
        self._collection.enabled = request.data
        response.success, response.message = True, "gathering" if request.data else "gathering stopped"
        self._report()
        return response

    def _report(self) -> None:
        if self._collection is None:
            return
        rate = self._pairs.rate_hz if self._pairs is not None else 0.0
        complaint = self._pairs.complaint() if self._pairs is not None else ""
        doubt = self._pairs.inputs.doubt() if self._pairs is not None else ""
        wrong = [self._collection.problem, self._label_error, *self.faults(), complaint, doubt]
        message = "; ".join(dict.fromkeys(filter(None, wrong)))
        text = self._collection.to_json(active=self.state == ACTIVE, pair_rate_hz=round(rate, 2), message=message)
        self._status.publish(String(data=text))
        if complaint and time.monotonic() - self._warned_at > self.parameters["input_timeout_s"]:
            self._warned_at = time.monotonic()
            self.get_logger().warning(complaint)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Console script."""
    end_process(run_node(SampleCollector, args))


if __name__ == "__main__":
    main()
