# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import gc
import json
import os
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_frames import CLASSES, frame

from deal_ros.datasets.base import SampleDataset
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import StoreError
from deal_ros.datasets.store_index import Entry, StoreIndex
from deal_ros.labels import LabelError
from deal_ros.sample import Sample


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def test_a_store_that_nobody_closes_gives_its_descriptors_back(tmp_path):
    with SampleStore.create(tmp_path / "store", CLASSES) as store:
        store.append(frame())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        SampleStore.open(tmp_path / "store")[0]
        SampleStore.open(tmp_path / "store", writable=True)[0]
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_reader_is_told_that_a_sample_was_undone(path) -> None:
    with SampleStore.create(path, CLASSES) as writer:
        writer.append(frame(0))
        writer.append(frame(1))
        with SampleStore.open(path) as reader:
            writer.undo(1)
            with pytest.raises(StoreError, match="sample 1 has been undone since the store was opened"):
                reader[1]


@pytest.mark.parametrize("replacement", [frozenset({"ketchup"}), frozenset({"milk"}), None])
def test_a_reader_never_takes_a_new_sample_for_an_undone_one(path, replacement) -> None:
    with SampleStore.create(path, CLASSES) as writer:
        writer.append(frame(0))
        writer.append(frame(1))
        with SampleStore.open(path) as reader:
            writer.undo(1)
            writer.append(frame(2, replacement))
            assert reader[0].labels == {"milk"}
            with pytest.raises(StoreError, match="sample 1 has been undone since the store was opened"):
                reader[1]
        with SampleStore.open(path) as anew:
            assert anew[1].labels == replacement


def test_after_an_undo_that_could_not_be_synced_the_next_sample_is_stored(path, monkeypatch) -> None:
    with SampleStore.create(path, CLASSES) as store:
        store.append(frame(0))
        store.append(frame(1))
        with monkeypatch.context() as patched:
            real, calls = os.fsync, []

            def failing(descriptor):
                calls.append(descriptor)
                if descriptor == store._file:
                    raise OSError(errno.EIO, "Input/output error")
                real(descriptor)

            patched.setattr(os, "fsync", failing)
            with pytest.raises(StoreError, match="undo failed"):
                store.undo(1)
        assert len(store) == 1
        store.append(frame(2))
        assert store[1].stamp_ns == frame(2).stamp_ns
    with SampleStore.open(path) as store:
        assert [sample.stamp_ns for sample in store] == [frame(0).stamp_ns, frame(2).stamp_ns]


def test_positions_are_counted_from_the_beginning(path) -> None:
    with SampleStore.create(path, CLASSES) as store:
        store.append(frame(0))
        for ask in (store.__getitem__, store.labels, store.sequence):
            with pytest.raises(IndexError):
                ask(-1)


def test_a_sample_comes_back_exactly(path) -> None:
    with SampleStore.create(path, CLASSES, image_format="png") as store:
        for number in range(3):
            store.append(frame(number, mask=number == 1), sequence=f"run{number // 2}")
    with SampleStore.open(path) as store:
        assert isinstance(store, SampleDataset)
        assert len(store) == 3
        assert store.classes == CLASSES
        for number in range(3):
            expected, found = frame(number, mask=number == 1), store[number]
            np.testing.assert_array_equal(found.rgb, expected.rgb)
            np.testing.assert_array_equal(found.depth_m, expected.depth_m)
            np.testing.assert_array_equal(found.camera_matrix, expected.camera_matrix)
            assert (found.mask is None) == (expected.mask is None)
            assert found.mask is None or np.array_equal(found.mask, expected.mask)
            assert (found.labels, found.stamp_ns, found.frame_id, found.source) == (
                expected.labels, expected.stamp_ns, expected.frame_id, expected.source
            )  # fmt: skip
            assert store.sequence(number) == f"run{number // 2}"
        assert [entry.id for entry in store.entries()] == [store.sample_id(number) for number in range(3)]


def test_jpeg_stays_near(path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (48, 1, 3))
    with SampleStore.create(path, CLASSES) as store:
        store.append(Sample(ramp, np.ones((48, 64), np.float32), None))
        assert np.abs(store[0].rgb.astype(int) - ramp).max() <= 3
        assert store.labels(0) is None
        assert (path / "rgb" / f"{store.sample_id(0)}.jpg").is_file()


def test_counts_follow_appends_undo_and_reopening(path) -> None:
    with SampleStore.create(path, CLASSES) as store:
        for number, labels in enumerate([{"milk"}, {"milk", "butter"}, set(), None]):
            store.append(frame(number, None if labels is None else frozenset(labels)))
        assert store.counts() == {"milk": 2, "ketchup": 0, "butter": 1}
        removed = store.undo(3)
        assert len(removed) == 3
        assert store.counts() == {"milk": 1, "ketchup": 0, "butter": 0}
        assert not any((path / "rgb" / f"{name}.jpg").exists() for name in removed)
        again = store.append(frame(9, frozenset({"butter"})))
        assert again not in removed
    with SampleStore.open(path) as store:
        assert store.counts() == {"milk": 1, "ketchup": 0, "butter": 1}
        assert store.labels(1) == {"butter"}
        assert list((path / "incoming").iterdir()) == []
    with SampleStore.open(path, writable=True) as store:
        assert len(store.undo(99)) == 2
        assert store.undo() == []


def test_two_hundred_classes_fit(path) -> None:
    classes = [f"class{number}" for number in range(254)]
    with SampleStore.create(path, classes) as store:
        store.append(frame(0, frozenset({"class0", "class63", "class64", "class253"})))
    with SampleStore.open(path) as store:
        assert store.labels(0) == {"class0", "class63", "class64", "class253"}
        assert store.counts()["class253"] == 1


