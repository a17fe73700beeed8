# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The plug pulled, the disk full, files damaged or made to do harm: a line of the index means a whole sample."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from store_frames import CLASSES, frame

from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import StoreError

WRITER = """
import sys
from store_frames import CLASSES, frame
from deal_ros.datasets.store import SampleStore
store = SampleStore.open_or_create(sys.argv[1], CLASSES, image_format="png")
for turn in range(1, 100_000):
    print(store.append(frame(len(store))), flush=True)
    if turn % 7 == 0:
        for name in store.undo(2):
            print("-" + name, flush=True)
"""


def assert_whole(path: Path) -> list[str]:
    """Every line has its files, and every file its line; returns the ids."""
    with SampleStore.open(path) as store:
        names = [entry.id for entry in store.entries()]
        for index in range(len(store)):
            expected = frame(index)
            np.testing.assert_array_equal(store[index].rgb, expected.rgb)
            np.testing.assert_array_equal(store[index].depth_m, expected.depth_m)
        assert store.broken_lines == ()
        assert store.counts()["milk"] == len(store)
    for kind in ("rgb", "depth"):
        assert sorted(item.stem for item in (path / kind).iterdir()) == sorted(names)
    assert list((path / "incoming").iterdir()) == []
    return names


@pytest.mark.timeout(240)
def test_sigkill_at_random_moments_loses_nothing(tmp_path) -> None:
    rng = random.Random(11)
    path = tmp_path / "store"
    count = 0
    for _ in range(20):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            confirmed: list[str] = [process.stdout.readline()]  # it runs
            reader = threading.Thread(target=confirmed.extend, args=(process.stdout,))
            reader.start()
            time.sleep(rng.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            reader.join()
        for line in confirmed:
            count += -1 if line.startswith("-") else 1
        names = assert_whole(path)
        # An undo of two may have been done and not yet said, or an append.
        appended = sum(not line.startswith("-") for line in confirmed)
        undoing = appended % 7 == 0 or confirmed[-1].startswith("-")
        assert count - 2 * undoing <= len(names) <= count + 1
        count = len(names)
    assert count >= 10


def test_every_moment_of_an_append_is_safe(tmp_path) -> None:
    """Stop dead before each system call of an append, one after the other, as a power cut would."""

    calls = ("fsync", "replace", "write", "ftruncate", "link", "unlink")
    for stop_at in range(60):
        path = tmp_path / f"store{stop_at}"
        with SampleStore.create(path, CLASSES, image_format="png") as store:
            for number in range(3):
                store.append(frame(number))
        child = os.fork()
        if child == 0:
            left = [stop_at]

            def patched(name, left=left):
                original = getattr(os, name)

                def call(*args, **options):
                    if left[0] == 0:
                        os._exit(9)
                    left[0] -= 1
                    return original(*args, **options)

                return call

            store = SampleStore.open(path, writable=True)
            for name in calls:
                setattr(os, name, patched(name))
            store.append(frame(3))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        names = assert_whole(path)
        assert len(names) in (3, 4)
        if os.waitstatus_to_exitcode(status) == 0:
            assert len(names) == 4
            break
    else:
        pytest.fail("the append never came to its end")
    assert stop_at > 5


@pytest.mark.parametrize("partial", [0, 10])
@pytest.mark.parametrize("failing", range(1, 9))
def test_a_full_disk_loses_nothing_and_capture_goes_on(tmp_path, monkeypatch, failing, partial) -> None:
    """The n-th write fails, after some bytes, as on a full disk."""
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES, image_format="png") as store:
        store.append(frame(0))
        calls, write = [0], os.write

        def full(descriptor, data):
            calls[0] += 1
            if calls[0] >= failing:
                if partial:
                    write(descriptor, bytes(data)[:partial])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for _ in range(3):
                if failing <= 3:
                    with pytest.raises(StoreError, match="the disk is full; free some space, nothing stored is lost"):
                        store.append(frame(1))
        while len(store) < 3:
            store.append(frame(len(store)))
    assert len(assert_whole(path)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_real_file_size_limit(tmp_path) -> None:
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES, image_format="png") as store:
        store.append(frame(0))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = SampleStore.open(path, writable=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))
        try:
            store.append(frame(1))
        except StoreError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            store.append(frame(1))
            os._exit(0 if "disk is full" in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(assert_whole(path)) == 2


def tmpfs(folder: Path) -> bool:
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return mount.returncode == 0


def fill(store: SampleStore) -> None:
    for number in range(1000):
        store.append(frame(number))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk(tmp_path) -> None:
    disk = tmp_path / "disk"
    if not tmpfs(disk):
        pytest.skip("this container may not mount a tmpfs")
    try:
        path, ballast = disk / "store", disk / "ballast"
        ballast.write_bytes(bytes(60_000))
        with SampleStore.create(path, CLASSES, image_format="png") as store:
            with pytest.raises(StoreError, match="the disk is full"):
                store.append_encoded([store.encode(frame(number)) for number in range(3)] * 100)
            assert len(store) == 0
            with pytest.raises(StoreError, match="the disk is full"):
                fill(store)
            before = len(store)
            assert before > 3
            ballast.unlink()
            store.append(frame(before))
        assert len(assert_whole(path)) == before + 1
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_torn_last_line_is_cut(tmp_path) -> None:
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES, image_format="png") as store:
        for number in range(3):
            store.append(frame(number))
    index = path / "samples.jsonl"
    whole = index.read_bytes()
    for cut in (1, 40, 200):
        index.write_bytes(whole + whole.splitlines(keepends=True)[0][:-cut])
        with SampleStore.open(path) as store:
            assert len(store) == 3
        with SampleStore.open(path, writable=True):
            pass
        assert index.read_bytes() == whole
    index.write_bytes(whole + b"\0" * 4096)  # what some file systems leave after a power cut
    with SampleStore.open(path, writable=True) as store:
        store.append(frame(3))
    assert len(assert_whole(path)) == 4


