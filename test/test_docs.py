# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The pages for people name what exists: messages, launch files, parameters, files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from deal_ros.ros.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])


def spoken() -> str:
    """Every text that the package can say, and its logs: constants, also the fixed parts of f-strings."""
    texts = []
    for path in (ROOT / "deal_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_symptoms_quote_messages_that_exist():
    page = (ROOT / "docs" / "when_something_is_wrong.md").read_text()
    symptoms = [line.split("|")[1] for line in page.splitlines() if line.startswith("| **")]
    quotes = [quote for symptom in symptoms for quote in re.findall(r'\*\*"([^"]+)"\*\*', symptom)]
    assert len(quotes) >= 8
    said = spoken()
    assert not [quote for quote in quotes if quote not in said]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"https?:|mailto:", target):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_launch_files_and_paths_exist(page):
    text = page.read_text()
    for name in re.findall(r"ros2 launch deal_ros (\S+)", text):
        if name.endswith(".launch.py"):
            assert (ROOT / "launch" / name).is_file(), name
    for path in re.findall(r"`((?:config|scripts|docs|test|benchmarks|docker|models|launch|examples)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_parameters_that_pages_name_exist():
    rows = {row.name for table in TABLES.values() for row in table}
    for page in ("on_your_robot.md", "when_something_is_wrong.md"):
        text = (ROOT / "docs" / page).read_text()
        named = set(re.findall(r"`((?:min|max|slop|quota|undo|stall|warn)_\w+|\w+_folder|niceness|threads)`", text))
        assert named <= rows, named - rows