def test_classes_can_be_added_without_moving_ids(path) -> None:
    with SampleStore.create(path, ["milk"]) as store:
        store.append(frame(0))
    with SampleStore.open_or_create(path, ["ketchup", "milk"]) as store:
        assert store.classes == ("milk", "ketchup")
        store.append(frame(1, frozenset({"ketchup"})))
        assert store.counts() == {"milk": 1, "ketchup": 1}


def test_only_one_writer(path) -> None:
    with SampleStore.create(path, CLASSES):
        with pytest.raises(StoreError, match="another process writes"):
            SampleStore.open(path, writable=True)
        SampleStore.open(path).close()
    SampleStore.open(path, writable=True).close()


def test_workers_get_their_own_store(path) -> None:
    with SampleStore.create(path, CLASSES) as store:
        store.append(frame(0))
        with pickle.loads(pickle.dumps(store)) as copy:  # noqa: S301
            assert len(copy) == 1
            assert not copy.writable


def test_threads_may_share_a_store(path) -> None:
    with SampleStore.create(path, CLASSES, image_format="png") as store:

        def work(first: int) -> None:
            for number in range(first, first + 10):
                store.append(frame(number), sequence=f"thread{first}")
                assert store[len(store) - 1].labels == {"milk"}

        threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.counts()["milk"] == len(store) == 40
        assert len({entry.id for entry in store.entries()}) == 40


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda store: store.append(frame(0, frozenset({"mlik"}))), LabelError, "unknown class mlik; known: milk"),
        (lambda store: store.append(frame(0), sequence="a\nb"), StoreError, "printable"),
        (lambda store: store.append(frame(0), sequence="a" * 257), StoreError, "256"),
        (
            lambda store: store.append(replace(frame(0), source="a" * 70_000)),
            StoreError,
            "line must have at most 65536",
        ),
        (lambda store: store.append(replace(frame(0), stamp_ns=2**63)), StoreError, "64-bit"),
        (lambda store: store.append(replace(frame(0), camera_matrix=np.full((3, 3), np.nan))), StoreError, "finite"),
        (lambda store: store[0], IndexError, "sample 0 of 0"),
        (lambda store: store.add_classes(["../up"]), LabelError, "class name must"),
        (lambda store: SampleStore.create(store.path, CLASSES), StoreError, "empty folder"),
        (lambda store: SampleStore.open(store.path / "rgb"), StoreError, "not a sample store"),
        (lambda store: SampleStore.create("/proc/none/store", CLASSES), StoreError, "cannot be made"),
        (lambda store: SampleStore.create(store.path / "x", CLASSES, image_format="gif"), StoreError, "image_format"),
        (lambda store: SampleStore.create(store.path / "x", CLASSES, depth_unit_m=0), StoreError, "depth_unit_m"),
    ],
)
def test_misuse_is_explained(path, action, error, message) -> None:
    with SampleStore.create(path, CLASSES) as store:
        with pytest.raises(error, match=message):
            action(store)
        store.append(frame(1))
    with SampleStore.open(path) as store:
        assert (len(store), store.broken_lines) == (1, ())


def test_a_reader_cannot_write(path) -> None:
    SampleStore.create(path, CLASSES).close()
    with SampleStore.open(path) as store, pytest.raises(StoreError, match="opened for reading"):
        store.append(frame(0))


def test_depth_unit_is_the_stores(path) -> None:
    sample = Sample(np.zeros((2, 2, 3), np.uint8), np.array([[0.0123, 6.5], [7.0, 0.0]], np.float32))
    with SampleStore.create(path, CLASSES, depth_unit_m=0.0001) as store:
        store.append(sample)
        np.testing.assert_allclose(store[0].depth_m, [[0.0123, 6.5], [0, 0]], rtol=1e-6)
    assert json.loads((path / "store.json").read_text())["depth_unit_m"] == 0.0001


texts = st.text(max_size=20) | st.sampled_from(["kitchen/monday", "", 'quo"te', "back\\slash", "ü", "/camera/color"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.builds(
            Entry,
            id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,20}", fullmatch=True),
            stamp_ns=st.integers(-(2**63), 2**63 - 1),
            labels=st.none() | st.lists(st.sampled_from(CLASSES), unique=True).map(tuple),
            camera_matrix=st.none() | st.tuples(*[st.floats(-1e6, 1e6)] * 9),
            frame_id=texts,
            source=texts,
            sequence=texts,
            rgb=st.sampled_from(["jpg", "png"]),
            size=st.tuples(st.integers(1, 65535), st.integers(1, 65535)),
            mask=st.booleans(),
        ),
        max_size=8,
    )
)
def test_every_line_reads_as_it_was_written_fast_and_slow(tmp_path_factory, entries) -> None:
    lines = [entry.to_line() for entry in entries]
    assert [Entry.from_line(line) for line in lines] == entries
    path = tmp_path_factory.mktemp("index") / "samples.jsonl"
    path.write_bytes(b"".join(lines))
    fast, slow = StoreIndex(CLASSES), StoreIndex(CLASSES)
    descriptor = os.open(path, os.O_RDONLY)
    fast.read(descriptor)
    os.close(descriptor)
    for line in lines:
        slow.add_line(line)
    assert len(fast) == len(slow) == len(entries)
    assert fast.rows.tobytes() == slow.rows.tobytes()
    assert (fast.sequences, fast.end, fast.checksum) == (slow.sequences, slow.end, slow.checksum)
