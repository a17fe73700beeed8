# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the labelling terminal knows and shows: classes under keys, which are in view, what has been gathered."""

from __future__ import annotations

import string
import time
from collections.abc import Sequence
from typing import Any

from deal_ros.labels import label_text

_ACTIONS = {" ": "clear", "0": "nothing", "c": "capture", "u": "undo", "q": "quit", "\x03": "quit", "\x04": "quit"}
_KEYS = string.digits[1:] + "".join(letter for letter in string.ascii_lowercase if letter not in "cuq")
_SETTLE_S = 0.7


class LabelBoard:
    """Keys in, label texts and a screen out. Knows no terminal and no ROS.

    While a person changes the labels nobody says what is in view: the text is empty from the first key until the keys
    have rested for 0.7 s, so that no frame is stored under labels that are half changed.

    Example:
        >>> board = LabelBoard(["milk", "ketchup"])
        >>> board.press("2", now=0.0), board.text(now=0.1), board.text(now=1.0)
        ('', '', 'ketchup')
    """

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.classes: tuple[str, ...] = tuple(classes)
        self.message = ""
        self._chosen: set[str] | None = None
        self._changed_at = float("-inf")
        self._status: dict[str, Any] = {}
        self._status_at = float("-inf")

    def press(self, key: str, now: float | None = None) -> str:
        """Take one key; returns ``capture``, ``undo`` or ``quit`` where the caller must act, else an empty text."""
        now = time.monotonic() if now is None else now
        action = _ACTIONS.get(key, "")
        index = _KEYS.find(key)
        if action == "clear":
            self._chosen = None
        elif action == "nothing":
            self._chosen = set()
        elif not action and 0 <= index < len(self.classes) and key:
            self._chosen = (self._chosen or set()) ^ {self.classes[index]} or None
        elif not action:
            self.message = f"no class under {key!r}" if key.isprintable() else ""
            return ""
        if action in ("", "clear", "nothing"):
            self._changed_at, self.message = now, ""
            return ""
        return action

    def text(self, now: float | None = None) -> str:
        """Return what the ``labels`` topic must say now."""
        now = time.monotonic() if now is None else now
        return "" if now - self._changed_at < _SETTLE_S else label_text(self._chosen)

    def learn(self, status: dict[str, Any], now: float | None = None) -> None:
        """Take a ``collection/status``; it also tells the classes where none were given."""
        self._status, self._status_at = status, time.monotonic() if now is None else now
        classes = status.get("classes")
        if not self.classes and isinstance(classes, list):
            self.classes = tuple(str(name) for name in classes)

    def screen(self, now: float | None = None) -> list[str]:
        """Return the lines to show."""
        now = time.monotonic() if now is None else now
        counts = self._status.get("counts", {})
        lines = ["In view (keys toggle):"]
        for key, name in zip(_KEYS, self.classes):
            mark = "x" if name in (self._chosen or ()) else " "
            lines.append(f"  {key} [{mark}] {name:<32.32} {counts.get(name, 0):>6}")
        if not self.classes:
            lines.append("  waiting for the collector to tell its classes …")
        if len(self.classes) > len(_KEYS):
            lines.append(f"  and {len(self.classes) - len(_KEYS)} more without a key; publish them on the labels topic")
        lines.append(f"  0 [{'x' if self._chosen == set() else ' '}] none of them")
        lines += ["", "space: stop gathering   c: capture now   u: undo   q: quit", ""]
        if now - self._status_at > 3.0:
            lines.append("no collector: collection/status is silent")
        else:
            state, rate = self._status.get("state", "?"), self._status.get("pair_rate_hz", 0.0)
            free = self._status.get("disk_free_gb", 0.0)
            lines.append(f"{state}   {rate} pairs/s   {self._status.get('total', 0)} samples   {free} GB free")
            lines.append(str(self._status.get("message", ""))[:240])
        pending = now - self._changed_at < _SETTLE_S
        lines.append("labels change …" if pending else f"labels: {self.text(now) or '(nobody says)'}")
        return [*lines, self.message]
