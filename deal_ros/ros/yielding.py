# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""When must training halt so that inference keeps its rate? Decided from the segmenter's diagnostics. Needs no ROS."""

from __future__ import annotations

from collections.abc import Mapping

_FRESH_S = 5.0
_RECOVER_S = 3.0
_HOPELESS_S = 15.0
_LEAVE_ALONE_S = 60.0


class RateKeeper:
    """Pauses training while masks come slower than wanted, unless pausing does not help.

    A rate below the wanted one counts only while frames come in at that rate at least. After 3 s at the wanted rate
    training goes on. If 15 s of pause have not brought the rate back, training is not the cause: it goes on, a
    warning says so, and the next try is a minute later.
    """

    def __init__(self) -> None:
        self.warning = ""
        self._rate = self._offered = 0.0
        self._seen_at = self._good_since = self._paused_at = None  # type: float | None
        self._leave_until = 0.0

    def observe(self, values: Mapping[str, str], now: float) -> None:
        """Take the figures of one diagnostic status of the segmenter.

        Args:
            values: by key; ``masks per second`` and ``frames per second`` are used.
            now: monotonic time in seconds.
        """
        try:
            self._rate, self._offered = float(values["masks per second"]), float(values["frames per second"])
        except (KeyError, ValueError):
            return  # another version's status, or inactive
        self._seen_at = now

    def decide(self, wanted_hz: float, now: float) -> tuple[bool | None, str]:
        """Whether to pause (``True``), go on (``False``) or leave things as they are (``None``), and why."""
        fresh = self._seen_at is not None and now - self._seen_at < _FRESH_S
        starved = fresh and wanted_hz > 0 and self._rate < wanted_hz <= 1.1 * self._offered
        if self._paused_at is None:
            self._good_since = None
            if not starved or now < self._leave_until:
                return None, ""
            self._paused_at, self.warning = now, ""
            return True, f"paused: {self._rate:.1f} masks per second, min_inference_rate_hz is {wanted_hz:.1f}"
        if not starved:
            self._good_since = self._good_since if self._good_since is not None else now
            if not fresh or wanted_hz <= 0 or now - self._good_since >= _RECOVER_S:
                return self._go_on()
            return None, ""
        self._good_since = None
        if now - self._paused_at < _HOPELESS_S:
            return None, ""
        self._leave_until = now + _LEAVE_ALONE_S
        self.warning = f"{self._rate:.1f} masks per second even while training is paused; wanted {wanted_hz:.1f}"
        return self._go_on()

    def _go_on(self) -> tuple[bool, str]:
        self._paused_at = self._good_since = None
        return False, ""
