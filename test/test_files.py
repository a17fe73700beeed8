# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is written is whole, or as it was before."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from deal_ros.files import replace_file, replacing, write_file, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_disk_that_refuses_leaves_the_file_before_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "note.json"
    replace_file(path, "old")

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="No space"):
            replace_file(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.json"]


def test_a_writer_that_fails_leaves_the_file_before(tmp_path):
    path = tmp_path / "weights"
    replace_file(path, b"old")
    with pytest.raises(TypeError), replacing(path) as partial:
        partial.write_bytes("no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["weights"]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    path = tmp_path / "weights"
    with replacing(path) as partial:
        pass_over = partial
        partial.write_bytes(b"a")
    pass_over.write_bytes(b"left by a writer that was killed")
    replace_file(path, b"b")
    assert path.read_bytes() == b"b"
    assert names(tmp_path) == ["weights"]


def test_shared_writers_do_not_meet(tmp_path):
    path, texts = tmp_path / "cache", [str(number) * 50_000 for number in range(8)]

    def write(text: str) -> None:
        with replacing(path, shared=True, synced=False) as partial:
            for begin in range(0, len(text), 1000):
                with partial.open("a") as file:
                    file.write(text[begin : begin + 1000])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, texts))
    assert path.read_text() in texts
    assert names(tmp_path) == ["cache"]


def test_a_link_in_the_way_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("of somebody else")
    (tmp_path / "link").symlink_to(other)
    with pytest.raises(OSError):
        write_file(tmp_path / "link", b"x")
    assert other.read_text() == "of somebody else"


def test_json_says_what_it_can(tmp_path):
    values = {
        "tensor": torch.tensor(2.0),
        "count": np.int64(3),
        "none": float("nan"),
        "worst": np.float32("inf"),
        "pair": (1, "é"),
        "path": Path("a/b"),
        4: True,
    }
    write_json(tmp_path / "new" / "values.json", values)
    text = (tmp_path / "new" / "values.json").read_text(encoding="utf-8")
    expected = {"tensor": 2.0, "count": 3, "none": None, "worst": None, "pair": [1, "é"], "path": "a/b", "4": True}
    assert json.loads(text) == expected
    assert "é" in text
