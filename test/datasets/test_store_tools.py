# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from store_frames import frame

from deal_ros.cli import main
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import StoreError
from deal_ros.datasets.store_tools import (
    copy_samples,
    export_tar,
    merge_stores,
    parse_pairs,
    repair,
    select,
    split_sequences,
)


def make(path: Path, classes, frames, **options) -> Path:
    """A store of (number, labels, sequence)."""
    with SampleStore.create(path, classes, image_format="png", **options) as store:
        for number, labels, sequence in frames:
            store.append(frame(number, None if labels is None else frozenset(labels), mask=True), sequence)
    return path


@pytest.fixture
def kitchen(tmp_path) -> Path:
    labels = [{"milk"}, {"ketchup"}, {"milk", "butter"}, set(), None]
    frames = [(number, labels[number % 5], f"kitchen{number // 5}") for number in range(20)]
    return make(tmp_path / "kitchen", ["milk", "ketchup", "butter"], frames)


def test_select(kitchen) -> None:
    with SampleStore.open(kitchen) as store:
        assert len(select(store)) == 20
        assert select(store, classes=["ketchup"]) == [1, 6, 11, 16]
        assert select(store, classes=["ketchup", "butter"], sequences=["kitchen[12]"]) == [6, 7, 11, 12]
        assert select(store, labelled=False) == [4, 9, 14, 19]
        assert len(select(store, labelled=True)) == 16
        with pytest.raises(StoreError, match="unknown class mlik"):
            select(store, classes=["mlik"])


def test_merged_stores_have_all_samples_with_their_classes(tmp_path, kitchen) -> None:
    office = make(tmp_path / "office", ["butter", "stapler"], [(50, {"stapler"}, "office"), (51, {"butter"}, "office")])
    assert merge_stores([kitchen, office], tmp_path / "all") == 22
    assert merge_stores([kitchen, office], tmp_path / "all") == 0  # again: nothing comes twice
    with SampleStore.open(tmp_path / "all") as store:
        assert store.classes == ("milk", "ketchup", "butter", "stapler")
        assert store.counts() == {"milk": 8, "ketchup": 4, "butter": 5, "stapler": 1}
        np.testing.assert_array_equal(store[0].rgb, frame(0).rgb)
        # ids in masks follow the class names: butter was 1 and is 3, stapler was 2 and is 4; 3 was nothing there
        before, after = frame(51, mask=True).mask, store[21].mask
        np.testing.assert_array_equal(after, np.array([0, 3, 4, 255], np.uint8)[before])
        np.testing.assert_array_equal(store[0].mask, frame(0, mask=True).mask)


def test_merging_shares_files_on_the_same_disk(tmp_path, kitchen) -> None:
    merge_stores([kitchen], tmp_path / "all")
    with SampleStore.open(tmp_path / "all") as store:
        assert (store.path / "rgb" / f"{store.sample_id(0)}.png").stat().st_nlink == 2


def test_depth_units_are_converted(tmp_path, kitchen) -> None:
    fine = make(tmp_path / "fine", ["milk"], [(70, {"milk"}, "fine")], depth_unit_m=0.0001)
    merge_stores([kitchen, fine], tmp_path / "all")
    with SampleStore.open(tmp_path / "all") as store:
        np.testing.assert_allclose(store[20].depth_m, frame(70).depth_m, atol=0.0006)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_merging_loses_no_reading_to_a_finer_unit(tmp_path, order) -> None:
    """65535 units of 0.1 mm end at 6.6 m."""
    far, stores = replace(frame(1), depth_m=np.full(frame(1).size, 8.0, np.float32)), []
    for name, unit, sample in (("real", 0.001, far), ("rendered", 0.0001, frame(2))):
        with SampleStore.create(tmp_path / name, ["milk"], depth_unit_m=unit) as store:
            store.append(sample, name)
        stores.append(tmp_path / name)
    assert merge_stores([stores[i] for i in order], tmp_path / "all") == 2
    with SampleStore.open(tmp_path / "all") as store:
        assert float(max(sample.depth_m.max() for sample in store)) == 8
    with pytest.raises(StoreError, match=r"units of 0.001 m, .* of 0.0001 m, where far readings do not fit"):
        merge_stores([stores[0]], stores[1])


def test_samples_without_a_stamp_are_told_apart_by_their_images(tmp_path) -> None:
    stores = []
    for number in range(2):
        with SampleStore.create(tmp_path / str(number), ["milk"], image_format="png") as store:
            store.append(replace(frame(number), stamp_ns=0))
        stores.append(tmp_path / str(number))
    assert merge_stores(stores, tmp_path / "all") == 2
    assert merge_stores(stores, tmp_path / "all") == 0


def test_a_split_never_cuts_a_sequence(kitchen) -> None:
    with SampleStore.open(kitchen) as store:
        for seed in range(5):
            parts = split_sequences(store, {"train": 0.7, "val": 0.3}, seed)
            assert sorted(parts["train"] + parts["val"]) == list(range(20))
            assert len(parts["train"]) in (10, 15)
            names = {part: {store.sequence(index) for index in indices} for part, indices in parts.items()}
            assert not names["train"] & names["val"]
        assert split_sequences(store, {"a": 1, "b": 1}, 3) == split_sequences(store, {"a": 5, "b": 5}, 3)
        assert all(split_sequences(store, {"a": 97, "b": 1, "c": 1, "d": 1}).values())
        with pytest.raises(StoreError, match="has 4 sequences, needs at least 5"):
            split_sequences(store, dict.fromkeys("abcde", 1.0))
        with pytest.raises(StoreError, match="positive shares"):
            split_sequences(store, {"a": 0})


