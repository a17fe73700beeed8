# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Colour images → class masks, with the newest model: ``python -m deal_ros.ros.nodes.segmenter``.

Needs colour only; depth is looked at for ``segmentation/points``. A bundle announced on ``model`` is loaded beside the
running model and swapped in between two frames.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from deal_ros.images import ImageError, stamp_ns
from deal_ros.installed import bundle_folder
from deal_ros.ros import convert
from deal_ros.ros.diagnostics import ERROR, WARN, Rate, Status, Window
from deal_ros.ros.inputs import CameraInputs
from deal_ros.ros.lifecycle import ACTIVE, PorchNode
from deal_ros.ros.models import ModelPathError, confine
from deal_ros.ros.outputs import SegmentationOutputs, Segmented
from deal_ros.ros.qos import LatchedSubscription
from deal_ros.ros.run import end_process, run_node
from deal_ros.ros.segmentation import Segmentation, SegmentationSettings
from deal_ros.ros.tables import SEGMENTER
from deal_ros.ros.training import last_bundle
from deal_ros.ros.worker import LatestWins
from deal_ros.students.predictor import PredictorConfig

_PLAUSIBLE_LATENCY_MS = 60_000
_SETTINGS = tuple(field.name for field in dataclasses.fields(SegmentationSettings))


