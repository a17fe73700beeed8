# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bag_writing import SECOND, START, recording, write_bag

from deal_ros.cli import main
from deal_ros.datasets.store import SampleStore


@pytest.fixture
def bag(tmp_path) -> Path:
    return write_bag(tmp_path / "monday", recording(20))


def test_a_bag_becomes_a_store(tmp_path, bag, capsys) -> None:
    assert main(["import", str(bag), "--out", str(tmp_path / "store"), "--progress", "none"]) == 0
    out = capsys.readouterr().out
    assert "4 samples" in out
    assert "rgb          /rgb/image" in out
    assert "20 frames, 20 paired" in out
    assert "16 too soon" in out
    assert "█" in out
    with SampleStore.open(tmp_path / "store") as store:
        assert store.counts() == {"milk": 4}


def test_programs_get_json(tmp_path, bag, capsys) -> None:
    arguments = ["import", str(bag), "--out", str(tmp_path / "store"), "--label", "butter, milk", "--json"]
    assert main([*arguments, "--progress", "json", "--min-interval-s", "0"]) == 0
    *progress, result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert progress[-1]["done"] == progress[-1]["total"] > 0
    assert result["samples"] == 20
    assert result["classes"] == {"butter": 20, "milk": 20}
    assert result["bags"][0]["frames"] == {"stored": 20}
    assert main(["import", str(bag), "--out", str(tmp_path / "store"), "--json", "--progress", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 20


def test_class_order_is_the_users(tmp_path, bag) -> None:
    store = str(tmp_path / "store")
    assert main(["import", str(bag), "--out", store, "--classes", "ketchup, milk", "--progress", "none"]) == 0
    with SampleStore.open(store) as opened:
        assert opened.classes == ("ketchup", "milk")


def test_damage_is_exit_code_one_and_keeps_what_there_is(tmp_path, capsys) -> None:
    bag = write_bag(tmp_path / "bag", recording(300))
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-100_000])
    assert main(["import", str(bag), "--out", str(tmp_path / "store"), "--progress", "bar"]) == 1
    captured = capsys.readouterr()
    assert "DAMAGED" in captured.out
    assert "import:" in captured.err  # the bar
    with SampleStore.open(tmp_path / "store") as store:
        assert len(store) > 10


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--label", "milk", "--labels", "x.yaml"], 2, "not allowed with"),
        (["--label", "../up"], 1, "class name must be"),
        (["--labels", "missing.yaml"], 2, "cannot be read"),
        (["--rgb", "/nothing"], 1, "no topic '/nothing' for rgb"),
        (["--slop-ms", "-3"], 1, "slop_ms must be in"),
    ],
)
def test_misuse_is_explained_in_one_line(tmp_path, bag, capsys, arguments, code, message) -> None:
    found = main(["import", str(bag), "--out", str(tmp_path / "store"), "--progress", "none", *arguments])
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert found == code


def test_unpaired_streams_get_advice(tmp_path, bag, capsys) -> None:
    assert main(["import", str(bag), "--out", str(tmp_path / "store"), "--slop-ms", "1", "--progress", "none"]) == 1
    assert "nearest stamps are +3.0 ms apart" in capsys.readouterr().out


def test_torchrun_shares_the_bags_and_the_stores_merge(tmp_path) -> None:
    bags = [str(write_bag(tmp_path / f"b{k}", recording(6, start=START + k * 99 * SECOND))) for k in range(3)]
    command = [sys.executable, "-m", "deal_ros.cli", "import", *bags, "--out", str(tmp_path / "out"), "--progress=none"]
    for rank in range(2):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
    shards = [str(tmp_path / "out" / f"shard-{rank}-of-2") for rank in range(2)]
    assert main(["store", "merge", *shards, "--out", str(tmp_path / "whole")]) == 0
    with SampleStore.open(tmp_path / "whole") as store:
        assert {store.sequence(index) for index in range(len(store))} == {"b0", "b1", "b2"}


@pytest.mark.timeout(240)
def test_an_import_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path) -> None:
    rng = random.Random(2)
    bag = write_bag(tmp_path / "bag", recording(400))
    out = tmp_path / "store"
    options = ["--min-interval-s", "0.2", "--progress", "none"]
    command = [sys.executable, "-m", "deal_ros.cli", "import", str(bag), "--out", str(out), *options]
    kills = 0
    for _ in range(6):
        with subprocess.Popen(
            [*command, "--progress", "none"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as p:
            before = len(list((out / "rgb").glob("*"))) if out.exists() else 0
            while p.poll() is None and len(list((out / "rgb").glob("*"))) <= before + rng.randrange(20):
                time.sleep(0.002)
            kills += p.poll() is None
            p.kill()
        with SampleStore.open(out) as store:
            for index in range(len(store)):
                assert store[index].size == (48, 64)
    assert kills >= 3
    assert main(["import", str(bag), "--out", str(out), *options]) == 0
    straight = tmp_path / "straight"
    assert main(["import", str(bag), "--out", str(straight), *options]) == 0
    assert (out / "samples.jsonl").read_bytes() == (straight / "samples.jsonl").read_bytes()
