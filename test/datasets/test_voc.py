# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import pickle
import shutil

import cv2
import numpy as np
import pytest

from deal_ros.datasets import DatasetError, SampleDataset, VocDataset
from deal_ros.datasets.image_files import DepthMaps, read_ids
from deal_ros.datasets.miniature import write_voc


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"), per_split=4)


@pytest.fixture
def voc(original, tmp_path):
    return shutil.copytree(original, tmp_path / "VOCdevkit" / "VOC2012")


def test_samples_have_everything(voc):
    dataset = VocDataset(voc.parent.parent, "train")
    assert isinstance(dataset, SampleDataset)
    assert len(dataset) == 4
    assert len(dataset.classes) == 20
    for index in range(4):
        sample = dataset[index]
        seen = {dataset.classes[i - 1] for i in np.unique(sample.mask) if 0 < i < 255}
        assert seen == sample.labels == dataset.labels(index)
        assert 255 in sample.mask  # palette index of outlines, not a colour
        assert 0.3 < np.median(sample.depth_m[sample.depth_m > 0]) < 1.5
        assert (sample.depth_m == 0).any()
        assert dataset.sample_id(index) == dataset.sequence(index) == f"2007_{index:06d}"
    with pytest.raises(IndexError):
        dataset[4]


def test_labels_come_from_xml_and_from_masks_where_xml_is_missing_and_are_cached(voc):
    from_xml = VocDataset(voc, "train")
    assert json.loads((voc / ".deal_ros" / "voc-train.json").read_text())["version"] == 1
    shutil.rmtree(voc / "Annotations")
    from_masks = VocDataset(voc, "train")
    assert [from_xml.labels(i) for i in range(4)] == [from_masks.labels(i) for i in range(4)]
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        shutil.rmtree(voc / folder)
    with pytest.raises(DatasetError, match="2007_000000: has neither Annotations"):
        VocDataset(voc, "train")


def test_a_damaged_cache_is_made_anew(voc):
    first = VocDataset(voc, "val")
    cache = voc / ".deal_ros" / "voc-val.json"
    whole = cache.read_text()
    for damage in ("", "[]", whole[:40], whole.replace('"stamp":"', '"stamp":"x')):
        cache.write_text(damage)
        again = VocDataset(voc, "val")
        assert [again.labels(i) for i in range(4)] == [first.labels(i) for i in range(4)]
        assert cache.read_text() == whole


