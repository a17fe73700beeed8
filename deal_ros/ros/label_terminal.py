# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Label by number keys in a terminal: ``deal label``, that is ``python -m deal_ros.ros.label_terminal``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String
from std_srvs.srv import Trigger

from deal_ros.labels import check_classes, label_text
from deal_ros.ros.label_board import LabelBoard
from deal_ros.ros.qos import LATCHED
from deal_ros.ros.run import end_process, leave_graph

_REDRAW_S = 0.25
_REPEAT_S = 1.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LEAVE_S = 1.0
"""Time for the collector to hear that nothing is in view any more."""


class LabelTerminal(Node):
    """Publishes ``labels``, listens to ``collection/status``, calls the collector's services.

    Args:
        board: what is shown and chosen.
        collector: node name of the collector, for its services.
    """

    def __init__(self, board: LabelBoard, collector: str) -> None:
        super().__init__("label_terminal")
        self._board = board
        self._published: str | None = None
        self._published_at = 0.0
        self._heard = False
        self._labels = self.create_publisher(String, "labels", LATCHED)
        self.create_subscription(String, "collection/status", self._on_status, LATCHED)
        self._collector_services = {
            name: self.create_client(Trigger, f"{collector}/{name}") for name in ("capture", "undo")
        }

    def publish(self, text: str) -> None:
        """Publish the labels when they change, and once a second until the collector says that it has them.

        A collector that is not discovered yet, or does not listen to what is latched, would go on with older labels.
        Once it has heard, others may speak.
        """
        now = time.monotonic()
        if text != self._published:
            self._heard = False
        elif self._heard or now - self._published_at < _REPEAT_S:
            return
        self._published, self._published_at = text, now
        self._labels.publish(String(data=text))

    def leave(self) -> None:
        """Say that nobody says any more what is in view, and wait a moment until the collector has heard it."""
        self._published = None
        self.publish("")
        until = time.monotonic() + _LEAVE_S
        while not self._heard and time.monotonic() < until and self._labels.get_subscription_count():
            rclpy.spin_once(self, timeout_sec=0.05)
            self.publish("")
        time.sleep(0.2)  # let it out before the publisher goes, to whoever else listens

    def call(self, name: str) -> None:
        """Call a service of the collector; its answer appears on the board."""
        client = self._collector_services[name]
        if not client.service_is_ready():
            self._board.message = f"{name}: no collector here"
            return
        client.call_async(Trigger.Request()).add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        self._board.message = str(future.result().message) if future.exception() is None else str(future.exception())

    def _on_status(self, message: String) -> None:
        try:
            status = json.loads(message.data)
        except ValueError:
            return
        if isinstance(status, dict):
            self._board.learn(status)
            labels = status.get("labels", False)  # None: nobody says
            if labels is None or isinstance(labels, list):
                self._heard |= label_text(None if labels is None else map(str, labels)) == self._published


def main(args: Sequence[str] | None = None) -> int:
    """Run until q, Ctrl-C, or the terminal is closed; then nobody says what is in view any more."""
    arguments = list(sys.argv[1:] if args is None else args)
    parser = argparse.ArgumentParser(prog="deal label", description=__doc__)
    parser.add_argument("--classes", default="", help="comma-separated; default: those of the running collector")
    parser.add_argument("--collector", default="sample_collector", help="node name, default: %(default)s")
    options = parser.parse_args(remove_ros_args(["label_terminal", *arguments])[1:])
    if not sys.stdin.isatty():
        print("deal label: needs a terminal; without one use: ros2 topic pub labels …", file=sys.stderr)
        return 2
    try:
        names = [name.strip() for name in options.classes.split(",") if name.strip()]
        board = LabelBoard(check_classes(names) if names else ())
    except ValueError as error:
        print(f"deal label: {error}", file=sys.stderr)
        return 2
    # rclpy's own handlers shut the context down at once, and the last word could not be said any more.
    rclpy.init(args=["label_terminal", *arguments], signal_handler_options=SignalHandlerOptions.NO)
    node = LabelTerminal(board, options.collector)
    try:
        for number in _ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets SIGHUP
                signal.signal(number, _interrupt)
        with _keys() as read_key:
            _loop(node, board, read_key)
    except (KeyboardInterrupt, ExternalShutdownException, OSError):  # OSError: the terminal is gone
        pass
    finally:
        if rclpy.ok():
            node.leave()
        leave_graph(node, rclpy.get_global_executor())
    return 0


def _interrupt(number: int, frame: Any) -> None:
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)  # a second one must not cut off the last word
    raise KeyboardInterrupt


def _loop(node: LabelTerminal, board: LabelBoard, read_key: Any) -> None:
    drawn_at = 0.0
    while rclpy.ok():
        rclpy.spin_once(node, timeout_sec=0.02)
        key = read_key()
        action = board.press(key) if key else ""
        if action == "quit":
            return
        if action:
            node.call(action)
        node.publish(board.text())
        if key or time.monotonic() - drawn_at > _REDRAW_S:
            drawn_at = time.monotonic()
            _draw(board.screen())


def _draw(lines: Sequence[str]) -> None:
    clean = ("".join(c for c in line if c.isprintable()) for line in lines)  # status text comes from elsewhere
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in clean) + "\x1b[J")
    sys.stdout.flush()


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Keys without Enter and without echo; the terminal is as before afterwards."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    sys.stdout.write("\x1b[2J\x1b[?25l")
    try:
        tty.setcbreak(terminal)

        def read_key() -> str:
            ready, _, _ = select.select([terminal], [], [], 0)
            return os.read(terminal, 1).decode("ascii", "replace") or "\x04" if ready else ""

        yield read_key
    finally:
        with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
            sys.stdout.write("\x1b[?25h\r\n")
            sys.stdout.flush()


if __name__ == "__main__":
    end_process(main())
