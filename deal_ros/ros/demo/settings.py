# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How long the demonstration is: the full form and the one for a first look and for CI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoSettings:
    """What is shown, and how much of it.

    Args:
        recipe: name of a training recipe in config/recipes.
        objects: class names to teach, in id order.
        views: samples of each object in each of its two resting poses.
        tables: tables with several objects to teach from.
        table_views: samples of each table.
        shows: tables that were never seen, for the final show.
        show_s: seconds that each of them is shown.
        rate_hz: camera rate.
        size: image height and width in pixels.
    """

    recipe: str
    objects: tuple[str, ...]
    views: int
    tables: int
    table_views: int
    shows: int
    show_s: float
    rate_hz: float = 10.0
    size: tuple[int, int] = (240, 320)


FULL = DemoSettings(
    recipe="demo",
    objects=("milk", "ketchup", "popcorn", "alphabet_soup", "orange_juice", "macaroni_and_cheese"),
    views=20,
    tables=8,
    table_views=20,
    shows=6,
    show_s=6.0,
)
QUICK = DemoSettings(
    recipe="demo_quick",
    objects=("milk", "ketchup", "popcorn", "alphabet_soup"),
    views=8,
    tables=4,
    table_views=8,
    shows=3,
    show_s=3.0,
)
