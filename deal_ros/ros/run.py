# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Start a node, spin it, and end it within two seconds of SIGINT or SIGTERM, its workers joined, its files closed."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from deal_ros.ros.lifecycle import FINALIZED, PorchNode
from deal_ros.ros.tables import ParameterError

GRACE_S = 1.8
"""A node that has not ended this long after the signal is ended hard; stores and bundles survive that by design."""


_LEAVE_S = 1.0
"""Time for a participant to leave."""


class _Interrupted(BaseException):
    """Raised in the main thread by the first signal while a transition runs, to leave it at once."""


def run_node(factory: Callable[[], PorchNode], args: Sequence[str] | None = None) -> int:
    """Run one node until it is told to stop.

    Args:
        factory: makes the node after ``rclpy.init``.
        args: command line; ``None`` takes ``sys.argv``.

    Returns:
        Exit code: 0 after a clean end, 2 when a parameter given at start cannot be used.
    """
    faulthandler.enable()  # a crash in a native library leaves its stack in the log
    # rclpy's own handlers shut the context down at once, and then nothing can say good-bye any more.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    starting = [True]

    def on_signal(number: int, frame: Any) -> None:
        if not stop.is_set():
            stop.set()
            timer = threading.Timer(GRACE_S, os._exit, (128 + number,))
            timer.daemon = True
            timer.start()
            if starting[0]:
                raise _Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    node = None
    executor = SingleThreadedExecutor()
    try:
        node = factory()
        executor.add_node(node)
        node.autostart()
        starting[0] = False
        while not stop.is_set() and rclpy.ok() and node.state != FINALIZED:
            _spin(executor, node)
    except ParameterError as error:
        print(f"deal_ros: {error}", file=sys.stderr)  # there is no node yet that could log it
        return 2
    except (_Interrupted, ExternalShutdownException):
        pass
    finally:
        starting[0] = False
        if node is not None:
            node.stop()
            leave_graph(node, executor)
    return 0


def leave_graph(node: Node, executor: Executor) -> None:
    """Take the node out of the graph, so that its peers know at once; for the end of a process only.

    Fast DDS 3.2 was seen to wait for ever for a lock of its TCP transport (LARGE_DATA) as a participant was destroyed,
    with Python's lock held, so that no thread could help. The kernel can: its alarm ends the process then.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _LEAVE_S)
    executor.remove_node(node)
    node.destroy_node()
    executor.shutdown(timeout_sec=0.2)
    rclpy.try_shutdown()
    signal.setitimer(signal.ITIMER_REAL, 0)


def _spin(executor: SingleThreadedExecutor, node: PorchNode) -> None:
    try:
        executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        raise
    except Exception as error:
        # Humble's rclpy raises here when somebody asks for a transition that the present state does not have.
        node.get_logger().error(f"callback failed, the node goes on: {type(error).__name__}: {error}")
        time.sleep(0.01)


def end_process(code: int) -> NoReturn:
    """Leave now: everything is closed, and tearing torch and DDS down in Python would take another second."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the terminal may be gone
            stream.flush()
    os._exit(code)