def test_a_read_only_data_set_is_cached_elsewhere(voc, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (voc / ".deal_ros").write_text("in the way")  # works for root too, whom permissions do not stop
    VocDataset(voc, "train")
    assert len(list((tmp_path / "cache").rglob("voc-train.json"))) == 1


def test_trainaug_lists_with_paths_and_images_without_masks(voc):
    lines = [f"/JPEGImages/2007_{i:06d}.jpg /SegmentationClassAug/2007_{i:06d}.png" for i in range(3)]
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("\n".join(lines))
    (voc / "SegmentationClass" / "2007_000001.png").unlink()
    (voc / "SegmentationClassAug" / "2007_000002.png").unlink()
    (voc / "SegmentationClass" / "2007_000002.png").unlink()
    dataset = VocDataset(voc, "trainaug")
    assert [dataset.sample_id(i) for i in range(len(dataset))] == [f"2007_{i:06d}" for i in range(3)]
    assert dataset[1].mask is not None  # from SegmentationClassAug
    assert dataset[2].mask is None
    assert dataset[2].labels


def test_missing_parts_say_where_they_come_from(voc, tmp_path):
    with pytest.raises(DatasetError, match=r"not VOC 2012.*VOCtrainval_11-May-2012\.tar"):
        VocDataset(tmp_path / "nothing")
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    with pytest.raises(DatasetError, match=r"list is missing; it comes from the SBD extension.*train, val"):
        VocDataset(voc, "trainaug")
    with pytest.raises(DatasetError, match=r"depths: no folder of depth maps.*depth_kind='inverse'"):
        VocDataset(voc, depth_folder="depths")
    (voc / "depth" / "2007_000000.png").unlink()
    with pytest.raises(DatasetError, match=r"depth/2007_000000\.png \(or \.npz, \.npy\): depth map is missing"):
        VocDataset(voc)[0]
    assert not VocDataset(voc, depth_kind="none")[0].depth_m.any()
    (voc / "JPEGImages" / "2007_000001.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(DatasetError, match=r"2007_000001\.jpg: JPEG has no frame header"):
        VocDataset(voc)[1]


def test_unknown_classes_and_hostile_xml_are_refused(voc):
    path = voc / "Annotations" / "2007_000000.xml"
    text = path.read_text()
    path.write_text(text.replace("aeroplane", "spaceship"))
    with pytest.raises(DatasetError, match="unknown class spaceship; known: aeroplane"):
        VocDataset(voc, "train")
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + text)
    with pytest.raises(DatasetError, match="refused"):
        VocDataset(voc, "train")
    path.write_text(text[:-9])
    with pytest.raises(DatasetError, match="not XML"):
        VocDataset(voc, "train")


def test_a_name_that_no_file_can_have_is_refused(voc):
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("x" * 5000 + "\n")
    with pytest.raises(DatasetError, match="names must have at most 200 characters"):
        VocDataset(voc.parent.parent, "train")


def test_workers_can_take_it_along(voc):
    dataset = pickle.loads(pickle.dumps(VocDataset(voc)))  # noqa: S301 - our own bytes
    assert dataset[0].labels == dataset.labels(0)


class TestDepthMaps:
    def test_arrays_are_metres_and_pngs_have_a_unit(self, tmp_path):
        depth = np.array([[1.5, 0.0, np.nan]], np.float32)
        np.savez(tmp_path / "a.npz", depth=depth, other=depth)
        np.save(tmp_path / "b.npy", depth[None])
        cv2.imwrite(str(tmp_path / "c.png"), np.array([[15000, 0, 0]], np.uint16))
        maps = DepthMaps(tmp_path, "metric", 0.0001)
        for name in ("a", "b", "c"):
            np.testing.assert_allclose(maps.read(name, (1, 3)), [[1.5, 0, 0]])

    def test_relative_maps_get_a_median_of_one(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([[2.0, 4.0, 8.0, 0.0]], np.float32))
        np.testing.assert_allclose(DepthMaps(tmp_path, "relative").read("a", (1, 4)), [[0.5, 1, 2, 0]])

    def test_inverse_maps_are_turned_round_and_zero_is_far_not_invalid(self, tmp_path):
        cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 500, 1000]], np.uint16))
        depth = DepthMaps(tmp_path, "inverse").read("a", (1, 3))
        np.testing.assert_allclose(depth, [[10, 1 / 0.55, 1]], rtol=1e-6)

    def test_pickled_arrays_and_other_surprises_are_refused(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        cv2.imwrite(str(tmp_path / "b.png"), np.zeros((2, 3), np.uint8))
        np.savez(tmp_path / "c.npz", x=np.zeros((2, 3)), y=np.zeros((2, 3)))
        np.save(tmp_path / "d.npy", np.zeros((4, 3), np.float32))
        (tmp_path / "e.npz").write_bytes(b"PK nothing")
        messages = {
            "a": "cannot be read",
            "b": "must be a 16-bit grey PNG, got uint8",
            "c": "must hold one array or one named 'depth', got x, y",
            "d": r"must have the size of its image \(2, 3\), got \(4, 3\)",
            "e": "cannot be read",
        }
        for name, message in messages.items():
            with pytest.raises(DatasetError, match=message):
                DepthMaps(tmp_path).read(name, (2, 3))
        with pytest.raises(DatasetError, match="depth_kind must be one of metric, relative, inverse, none"):
            DepthMaps(tmp_path, "disparity")


def test_colour_pictures_are_no_masks(tmp_path):
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DatasetError, match="8-bit grey or palette PNG, got mode RGB"):
        read_ids(tmp_path / "mask.png")