class Segmenter(PorchNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("segmenter", SEGMENTER)
        self._core: Segmentation | None = None
        self._outputs: SegmentationOutputs | None = None
        self._inputs: CameraInputs | None = None
        self._worker: LatestWins[Any] | None = None
        self._painter: LatestWins[Any] | None = None
        self._enabled = True
        self._refusal = ""
        self._latency_ms, self._frames = Window(), Rate()
        self._points_at = 0.0
        self.create_service(SetBool, "~/enable", self.guard(self._enable))
        self.create_service(Trigger, "~/reload", self.trigger(self._reload))
        self.every(0.5, self._follow_demand)

    def configure(self) -> None:
        """Load the first model, if there is one."""
        p = self.parameters
        self._refusal = ""
        config = PredictorConfig(
            backend=p["backend"],
            device=p["device"],
            precision=p["precision"],
            threads=p["threads"],
            on_out_of_memory="cpu" if p["fallback_to_cpu"] else "reduce",
        )
        self._core = Segmentation(config, self._on_ready, self._on_refused)
        self._core.settings = self._settings()
        self._outputs = SegmentationOutputs(self, p["output_reliability"], p["output_depth"])
        model = self._load_first()
        if model is None:
            self.get_logger().info("no model yet: waiting for one on the model topic")
        else:
            self.get_logger().info(f"model {model.version} of {', '.join(model.classes)}, {self._core.models.path}")

    def activate(self) -> None:
        """Subscribe and start the worker."""
        self._latency_ms.clear()
        # Pictures are for people: what they cost must not delay the masks, so they have a worker of their own.
        self._painter = LatestWins(self._paint, "painter", self._on_paint_error)
        self._worker = LatestWins(self._work, "segmenter", self._on_work_error)
        self._inputs = CameraInputs(self, self._on_rgb, self._on_depth, depth=False)
        self.latched = LatchedSubscription(self, String, "model", self.guard(self._on_model))

    def deactivate(self) -> None:
        """Unsubscribe; the frames at work are finished."""
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self.latched is not None:
            self.latched.destroy()
            self.latched = None
        if self._worker is not None:
            self._worker.stop()
            if self._core is not None:
                self._core.dropped["replaced"] += self._worker.counts.replaced
            self._worker = None
        if self._painter is not None:
            self._painter.stop()
            self._painter = None

    def cleanup(self) -> None:
        """Free the model and its memory, on the GPU too."""
        if self._core is not None:
            self._core.close()
            self._core = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None

    def parameters_changed(self, values: dict[str, Any]) -> None:
        """Use new settings from the next frame on."""
        if self._core is not None and any(name in _SETTINGS for name in values):
            self._core.settings = self._settings()
        model = self._core.models.running if self._core is not None else None
        if "min_confidence" in values and model is not None and self._outputs is not None:
            self._outputs.announce(model.classes, values["min_confidence"])

    def diagnose(self, status: Status) -> None:
        """Model, rates, latency, where each frame went."""
        if self._inputs is not None and self._enabled:
            self._inputs.diagnose(status)
        core = self._core
        if core is None:
            return
        model = core.models.running
        if model is None:
            status.report(WARN, "no model yet; train one, or publish a bundle's path on the model topic")
        elif model.note:
            status.report(WARN, model.note)
        if self._refusal:
            status.report(WARN, self._refusal)
        if pointless := self._why_no_points():
            status.report(WARN, pointless)
        median, p95 = self._latency_ms.percentiles(50, 95)
        if p95 is not None and p95 > self.parameters["warn_latency_ms"]:
            status.report(WARN, f"latency p95 is {p95:.0f} ms, see warn_latency_ms")
        busy_s = self._worker.busy_s if self._worker is not None else 0.0
        if busy_s > self.parameters["stuck_after_s"]:
            status.report(ERROR, f"inference has been stuck for {busy_s:.0f} s; restart the node")
        status.add({"frames per second": self._frames.per_second(), "latency p50 ms": median, "latency p95 ms": p95})
        if self._painter is not None:
            status.add({"pictures skipped": self._painter.counts.replaced})
        status.add(core.figures(replaced=self._worker.counts.replaced if self._worker is not None else 0))

    def _settings(self) -> SegmentationSettings:
        return SegmentationSettings(**{name: self.parameters[name] for name in _SETTINGS})

    def _on_rgb(self, message: Any) -> None:
        core, worker = self._core, self._worker
        if core is None or worker is None:
            return
        core.received += 1
        if not self._enabled:
            core.drop("disabled")
            return
        try:
            convert.check_pixels(message, self.parameters["max_megapixels"])
        except ImageError as error:
            core.drop("bad_image")
            self.fault("rgb", f"rgb refused: {error}")
            return
        self.mended("rgb")
        if core.models.running is not None:
            self._frames.count()  # what the trainer yields to: frames that could have got a mask
        worker.offer(message)

    def _on_depth(self, message: Any) -> None:
        if self._core is None:
            return
        try:
            convert.check_pixels(message, self.parameters["max_megapixels"])
        except ImageError as error:
            self.fault("depth", f"depth refused: {error}")
            return
        self.mended("depth")
        self._core.remember_depth(message)

    def _work(self, message: Any) -> None:
        core, outputs = self._core, self._outputs
        if core is None or outputs is None:
            return
        result = core.segment(message)
        if result is None:
            return
        self.mended("mask")
        frame, model, swapped = result
        if swapped:
            outputs.announce(model.classes, self.parameters["min_confidence"])
            self.get_logger().info(f"model {model.version} segments from this frame on")
        outputs.publish(frame)
        latency_ms = (self.get_clock().now().nanoseconds - stamp_ns(message.header)) / 1e6
        if 0 <= latency_ms < _PLAUSIBLE_LATENCY_MS:  # else the camera's clock is another one
            self._latency_ms.add(latency_ms)
        if self._painter is not None and outputs.pictures_wanted:
            self._painter.offer((frame, model.classes))
        else:
            self.mended("pictures")

    def _paint(self, item: tuple[Segmented, tuple[str, ...]]) -> None:
        frame, classes = item
        began = time.monotonic()
        core, outputs, inputs = self._core, self._outputs, self._inputs
        if core is None or outputs is None or inputs is None:
            return
        try:
            if inputs.depth is not None and outputs.points_wanted:
                matrix = inputs.camera_matrix_for(*frame.mask.shape)
                frame = dataclasses.replace(frame, depth_m=core.depth_of(frame), camera_matrix=matrix)
            outputs.publish_pictures(frame, classes, self.parameters["overlay_alpha"])
            self.mended("pictures")
            if frame.depth_m is not None and frame.camera_matrix is not None:
                self._points_at = time.monotonic()
        finally:
            time.sleep(time.monotonic() - began)  # at most half of the time: masks need the interpreter, too

    def _on_paint_error(self, error: Exception) -> None:
        self.fault("pictures", f"mask without pictures: {error}")

    def _on_work_error(self, error: Exception) -> None:
        self.fault("mask", f"frame without mask: {error}")

    def _follow_demand(self) -> None:
        if self._inputs is not None and self._outputs is not None and self._core is not None:
            wanted = self._outputs.points_wanted
            self._inputs.want_depth(wanted)
            if not wanted:
                self._core.forget_depth()

    def _why_no_points(self) -> str:
        """Say what a cloud that somebody listens to has lacked for too long; empty while there is one."""
        inputs, patience_s = self._inputs, self.parameters["input_timeout_s"]
        if inputs is None or inputs.depth is None or self._core is None or not self._core.masks.per_second():
            return ""
        if min(inputs.depth.age_s, time.monotonic() - self._points_at) < patience_s:
            return ""
        if inputs.calibration is None:
            return f"no points: they need a calibrated camera's info; {inputs.info.describe()}"
        return f"no points: no depth within slop_ms of the colour images; {inputs.depth.describe()}"

    def _load_first(self) -> Any:
        """Load what the parameters name, else what was trained last, else the fallback; ``None`` without any."""
        p, models = self.parameters, self._core.models
        trained = None if p["model"] else last_bundle(Path(p["models_folder"]).expanduser())
        if trained is not None:
            try:
                return models.load_now(trained)
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                self.get_logger().warning(f"the model trained last cannot be used: {error}")
        name = p["model"] or p["fallback_model"]
        return models.load_now(bundle_folder(name)) if name else None

    def _on_model(self, message: String) -> None:
        assert self._core is not None
        try:
            path = confine(message.data, Path(self.parameters["models_folder"]))
        except ModelPathError as error:
            self._refusal = f"model refused: {error}"
            self.get_logger().error(self._refusal)
            return
        self.get_logger().info(f"loading {path} beside the running model")
        self._core.models.request(path)

    def _on_ready(self, path: Path, model: Any) -> None:
        self._refusal = ""
        self.get_logger().info(f"model {model.version} from {path} is warm, it takes over with the next frame")

    def _on_refused(self, path: Path, error: Exception) -> None:
        self._refusal = f"model {path} refused, the old one goes on: {error}"
        self.get_logger().error(self._refusal)

    def _reload(self) -> str:
        if self._core is None or self.state != ACTIVE:
            raise ValueError(f"the segmenter is {self.state}; configure and activate it first")
        path = self._core.models.path
        if path is None:
            raise ValueError("no model has been loaded yet; publish a bundle's path on the model topic")
        self._core.models.request(path)
        return f"loading {path} again; the diagnostics say which version runs"

    def _enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        response.success, response.message = True, "segmenting" if request.data else "segmentation paused"
        return response


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Console script."""
    end_process(run_node(Segmenter, args))


if __name__ == "__main__":
    main()
