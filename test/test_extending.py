# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The worked examples of docs/extending.md run as they stand there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def examples() -> dict[str, str]:
    """Title of each section → its Python block, padded so that a traceback gives the page's own line numbers."""
    text, found = PAGE.read_text(encoding="utf-8"), {}
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        title = re.findall(r"^## (.+)$", text[: match.start()], re.MULTILINE)[-1]
        found[title] = "\n" * text[: match.start(1)].count("\n") + match[1]
    return found


def run(title: str, **given: object) -> dict[str, object]:
    names = {"__name__": "__main__", **given}
    exec(compile(examples()[title], str(PAGE), "exec", dont_inherit=True), names)  # noqa: S102 - the page is ours
    return names


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """One thread, and no network left registered."""
    from deal_ros import cams

    monkeypatch.setattr(cams, "CAM_NETWORKS", cams.CAM_NETWORKS)
    known, threads = dict(cams.CAM_NETWORKS), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    cams.CAM_NETWORKS.clear()
    cams.CAM_NETWORKS.update(known)
    torch.set_num_threads(threads)


def test_all_four_are_there():
    assert list(examples()) == ["A data set", "A CAM network", "A loss", "An output topic"]


def test_a_data_set_and_a_cam_network(tmp_path):
    names = run("A data set", folder=tmp_path)
    run("A CAM network", folder=tmp_path, dataset=names["dataset"])


def test_a_loss():
    run("A loss")


@pytest.mark.ros
def test_an_output_topic():
    pytest.importorskip("rclpy")
    run("An output topic", domain_id=70 + os.getpid() % 25)
