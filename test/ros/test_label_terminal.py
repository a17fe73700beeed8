# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal label`` in a real pseudo-terminal beside a running collector."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest
from ros_graph import LATCHED, Camera
from std_msgs.msg import String

from deal_ros.ros.label_board import LabelBoard


def test_labels_are_empty_while_they_change():
    board = LabelBoard(["milk", "ketchup", "butter"])
    board.press("1", now=0.0)
    assert board.text(now=0.5) == ""
    assert board.text(now=0.8) == "milk"
    board.press("3", now=1.0)
    board.press("1", now=1.5)
    assert board.text(now=2.0) == ""
    assert board.text(now=2.3) == "butter"
    assert board.press(" ", now=3.0) == ""
    assert board.text(now=4.0) == ""
    board.press("0", now=4.0)
    assert board.text(now=5.0) == "nothing"
    assert "0 [x] none of them" in "\n".join(board.screen(now=5.0))
    board.press("2", now=5.0)
    assert board.text(now=6.0) == "ketchup"
    board.press("2", now=6.0)
    assert board.text(now=7.0) == "", "no key says that nothing is in view but its own"
    assert [board.press(key) for key in "cuq"] == ["capture", "undo", "quit"]
    board.press("9")
    assert "no class under '9'" in board.screen()[-1]


def test_the_screen_shows_counts_and_says_when_the_collector_is_silent():
    board = LabelBoard()
    board.learn({"classes": ["milk"], "counts": {"milk": 12}, "state": "gathering", "pair_rate_hz": 9.9}, now=0.0)
    text = "\n".join(board.screen(now=1.0))
    assert "1 [ ] milk" in text
    assert " 12" in text
    assert "9.9 pairs/s" in text
    assert "is silent" in "\n".join(board.screen(now=9.0))


class Terminal:
    """``deal label`` in a pseudo-terminal of its own session, as a terminal emulator starts it."""

    def __init__(self, graph):
        self.master, self.slave = pty.openpty()
        self.shown = bytearray()
        command = [sys.executable, "-m", "deal_ros.cli", "label", "--ros-args", "-r", f"__ns:={graph.namespace}"]
        self.process = subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._done = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait(10)
        self.hang_up()
        os.close(self.slave)

    def press(self, keys):
        os.write(self.master, keys)

    def hang_up(self):
        """Close the terminal's side, as its window does."""
        if not self._done.is_set():
            self._done.set()
            self._reader.join()
            os.close(self.master)

    def _read(self):
        while not self._done.is_set():
            if select.select([self.master], [], [], 0.05)[0]:
                self.shown.extend(os.read(self.master, 65536))


def collect(graph, tmp_path):
    graph.start("sample_collector", store=str(tmp_path / "store"), classes=["milk", "ketchup"], automatic=False)
    return graph.json_of("collection/status")


def test_deal_label_toggles_captures_and_leaves_nothing_in_view(graph, tmp_path):
    status = collect(graph, tmp_path)
    labels, _ = graph.record(String, "labels", LATCHED)
    camera = Camera(graph).run()
    graph.wait(lambda: status().get("pair_rate_hz", 0) > 5, "pairs")
    with Terminal(graph) as terminal:
        try:
            graph.wait(lambda: b"2 [ ] ketchup" in terminal.shown, "the classes of the collector on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; shown: {bytes(terminal.shown[-2000:])!r}") from error
        terminal.press(b"2")
        graph.wait(lambda: labels and labels[-1].data == "ketchup", "the label")
        terminal.press(b"c")
        graph.wait(lambda: status()["counts"] == {"milk": 0, "ketchup": 1}, "a capture")
        graph.wait(lambda: b"stored 00000000" in terminal.shown, "the answer on the screen")
        terminal.press(b"q")
        assert terminal.process.wait(10) == 0
        graph.wait(lambda: labels[-1].data == "", "nothing in view at the end")
        assert termios.tcgetattr(terminal.slave)[3] & termios.ECHO
    camera.stop()


@pytest.mark.parametrize("way", ["ctrl-c", "SIGTERM", "SIGHUP", "hang up"])
def test_whatever_ends_deal_label_the_collector_keeps_no_old_label(graph, tmp_path, way):
    status = collect(graph, tmp_path)
    with Terminal(graph) as terminal:
        graph.wait(lambda: b"1 [ ] milk" in terminal.shown, "the screen")
        terminal.press(b"1")
        graph.wait(lambda: status()["labels"] == ["milk"], "the label")
        if way == "ctrl-c":
            terminal.press(b"\x03")
        elif way == "hang up":
            terminal.hang_up()
        else:
            terminal.process.send_signal(getattr(signal, way))
        assert terminal.process.wait(10) == 0
        graph.wait(lambda: status()["labels"] is None, "nobody says what is in view")


def test_what_the_screen_says_reaches_a_collector_that_listens_to_nothing_latched(graph, tmp_path):
    """Another publisher, of the default QoS, has made its input volatile and said something else before."""
    status = collect(graph, tmp_path)
    plain = graph.latched("labels", qos=10)
    graph.wait(lambda: plain.get_subscription_count(), "a match")
    plain.publish(String(data="milk"))
    graph.wait(lambda: status().get("labels") == ["milk"], "older labels")
    with Terminal(graph) as terminal:
        graph.wait(lambda: b"labels: (nobody says)" in terminal.shown, "the screen")
        graph.wait(lambda: status()["labels"] is None, "what the screen says")
        graph.wait(lambda: b"no_labels" in terminal.shown, "the collector's word for it")
        stranger, odd = graph.latched("collection/status"), '{"labels": [1, "milk"], "message": "of a stranger"}'
        graph.wait(
            lambda: stranger.publish(String(data=odd)) or b"of a stranger" in terminal.shown,  # until a screen has it
            "a status that is none of the collector's",
        )
        plain.publish(String(data="ketchup"))
        graph.wait(lambda: status()["labels"] == ["ketchup"], "others may speak later")
        time.sleep(1.5)
        assert status()["labels"] == ["ketchup"]
        assert terminal.process.poll() is None


def test_without_a_terminal_the_remedy_is_named():
    command = [sys.executable, "-m", "deal_ros.cli", "label"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "ros2 topic pub labels" in result.stderr
