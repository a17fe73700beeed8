# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Arguments that several verbs share, and how they become configs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from deal_ros.cli import UsageError
from deal_ros.config import load_yaml
from deal_ros.installed import recipe_file


def add_stage_arguments(parser: argparse.ArgumentParser, section: str, example: str = "optimization.steps=500") -> None:
    """Add what every training verb has: a recipe to take settings from, single settings, device, progress."""
    from deal_ros.cli.reporting import add_progress_argument

    parser.add_argument(
        "--recipe",
        type=recipe_file,
        metavar="RECIPE",
        help=f"recipe (a file, or robot, voc_weaktr, …) whose {section} section gives the settings",
    )
    add_set_argument(parser, example)
    add_device_argument(parser)
    add_progress_argument(parser)


def add_set_argument(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``--set KEY=VALUE``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"change one setting, dots between levels, YAML value: --set {example}; may be repeated",
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1; default: auto"
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--data PATH``, ``--split NAME`` and ``--option KEY=VALUE``."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="sample store, VOC, COCO, BOP, …")
    parser.add_argument("--split", metavar="NAME", help="split of data sets that have some: train, val2014, …")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="further option of the data set's layout, for example depth_kind=none or scenario=tabletop",
    )


def open_data(path: Path, split: str | None = None, options: list[str] | None = None) -> Any:
    """Open a data set of any known layout."""
    from deal_ros.datasets import open_dataset

    chosen: dict[str, Any] = {"split": split} if split else {}
    apply_changes(chosen, options or [], "--option")
    return open_dataset(path, **chosen)


def section_settings(recipe: Path | None, section: str, changes: list[str]) -> dict[str, Any]:
    """Return the settings of one section of a recipe (none without a recipe), with single ones changed."""
    values: dict[str, Any] = {}
    if recipe is not None:
        found = load_yaml(recipe).get(section, {})
        if not isinstance(found, dict):
            raise UsageError(f"{recipe}: {section} must be a mapping, got {found!r}")
        values = found
    apply_changes(values, changes)
    return values


def apply_changes(values: dict[str, Any], changes: list[str], name: str = "--set") -> None:
    """Apply ``a.b.c=value`` texts to nested mappings, in place.

    Raises:
        UsageError: if a text has no ``=``, its value is not YAML, or its path leads through something else.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise UsageError(f"{name} must be KEY=VALUE, got {change!r}; for example {name} split=train")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{name} {path}: value must be YAML, got {text!r}: {error}") from error
        *groups, key = path.split(".")
        target = values
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise UsageError(f"{name} {path}: {group!r} is no group of settings")
        target[key] = value
