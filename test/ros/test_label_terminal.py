# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal label`` in a real pseudo-terminal beside a running collector."""

import os
import pty
import select
import subprocess
import sys
import termios
import threading

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


def test_deal_label_toggles_captures_and_leaves_nothing_in_view(graph, tmp_path):
    graph.start("sample_collector", store=str(tmp_path / "store"), classes=["milk", "ketchup"], automatic=False)
    status = graph.json_of("collection/status")
    labels, _ = graph.record(String, "labels", LATCHED)
    camera = Camera(graph).run()
    graph.wait(lambda: status().get("pair_rate_hz", 0) > 5, "pairs")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "deal_ros.cli", "label", "--ros-args", "-r", f"__ns:={graph.namespace}"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    shown = bytearray()
    done = threading.Event()

    def read():
        while not done.is_set():
            if select.select([master], [], [], 0.05)[0]:
                shown.extend(os.read(master, 65536))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        try:
            graph.wait(lambda: b"2 [ ] ketchup" in shown, "the classes of the collector on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; shown: {bytes(shown[-2000:])!r}") from error
        os.write(master, b"2")
        graph.wait(lambda: labels and labels[-1].data == "ketchup", "the label")
        os.write(master, b"c")
        graph.wait(lambda: status()["counts"] == {"milk": 0, "ketchup": 1}, "a capture")
        graph.wait(lambda: b"stored 00000000" in shown, "the answer on the screen")
        os.write(master, b"q")
        assert process.wait(10) == 0
        graph.wait(lambda: labels[-1].data == "", "nothing in view at the end")
        assert termios.tcgetattr(slave)[3] & termios.ECHO
    finally:
        process.kill()
        done.set()
        reader.join()
        camera.stop()
        os.close(master)
        os.close(slave)


def test_without_a_terminal_the_remedy_is_named():
    command = [sys.executable, "-m", "deal_ros.cli", "label"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "ros2 topic pub labels" in result.stderr
