# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Live pairing of the camera's topics, and the words for when no pairs come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from deal_ros.images import ImageError, stamp_ns
from deal_ros.pairing import DEPTH, RGB, STREAMS, Pair, PairingConfig, PairingStatistics, StampPairer
from deal_ros.ros import convert
from deal_ros.ros.diagnostics import WARN, Rate, Status
from deal_ros.ros.inputs import CameraInputs
from deal_ros.ros.lifecycle import PorchNode


class CameraPairs:
    """Subscribes to a camera, pairs colour and depth in the callbacks (some comparisons, no decoding).

    Args:
        node: owner; its parameters ``slop_ms`` and ``input_timeout_s`` are used.
        on_pair: called in the executor's thread with each pair of messages; must only enqueue.
    """

    def __init__(self, node: PorchNode, on_pair: Callable[[Pair], None]) -> None:
        self._node = node
        self._on_pair = on_pair
        self._pairer = StampPairer(PairingConfig(slop_ms=node.parameters["slop_ms"]))
        self._rate = Rate()
        self._paired_at = time.monotonic()
        self._jumps = 0
        self.refused = 0
        self.inputs = CameraInputs(
            node,
            lambda message: self._add(RGB, message),
            lambda message: self._add(DEPTH, message),
        )

    @property
    def rate_hz(self) -> float:
        """Pairs per second."""
        return self._rate.per_second()

    def statistics(self) -> PairingStatistics:
        """Counters of the pairer."""
        return self._pairer.statistics()

    def set_slop(self, slop_ms: float) -> None:
        """Use another slop from now on; what waits is dropped."""
        self._pairer = StampPairer(PairingConfig(slop_ms=slop_ms))

    def destroy(self) -> None:
        """Unsubscribe."""
        self.inputs.destroy()

    def complaint(self) -> str:
        """Why there was no pair for too long, with rates, offset, QoS and remedy; empty when there was one."""
        silent_s = time.monotonic() - self._paired_at
        if silent_s < self._node.parameters["input_timeout_s"]:
            return ""
        statistics = self.statistics()
        return f"no pair of colour and depth for {silent_s:.0f} s: {self._why(statistics)}"

    def diagnose(self, status: Status) -> None:
        """Report complaint, rates and counters."""
        complaint = self.complaint()
        if complaint:
            status.report(WARN, complaint)
            status.add({"input rates": {name: f"{s.rate_hz:.1f} Hz" for name, s in self._node.inputs.items()}})
        else:
            self.inputs.diagnose(status)
        statistics = self.statistics()
        if statistics.clock_jumps > self._jumps:
            self._node.get_logger().warning("time went back (a bag looped, a clock was set): pairing began anew")
        self._jumps = statistics.clock_jumps
        status.add(
            {
                "pairs per second": self.rate_hz,
                "pairs": statistics.paired,
                "stamp offset p95 ms": statistics.offset_p95_ms if statistics.paired else None,
                "clock jumps": statistics.clock_jumps,
                "images refused": self.refused,
            }
        )
        for stream, reasons in statistics.dropped.items():
            status.add({f"{stream} dropped": {reason: count for reason, count in reasons.items() if count}})

    def _add(self, stream: int, message: Any) -> None:
        try:
            convert.check_pixels(message, self._node.parameters["max_megapixels"])
        except ImageError as error:
            self.refused += 1
            self._node.fault(STREAMS[stream], f"{STREAMS[stream]} refused: {error}")
            return
        self._node.mended(STREAMS[stream])
        for pair in self._pairer.add(stream, stamp_ns(message.header), message):
            self._paired_at = time.monotonic()
            self._rate.count()
            self._on_pair(pair)

    def _why(self, statistics: PairingStatistics) -> str:
        complaints = self.inputs.complaints()
        if complaints:
            return "; ".join(complaints)
        assert self.inputs.depth is not None
        topics = f"{self.inputs.rgb.describe()}; {self.inputs.depth.describe()}"
        zero = [name for name, reasons in statistics.dropped.items() if reasons["zero_stamp"]]
        if zero:
            return f"{' and '.join(zero)} images have no stamp, their driver must set header.stamp; {topics}"
        if statistics.missed_by_ms is not None:
            return (
                f"nearest stamps differ by {statistics.missed_by_ms:.1f} ms (depth minus colour), slop_ms is"
                f" {self._node.parameters['slop_ms']:.1f}; let the camera synchronise (RealSense:"
                f" enable_sync:=true), or raise slop_ms; {topics}"
            )
        return f"images come but nothing could be compared yet; {topics}"
