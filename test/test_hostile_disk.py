# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The disk fills up while a trainer or a bundle writer is at work. Store: test/datasets/test_store_faults.py."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_scenes import cam_config, scenes

from deal_ros.engine import checkpoint
from deal_ros.engine.checkpoint import load_checkpoint
from deal_ros.engine.run_folder import read_metrics, read_result
from deal_ros.engine.train_cam import train_cam
from deal_ros.students import BundleError, BundleSpec, create_student, read_bundle, write_bundle


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all space but ``leave`` bytes; removing the file gives it back."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, max(0, ballast.stat().st_size - leave))
    return ballast


def assert_same(one: Path, other: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        left, right = load_checkpoint(one / name).tensors, load_checkpoint(other / name).tensors
        for group in left:
            for key, value in left[group].items():
                assert torch.equal(value, right[group][key]), (name, key)
    assert [record["step"] for record in read_metrics(one)] == [record["step"] for record in read_metrics(other)]


@pytest.mark.parametrize("leave", [0, 20_000])
def test_a_disk_that_fills_up_in_training_costs_no_step_before_the_checkpoint(tmp_path, disk, leave) -> None:
    """Without space even a line of metrics fails; with little, the checkpoint does."""
    config = cam_config(steps=8)
    train_cam(scenes(8), tmp_path / "straight", config)
    ballast = []

    def full_at_four(progress) -> None:
        if progress.done == 4:
            ballast.append(fill(disk, leave))

    with pytest.raises(OSError, match=r"[Nn]o space left"):
        train_cam(scenes(8), disk / "run", config, on_progress=full_at_four)
    assert load_checkpoint(disk / "run" / "last.safetensors").state["step"] == 3
    assert read_result(disk / "run") is None
    with pytest.raises(OSError, match=r"[Nn]o space left"):  # trying again does no harm
        train_cam(scenes(8), disk / "run", config)
    ballast[0].unlink()
    train_cam(scenes(8), disk / "run", config)
    assert_same(tmp_path / "straight", disk / "run")


@pytest.mark.parametrize("failing", range(1, 9))
def test_any_sync_of_a_training_may_fail(tmp_path, monkeypatch, failing) -> None:
    """The n-th write is refused as by a full disk; the next start goes on to the same end."""
    config = cam_config(steps=4)
    train_cam(scenes(6), tmp_path / "straight", config)
    calls, sync = [0], os.fsync

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", full)
        with contextlib.suppress(OSError):
            train_cam(scenes(6), tmp_path / "run", config)
    assert calls[0] >= failing
    train_cam(scenes(6), tmp_path / "run", config)
    assert_same(tmp_path / "straight", tmp_path / "run")
    assert list((tmp_path / "run").glob(".*")) == []


def test_a_full_disk_keeps_the_old_bundle_and_takes_the_new_one_when_there_is_space(disk) -> None:
    student = create_student("light", 2, weights="none", encoder="test_efficientnet", channels=8).eval()

    def spec(miou: float) -> BundleSpec:
        return BundleSpec(("milk", "ketchup"), (64, 96), metrics={"miou": miou})

    folder = write_bundle(disk / "bundle", student, spec(0.5))
    for leave in (0, 10_000, 100_000):
        ballast = fill(disk, leave)
        with pytest.raises(BundleError, match=r"No space left.*free the disk"):
            write_bundle(folder, student, spec(0.6), overwrite=True)
        assert read_bundle(folder)[1].metrics == {"miou": 0.5}
        assert sorted(item.name for item in disk.iterdir()) == ["ballast", "bundle"]
        ballast.unlink()
    write_bundle(folder, student, spec(0.7), overwrite=True)
    assert read_bundle(folder)[1].metrics == {"miou": 0.7}