def test_a_broken_line_in_the_middle_costs_one_sample(tmp_path) -> None:
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES) as store:
        for number in range(5):
            store.append(frame(number))
    index = path / "samples.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"labels"', b'"lab\xffls"')
    lines[3] = lines[3].replace(b'"milk"', b'"mlik"')
    index.write_bytes(b"".join(lines))
    with SampleStore.open(path, writable=True) as store:
        assert len(store) == 3
        assert len(store.broken_lines) == 2
        assert "unknown class 'mlik'" in store.broken_lines[1]
        store.append(frame(9))
    with SampleStore.open(path) as store:
        assert [store[index].stamp_ns - 1_000_000_000 for index in range(4)] == [0, 1, 4, 9]


def test_the_cache_is_never_believed_blindly(tmp_path) -> None:
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES) as store:
        for number in range(6):
            store.append(frame(number), sequence=f"run{number % 2}")
        store.save_cache()
        for number in range(6, 8):
            store.append(frame(number, frozenset({"butter"})))
    cache, index = path / "index.npz", path / "samples.jsonl"

    def check() -> None:
        with SampleStore.open(path) as store:
            assert len(store) == 8
            assert store.counts() == {"milk": 6, "ketchup": 0, "butter": 2}
            assert store.sequence(3) == "run1"
            assert store[7].stamp_ns == 1_000_000_007

    check()
    good, rng = cache.read_bytes(), random.Random(3)
    for _ in range(200):
        data = bytearray(good)
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cache.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        check()
    cache.write_bytes(good)
    lines = index.read_bytes().replace(b'"run1"', b'"run7"', 1)
    index.write_bytes(lines)
    with SampleStore.open(path) as store:
        assert store.sequence(1) == "run7"


@pytest.mark.parametrize("kind", ["rgb", "depth"])
def test_links_out_of_the_store_are_not_followed(tmp_path, kind) -> None:
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES, image_format="png") as store:
        name = store.append(frame(0))
    secret = tmp_path / "secret.png"
    secret.write_bytes((path / kind / f"{name}.png").read_bytes())
    (path / kind / f"{name}.png").unlink()
    (path / kind / f"{name}.png").symlink_to(secret)
    with SampleStore.open(path) as store, pytest.raises(StoreError, match="cannot be read"):
        store[0]
    (path / kind).rename(tmp_path / "moved")
    (path / kind).symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="must lie within the store"):
        SampleStore.open(path)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/b", "", ".", "..", "a" * 200, "a\u0000b", "-rf", "a.json/x"]
)
def test_ids_cannot_leave_the_store(tmp_path, name) -> None:
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES) as store:
        store.append(frame(0))
    index = path / "samples.jsonl"
    values = json.loads(index.read_bytes())
    index.write_text(json.dumps({**values, "id": name}) + "\n")
    (path / "incoming" / "x.json").write_text(json.dumps([name, "../../victim"]))
    victim = tmp_path / "victim.jpg"
    victim.touch()
    with SampleStore.open(path, writable=True) as store:
        assert len(store) == 0
        assert "unusable id" in store.broken_lines[0]
    assert victim.exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[]", "this is not a sample store"),
        ("{", "cannot be used"),
        ('{"format": "deal_ros sample store", "version": 99}', "version must be 1, got 99; update"),
        ('{"format": "deal_ros sample store", "version": 1}', "cannot be used"),
        ("[" * 100_000, "cannot be used"),
    ],
)
def test_a_damaged_header_is_explained(tmp_path, header, message) -> None:
    path = tmp_path / "store"
    SampleStore.create(path, CLASSES).close()
    (path / "store.json").write_text(header)
    with pytest.raises(StoreError, match=message):
        SampleStore.open(path)


def test_an_endless_line_costs_no_memory(tmp_path) -> None:
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES) as store:
        store.append(frame(0))
    index = path / "samples.jsonl"
    line = index.read_bytes()
    index.write_bytes(line + b"x" * (30 << 20) + b"\n" + line.replace(b'"id":"00000000', b'"id":"00000001'))
    with SampleStore.open(path) as store:
        assert len(store) == 2
        assert any("65536" in message for message in store.broken_lines)


def test_mutated_stores_never_crash(tmp_path) -> None:
    rng = random.Random(4)
    path = tmp_path / "store"
    with SampleStore.create(path, CLASSES, image_format="png") as store:
        for number in range(4):
            store.append(frame(number, mask=True))
    files = [item for item in path.rglob("*") if item.is_file() and item.name != "lock"]
    for _ in range(300):
        item = rng.choice(files)
        good = item.read_bytes()
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        item.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        read_all(path)
        item.write_bytes(good)


def read_all(path: Path) -> None:
    """Open and decode what can be; the only error there may be is a StoreError."""
    with contextlib.suppress(StoreError), SampleStore.open(path) as store:
        for index in range(len(store)):
            with contextlib.suppress(StoreError):
                assert store[index].size == store.entry(index).size
