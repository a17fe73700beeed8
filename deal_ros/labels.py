# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Class names: how people write them, which are allowed, and which colour each gets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from deal_ros.sample import MAX_CLASSES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. \-]{0,63}")
MAX_LABEL_TEXT = 16384
"""Longest accepted text on the ``labels`` topic, in characters."""


NOTHING = "nothing"
"""Says that none of the classes is in view, which is worth learning from; an empty text says nothing at all."""
_LABEL_LAG_NS = 2_000_000_000


class LabelError(ValueError):
    """A label text or class name that cannot be used; the message says why and what to write instead."""


def check_class_name(name: str) -> str:
    """Return ``name`` if it is a usable class name.

    Names start with a letter or digit and go on with letters, digits, ``_``, ``-``, ``.`` or blanks, 64 characters at
    most: they appear in file names, legends and topics, so path separators and control characters are refused.

    Raises:
        LabelError: if the name is not usable, or is the reserved ``background`` or ``nothing``.
    """
    if not _NAME.fullmatch(name):
        raise LabelError(
            f"class name must be 1-64 letters, digits, '_', '-', '.' or blanks and start with a letter or digit,"
            f" got {name[:80]!r}"
        )
    if name.strip().lower() == "background":
        raise LabelError("class name 'background' is reserved for id 0; leave it out of the list")
    if name.strip().lower() == NOTHING:
        raise LabelError(f"class name {NOTHING!r} is reserved: alone, as labels, it says that no class is in view")
    return name


def check_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the ordered class names (ids 1..K) after checking each one and that none occurs twice.

    Raises:
        LabelError: on an unusable or repeated name, none at all, or more than 254.
    """
    classes = tuple(check_class_name(name) for name in names)
    if not classes:
        raise LabelError("at least one class name is needed, got none")
    if len(classes) > MAX_CLASSES:
        raise LabelError(f"at most {MAX_CLASSES} classes fit a uint8 mask, got {len(classes)}")
    repeated = sorted({name for name in classes if classes.count(name) > 1})
    if repeated:
        raise LabelError(f"class names must differ, got {', '.join(repeated)} more than once")
    return classes


def parse_labels(text: str, classes: Sequence[str] | None = None) -> frozenset[str] | None:
    """Parse the comma-separated text of the ``labels`` topic.

    Args:
        text: for example ``"milk, ketchup"``. ``"nothing"`` means that no class is in view, an empty or blank text
            that nobody says what is: stop gathering.
        classes: the known class names; ``None`` accepts any usable name.

    Returns:
        The set of names, blanks around them removed; empty where no class is in view, ``None`` where nobody says.

    Raises:
        LabelError: if the text is too long, has an empty or unusable name, or a name outside ``classes``.

    Example:
        >>> sorted(parse_labels("milk, ketchup"))
        ['ketchup', 'milk']
    """
    if len(text) > MAX_LABEL_TEXT:
        raise LabelError(f"label text must have at most {MAX_LABEL_TEXT} characters, got {len(text)}")
    if not text.strip():
        return None
    if text.strip().lower() == NOTHING:
        return frozenset()
    names = [part.strip() for part in text.split(",")]
    if "" in names:
        raise LabelError(f"label text has an empty name between commas: {text[:80]!r}; write 'milk, ketchup'")
    labels = frozenset(check_class_name(name) for name in names)
    unknown = sorted(labels - set(classes)) if classes is not None else []
    if classes is not None and unknown:
        raise LabelError(f"unknown class {', '.join(unknown)}; known: {', '.join(classes)}")
    return labels


def label_text(labels: Iterable[str] | None) -> str:
    """Return the text that :func:`parse_labels` reads as ``labels``.

    Example:
        >>> label_text({"milk", "ketchup"}), label_text(()), label_text(None)
        ('ketchup, milk', 'nothing', '')
    """
    return "" if labels is None else ", ".join(sorted(labels)) or NOTHING


def label_vector(labels: Iterable[str], classes: Sequence[str]) -> NDArray[np.float32]:
    """Multi-hot float32 (K,): 1 where the class is in view.

    Raises:
        LabelError: if a label is not in ``classes``.
    """
    vector = np.zeros(len(classes), np.float32)
    for name in labels:
        if name not in classes:
            raise LabelError(f"unknown class {name}; known: {', '.join(classes)}")
        vector[list(classes).index(name)] = 1.0
    return vector


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Colours uint8 (256, 3), RGB: black for background, well-spread hues for ids 1..num_classes, white for 255.

    Hues step by the golden angle, so that neighbouring ids look different however many classes there are.
    """
    import colorsys

    colors = np.zeros((256, 3), np.uint8)
    for index in range(1, min(num_classes, MAX_CLASSES) + 1):
        hue = (0.61803398875 * index) % 1.0
        value = 1.0 - 0.25 * ((index // 3) % 2)
        saturation = 0.9 - 0.3 * ((index // 6) % 2)
        colors[index] = np.round(255 * np.asarray(colorsys.hsv_to_rgb(hue, saturation, value)))
    colors[255] = 255
    return colors


def exposed_before(stamp_ns: int, labels_at_ns: int) -> bool:
    """Whether a frame was exposed shortly before its labels came, and so shows what was in view before.

    Args:
        stamp_ns: of the frame.
        labels_at_ns: when the labels in force came, by the same clock. A frame that is more than two seconds older is
            one of another clock, or of a recording that has begun anew.
    """
    return 0 < labels_at_ns - stamp_ns < _LABEL_LAG_NS
