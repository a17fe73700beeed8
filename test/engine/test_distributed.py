# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Two gloo processes give what one process with the same global batch gives, in every stage."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deal_ros.engine.checkpoint import load_checkpoint
from deal_ros.engine.distributed import Ranks, alone, choose_device
from deal_ros.engine.label_folder import read_map
from deal_ros.engine.run_folder import read_metrics, read_result

SCRIPT = Path(__file__).with_name("distributed_run.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same stages by one process and by two."""
    folder = tmp_path_factory.mktemp("ranks")
    subprocess.run([sys.executable, str(SCRIPT), str(folder / "one")], check=True, timeout=280)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    peers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder / "two")],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [peer.wait(timeout=280) for peer in peers] == [0, 0]
    finally:
        for peer in peers:
            peer.kill()
    return folder


@pytest.mark.parametrize("stage", ["timm", "weaktr", "seam", "student"])
def test_two_ranks_train_like_one(runs, stage):
    one, two = (load_checkpoint(runs / n / stage / "last.safetensors").tensors["network"] for n in ("one", "two"))
    assert one.keys() == two.keys()
    moved = max(float((one[key] - two[key]).abs().max()) for key in one if one[key].is_floating_point())
    assert moved < 2e-4
    first, second = (read_metrics(runs / n / stage) for n in ("one", "two"))
    for a, b in zip(first, second, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-3, abs=1e-4)
        if "lambda" in a:
            assert a["lambda"] == pytest.approx(b["lambda"], rel=2e-2)


@pytest.mark.parametrize(("folder", "maps"), [("labels", 10), ("corrected", 9), ("checked", 9)])
def test_two_ranks_share_the_labelling(runs, folder, maps):
    names = [sorted(p.name for p in (runs / n / folder).glob("*.png")) for n in ("one", "two")]
    assert names[0] == names[1]
    assert len(names[0]) == maps
    differing = [
        np.mean(read_map(runs / "one" / folder / name, 3) != read_map(runs / "two" / folder / name, 3))
        for name in names[0]
    ]
    assert np.mean(differing) < 0.01


def test_two_ranks_agree_on_what_was_corrected(runs):
    one, two = (read_result(runs / n / "corrected") for n in ("one", "two"))
    assert one["taught"] == two["taught"] == ["milk", "ketchup", "butter"]
    assert one["changed"] == two["changed"] == 3
    assert one["fractions"] == pytest.approx(two["fractions"], abs=0.01)
    mixed = [f"s{number:03d}.png" for number in (6, 7, 8)]
    for name in mixed:
        first, last = (read_map(runs / "two" / folder / name, 3) for folder in ("mixed", "corrected"))
        assert np.any(first != last)


def test_two_ranks_measure_what_one_measures(runs):
    one, two = (read_result(runs / n / "figures") for n in ("one", "two"))
    for stage in ("labels", "student"):
        assert one[stage]["samples"] == two[stage]["samples"] == 10
        assert one[stage]["miou"] == pytest.approx(two[stage]["miou"], abs=0.02)
    assert one["student"]["label_recovery"] == pytest.approx(two["student"]["label_recovery"], abs=0.05)
    assert one["cam"]["curve"] == pytest.approx(two["cam"]["curve"], abs=0.02)
    assert one["cam"]["swept"]["contour_f"] == pytest.approx(two["cam"]["swept"]["contour_f"], abs=0.05)


def test_shares_cover_everything_once():
    ranks = [Ranks(rank, 3, torch.device("cpu")) for rank in range(3)]
    assert sorted(i for r in ranks for i in r.share(10)) == list(range(10))
    assert [r.first for r in ranks] == [True, False, False]


def test_alone_is_alone():
    ranks = alone("cpu")
    assert ranks.means({"a": 2.0}) == {"a": 2.0}
    assert ranks.any(True) is True
    assert ranks.total(torch.ones(2)).tolist() == [1, 1]
    ranks.barrier()


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match="device must be auto, cpu"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device must be"):
            choose_device("cuda:0")
