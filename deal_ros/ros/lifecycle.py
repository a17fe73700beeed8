# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The base of all four nodes: lifecycle with tracebacks and retry, parameters, diagnostics, guarded callbacks."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from deal_ros.ros.diagnostics import ERROR, WARN, DiagnosticsPublisher, Status, process_figures
from deal_ros.ros.parameters import NodeParameters
from deal_ros.ros.qos import LatchedSubscription, MatchedSubscription
from deal_ros.ros.tables import Parameter

_LOG_AGAIN_S = 2.0
UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = "unconfigured", "inactive", "active", "finalized"


class PorchNode(LifecycleNode):
    """A lifecycle node whose parts are filled in by four methods that simply raise when they fail.

    ``configure`` loads, ``activate`` subscribes, ``deactivate`` undoes ``activate``, ``cleanup`` frees. Each may be
    called again after a failure: what failed half-way is undone first.

    Args:
        name: node name.
        table: its parameters.
    """

    def __init__(self, name: str, table: Sequence[Parameter]) -> None:
        super().__init__(name)
        self.state = UNCONFIGURED
        self.inputs: dict[str, MatchedSubscription] = {}
        self.latched: LatchedSubscription | None = None
        self._failure = ""
        self._faults: dict[str, tuple[str, float]] = {}
        self._logged: dict[str, float] = {}
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._forward = forward_logging(self)
        self.parameters = NodeParameters(
            self, table, configured=lambda: self.state != UNCONFIGURED, changed=self.parameters_changed
        )
        self._diagnostics = DiagnosticsPublisher(self)
        self.every(self.parameters["diagnostics_period_s"], self._diagnose)
        self.every(0.5, self._follow_inputs)

    def configure(self) -> None:
        """Load what the node works with."""

    def activate(self) -> None:
        """Subscribe and start working."""

    def deactivate(self) -> None:
        """Undo :meth:`activate`; must work after it failed half-way."""

    def cleanup(self) -> None:
        """Undo :meth:`configure`; must work after it failed half-way."""

    def parameters_changed(self, values: dict[str, Any]) -> None:
        """Live parameters have new values; raise ``ValueError`` with the reason to refuse them."""

    def diagnose(self, status: Status) -> None:
        """Add levels and figures to ``status``."""

    def guard(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a callback so that an error in it is logged with its traceback and the node goes on."""

        def guarded(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:
                text = f"{getattr(callback, '__name__', 'callback')} failed: {_explain(error)}"
                self.get_logger().error(text, throttle_duration_sec=1.0)
                return arguments[1] if len(arguments) == 2 else None  # a service must return its response

        return guarded

    def fault(self, work: str, text: str) -> None:
        """Say what went wrong with one kind of work: in the log, and in diagnostics until :meth:`mended`.

        May be called from any thread.
        """
        now = time.monotonic()
        self._faults[work] = (text, now)
        if now - self._logged.get(work, -_LOG_AGAIN_S) >= _LOG_AGAIN_S:
            self._logged[work] = now
            self.get_logger().error(text)

    def mended(self, work: str) -> None:
        """Forget the fault of one kind of work, which has just succeeded."""
        self._faults.pop(work, None)

    def faults(self) -> list[str]:
        """Return what went wrong last, and how long ago, for each kind of work that has not succeeded since."""
        now = time.monotonic()
        return [f"{text} ({now - at:.0f} s ago)" for text, at in list(self._faults.values())]

    def every(self, period_s: float, callback: Callable[[], None]) -> Any:
        """Create and return a guarded timer that goes on when simulated time halts or jumps."""
        return self.create_timer(period_s, self.guard(callback), clock=self._steady_clock)

    def trigger(self, action: Callable[[], str]) -> Callable[[Any, Any], Any]:
        """Make a ``std_srvs/Trigger`` handler: ``action`` returns the message, or raises the reason of a refusal."""

        def handle(request: Any, response: Any) -> Any:
            try:
                response.message, response.success = action(), True
            except Exception as error:
                response.message, response.success = str(error) or type(error).__name__, False
                if not isinstance(error, (ValueError, OSError)):
                    self.get_logger().error(f"service failed: {_explain(error)}")
            return response

        return handle

    def autostart(self) -> bool:
        """Configure and activate if the parameter says so; returns whether the node ended up as asked."""
        if not self.parameters["autostart"]:
            return True
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def stop(self) -> None:
        """Go down to unconfigured, whatever happens on the way."""
        for state, undo in ((ACTIVE, self._do_deactivate), (INACTIVE, self._do_cleanup)):
            if self.state == state:
                undo()
        logging.getLogger("deal_ros").removeHandler(self._forward)

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._transition("configure", self.configure, INACTIVE, undo=self.cleanup)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._transition("activate", self.activate, ACTIVE, undo=self.deactivate)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._do_deactivate()

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._do_cleanup()

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Lifecycle callback: from any state; the process then ends."""
        self.stop()
        self.state = FINALIZED
        return TransitionCallbackReturn.SUCCESS

    def _do_deactivate(self) -> TransitionCallbackReturn:
        return self._transition("deactivate", self.deactivate, INACTIVE)

    def _do_cleanup(self) -> TransitionCallbackReturn:
        return self._transition("clean up", self.cleanup, UNCONFIGURED)

    def _transition(
        self, name: str, step: Callable[[], None], reached: str, undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            step()
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal: undo and leave
                if undo is not None:
                    undo()
                raise
            # rclpy up to Kilted swallows what a transition raises, so that we must log it.
            self._failure = f"{name} failed: {error}"
            self.get_logger().error(f"{name} failed: {_explain(error)}")
            if undo is None:
                self.state = reached  # undoing goes as far as it can and never gets stuck half-way
                return TransitionCallbackReturn.SUCCESS
            try:
                undo()
            except Exception as second:
                self.get_logger().error(f"undoing it failed too: {_explain(second)}")
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        self._faults.clear()
        self.state = reached
        self.get_logger().info(f"{name}: done")
        return TransitionCallbackReturn.SUCCESS

    def _diagnose(self) -> None:
        status = Status()
        if self._failure:
            status.report(ERROR, self._failure)
        status.add({"state": self.state})
        for fault in self.faults():
            status.report(WARN, fault)
        try:
            self.diagnose(status)
        except Exception as error:  # a node that falls silent looks healthy to those who saw its last status
            status.report(ERROR, f"diagnosis failed: {error}")
            self.fault("diagnosis", f"diagnosis failed: {_explain(error)}")
        status.add(process_figures())
        self._diagnostics.publish(status)

    def _follow_inputs(self) -> None:
        for subscription in list(self.inputs.values()):
            subscription.follow()
        if self.latched is not None:
            self.latched.follow()


class _ForwardToRos(logging.Handler):
    """Hands records of the core's ``logging`` to the node's logger; errors bring their traceback."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(logging.INFO)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Forward one record; each level has its own line because rclpy ties a severity to a call site."""
        try:
            text = self.format(record)
            if record.levelno >= logging.ERROR:
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            else:
                self._logger.info(text)
        except Exception:
            self.handleError(record)


def forward_logging(node: LifecycleNode) -> logging.Handler:
    """Send the core's log records to the node's logger; remove the returned handler when the node ends."""
    handler = _ForwardToRos(node)
    logger = logging.getLogger("deal_ros")
    logger.addHandler(handler)
    logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    return handler


def _explain(error: Exception) -> str:
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return f"{error}\n{''.join(lines).rstrip()}"
