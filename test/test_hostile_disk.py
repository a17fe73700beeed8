# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The disk fills up while an import, a trainer or a bundle writer is at work. Store: test_store_faults.py."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bag_writing import recording, split_bag, write_bag
from engine_scenes import cam_config, scenes
from rosbags.rosbag2 import CompressionMode

from deal_ros.cli import main
from deal_ros.datasets import bag, bag_scratch
from deal_ros.datasets.store import SampleStore
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
        patch.setattr(os, "fsync", full)
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


# --- import -----------------------------------------------------------------------------------------------------------


def import_bag(recorded: Path, store: Path) -> int:
    return main(["import", str(recorded), "--out", str(store), "--min-interval-s", "0.2", "--progress", "none"])


def contents(store: Path) -> dict[str, bytes]:
    """All that belongs to samples."""
    files = [store / "samples.jsonl", *(item for kind in ("rgb", "depth") for item in (store / kind).iterdir())]
    return {str(file.relative_to(store)): file.read_bytes() for file in files}


def assert_a_whole_beginning(store: Path, straight: Path) -> int:
    """Every line has its files and every file its line, and they are the first of the import that nothing disturbed."""
    if not SampleStore.is_store(store):
        return 0
    with SampleStore.open(store) as opened:
        assert opened.broken_lines == ()
        names = [entry.id for entry in opened.entries()]
        for index in range(len(opened)):
            assert opened[index].size == (48, 64)
    expected = contents(straight)
    found = contents(store)
    assert expected["samples.jsonl"].startswith(found.pop("samples.jsonl"))
    assert sorted(found) == sorted(
        f"{kind}/{name}.{end}" for name in names for kind, end in (("rgb", "jpg"), ("depth", "png"))
    )
    assert all(expected[name] == data for name, data in found.items())
    assert list((store / "incoming").iterdir()) == []
    return len(names)


def test_an_import_goes_on_when_there_is_space_again(tmp_path, disk, capsys) -> None:
    """With ever a little more space: no store, a store without samples, some samples, all of them, and the report."""
    recorded = write_bag(tmp_path / "bag", recording(120))
    straight, store = tmp_path / "straight", disk / "store"
    assert import_bag(recorded, straight) == 0
    ballast = fill(disk)
    stored = [0]
    while len(stored) < 100:
        capsys.readouterr()
        code = import_bag(recorded, store)
        error = capsys.readouterr().err.strip().splitlines()
        stored.append(assert_a_whole_beginning(store, straight))
        assert stored[-1] >= stored[-2]
        if code == 0:
            break
        assert code == 1
        assert len(error) == 2 if "reading rgb" in error[0] else len(error) == 1
        assert error[-1].startswith(f"deal import: {store}")
        assert error[-1].endswith(": the disk is full; free some space, nothing stored is lost")
        os.truncate(ballast, max(0, ballast.stat().st_size - 40_960))
    assert len(stored) > 10
    assert len(set(stored)) > 5
    assert contents(store) == contents(straight)
    assert import_bag(recorded, store) == 0  # it knows that it is complete
    assert "60 already stored" in capsys.readouterr().out


def test_any_write_of_an_import_may_fail(tmp_path, monkeypatch) -> None:
    """The n-th write or sync is refused, alone or with all that follow; the next start goes on to the same end."""
    monkeypatch.setattr(bag, "_COMMIT_SIZE", 2)
    recorded = write_bag(tmp_path / "bag", recording(10))
    straight = tmp_path / "straight"
    assert import_bag(recorded, straight) == 0
    refused = 0
    for name, lasting in itertools.product(("write", "fsync"), (False, True)):
        original = getattr(os, name)
        for failing in range(1, 200):
            calls, store = itertools.count(1), tmp_path / f"{name} {lasting} {failing}"

            def full(*arguments, calls=calls, failing=failing, lasting=lasting, original=original):
                number = next(calls)
                if number == failing or (lasting and number > failing):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return original(*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(os, name, full)
                code = import_bag(recorded, store)
            assert_a_whole_beginning(store, straight)
            assert import_bag(recorded, store) == 0
            assert contents(store) == contents(straight)
            if next(calls) <= failing:  # it came to its end before
                assert code == 0
                break
            assert code == 1
            refused += 1
    assert refused > 60, refused


def cut_database(folder: Path) -> Path:
    """Two files as a recorder splits them, the second cut short: sqlite opens it as a copy only."""
    parts = [write_bag(folder / "a", recording(20), "sqlite3")]
    parts.append(write_bag(folder / "b", recording(200, label=None, first=20), "sqlite3"))
    whole = split_bag(folder / "bag", parts)
    second = sorted(whole.iterdir())[1]
    os.truncate(second, second.stat().st_size * 2 // 3)
    return whole


def packed_bag(folder: Path) -> Path:
    return write_bag(folder / "bag", recording(200), compression=CompressionMode.FILE)


@pytest.mark.parametrize("margin", [bag_scratch._DISK_MARGIN_BYTES, -(1 << 40)], ids=["seen before", "while writing"])
@pytest.mark.parametrize(("make", "end"), [(cut_database, 1), (packed_bag, 0)], ids=["cut sqlite", "zstd"])
def test_no_space_for_a_temporary_copy_is_no_damage_of_the_recording(
    tmp_path, disk, monkeypatch, capsys, make, end, margin
) -> None:
    """Taken for damage it would be noted as imported, and what is behind it never read."""
    recorded, straight, store = make(tmp_path), tmp_path / "straight", tmp_path / "store"
    assert import_bag(recorded, straight) == end  # 1: cut short
    monkeypatch.setattr(bag_scratch, "_DISK_MARGIN_BYTES", margin)
    fill(disk, 40_960)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(disk))
        capsys.readouterr()
        assert import_bag(recorded, store) == 1
    captured = capsys.readouterr()
    assert f"a temporary copy does not fit into {disk} (No space left on device); set TMPDIR" in captured.err
    assert "DAMAGED" not in captured.out
    assert [item.name for item in disk.iterdir()] == ["ballast"]
    monkeypatch.setattr(bag_scratch, "_DISK_MARGIN_BYTES", 0)
    assert import_bag(recorded, store) == end
    assert contents(store) == contents(straight)