def test_relabel_renames_joins_and_drops(tmp_path, kitchen) -> None:
    rename = {"ketchup": "milk", "butter": ""}
    with SampleStore.open(kitchen) as source, SampleStore.create(tmp_path / "new", ["milk"]) as target:
        copy_samples(source, target, rename=rename)
        assert target.counts() == {"milk": 12}
        assert target.labels(3) == frozenset()
        assert target.labels(4) is None
        np.testing.assert_array_equal(target[2].mask, np.array([0, 1, 1, 0], np.uint8)[source[2].mask])
        with pytest.raises(StoreError, match="unknown class juice"):
            copy_samples(source, target, rename={"juice": "milk"})


def test_export(tmp_path, kitchen) -> None:
    with SampleStore.open(kitchen) as store:
        files = export_tar(store, tmp_path / "tars", samples_per_file=8)
        assert [path.name for path in files] == ["00000.tar", "00001.tar", "00002.tar"]
        with tarfile.open(files[1]) as archive:
            names = archive.getnames()
            assert len(names) == 8 * 4
            line = json.loads(archive.extractfile(f"{store.sample_id(8)}.json").read())
            assert line["sequence"] == "kitchen1"
            data = archive.extractfile(f"{store.sample_id(8)}.rgb.png").read()
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            np.testing.assert_array_equal(image, store[8].rgb)
        with pytest.raises(StoreError, match="empty folder"):
            export_tar(store, tmp_path / "tars")


def test_repair_sweeps_orphans_and_drops_what_is_missing(kitchen) -> None:
    with SampleStore.open(kitchen) as store:
        names = [entry.id for entry in store.entries()]
    (kitchen / "rgb" / "orphan.png").write_bytes(b"")
    (kitchen / "depth" / f"{names[3]}.png").unlink()
    (kitchen / "rgb" / f"{names[5]}.png").write_bytes(b"\x89PNG rubbish")
    lines = (kitchen / "samples.jsonl").read_bytes().splitlines(keepends=True)
    lines[7] = b"\xff\xfe not json\n"
    (kitchen / "samples.jsonl").write_bytes(b"".join(lines))
    report = repair(kitchen)
    assert len(report.dropped) == 1
    assert len(report.broken_lines) == 1
    assert "rgb/orphan.png" in report.orphans
    assert (kitchen / "removed" / "rgb" / "orphan.png").is_file()
    assert (kitchen / "removed" / "rgb" / f"{names[7]}.png").is_file(), "what a broken line named can be had again"
    former = next((kitchen / "removed").glob("samples.*.jsonl")).read_bytes()
    assert former == b"".join(lines)
    assert len(repair(kitchen, decode=True).dropped) == 1
    again = repair(kitchen, decode=True)
    assert (again.orphans, again.dropped, again.broken_lines) == ((), (), ())
    with SampleStore.open(kitchen) as store:
        assert [entry.id for entry in store.entries()] == [n for k, n in enumerate(names) if k not in (3, 5, 7)]
        assert len([store[index] for index in range(len(store))]) == 17


def test_repair_changes_nothing_where_the_list_of_classes_has_lost_a_name(kitchen) -> None:
    header = json.loads((kitchen / "store.json").read_text())
    lost, header["classes"] = header["classes"][-1], header["classes"][:-1]
    (kitchen / "store.json").write_text(json.dumps(header))
    before = {path: path.read_bytes() for path in kitchen.rglob("*") if path.is_file() and path.suffix != ".npz"}
    with pytest.raises(StoreError, match=f"store.json lacks .*unknown class '{lost}'.*nothing has been changed"):
        repair(kitchen)
    assert {path: path.read_bytes() for path in before} == before


def test_repair_drops_nothing_that_cannot_be_read_now(kitchen, monkeypatch) -> None:
    real = os.open

    def failing(path, *arguments, **options):
        if str(path).endswith(".png") and "rgb" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(StoreError, match="Input/output error"):
        repair(kitchen, decode=True)
    monkeypatch.undo()
    assert not repair(kitchen, decode=True).dropped


def test_command_line(tmp_path, kitchen, capsys) -> None:
    def deal(*arguments) -> str:
        assert main(["store", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    assert "samples: 20" in deal("info", kitchen)
    assert json.loads(deal("info", kitchen, "--json"))["classes"] == {"milk": 8, "ketchup": 4, "butter": 4}
    deal("split", kitchen, "--parts", "train=0.75,val=0.25", "--out", tmp_path / "split")
    assert json.loads(deal("info", tmp_path / "split" / "val", "--json"))["samples"] == 5
    deal("filter", kitchen, "--classes", "ketchup", "--out", tmp_path / "ketchup")
    assert json.loads(deal("info", tmp_path / "ketchup", "--json"))["samples"] == 4
    out = json.loads(deal("relabel", kitchen, "--rename", "ketchup=sauce,butter=", "--out", tmp_path / "r", "--json"))
    assert out["classes"] == {"milk": 8, "sauce": 4}
    deal("merge", tmp_path / "ketchup", tmp_path / "split" / "val", "--out", tmp_path / "m")
    assert len(json.loads(deal("export", tmp_path / "m", "--out", tmp_path / "t", "--json"))["files"]) == 1
    assert "samples: 18" in deal("undo", kitchen, "--count", "2")
    deal("repair", kitchen)
    assert main(["store", "info", str(tmp_path / "nothing")]) == 1
    assert "not a sample store" in capsys.readouterr().err
    assert main(["store", "split", str(kitchen), "--parts", "train", "--out", str(tmp_path / "s2")]) == 1
    assert "--parts must be like" in capsys.readouterr().err


def test_pairs() -> None:
    with pytest.raises(StoreError, match="must be like"):
        parse_pairs("a", "x")
