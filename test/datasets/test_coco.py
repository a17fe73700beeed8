# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import sys

import cv2
import numpy as np
import pytest

from deal_ros.datasets import CocoDataset, DatasetError, SampleDataset
from deal_ros.datasets.coco import decode_rle_text, draw_mask
from deal_ros.datasets.miniature import write_coco


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"), per_split=4)


@pytest.fixture
def coco(original, tmp_path):
    return shutil.copytree(original, tmp_path / "coco")


def test_samples_have_contiguous_ids_masks_and_depth(coco):
    dataset = CocoDataset(coco, "train2014")
    assert isinstance(dataset, SampleDataset)
    assert dataset.classes == ("person", "bicycle", "stop sign", "toothbrush")
    assert len(dataset) == 4
    for index in range(4):
        sample = dataset[index]
        assert {dataset.classes[i - 1] for i in np.unique(sample.mask) if i} <= sample.labels
        assert (sample.mask > 0).sum() > 100
        assert (sample.depth_m > 0).mean() > 0.9
        # depth breaks at the outline of an object: nearer inside than just outside
        inside = sample.mask > 0
        ring = (cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) > 0) & ~inside & (sample.depth_m > 0)
        assert np.median(sample.depth_m[inside]) < np.median(sample.depth_m[ring])
    assert dataset.sample_id(0) == "COCO_train2014_000000000001"
    with pytest.raises(IndexError):
        dataset[4]


def test_the_layout_of_2017_without_an_images_folder(coco):
    for kind in ("train", "val"):
        (coco / "images" / f"{kind}2014").rename(coco / f"{kind}2017")
        (coco / "annotations" / f"instances_{kind}2014.json").rename(
            coco / "annotations" / f"instances_{kind}2017.json"
        )
    assert CocoDataset(coco, "val2017", depth_folder="depth/val2014")[0].rgb.shape == (96, 128, 3)


def test_the_annotation_file_is_read_once(coco, monkeypatch):
    first = CocoDataset(coco, "train2014")
    path = coco / "annotations" / "instances_train2014.json"
    monkeypatch.setattr("deal_ros.datasets.coco._digest", lambda path: pytest.fail("read again"))
    again = CocoDataset(coco, "train2014")
    assert [first.labels(i) for i in range(4)] == [again.labels(i) for i in range(4)]
    monkeypatch.undo()
    content = json.loads(path.read_text())
    content["annotations"] = []
    path.write_text(json.dumps(content))
    changed = CocoDataset(coco, "train2014")
    assert len(changed) == 4
    assert changed.labels(0) == frozenset()


def test_small_objects_lie_on_large_ones_and_crowds_count():
    square = [[0, 0, 10, 0, 10, 10, 0, 10]]
    crowd = {"size": [10, 10], "counts": [0, 30, 70]}  # the first three columns
    objects = [
        {"class": 2, "area": 4, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]},
        {"class": 1, "area": 100, "segmentation": square},
        {"class": 3, "area": 30, "segmentation": crowd},
    ]
    mask = draw_mask(objects, (10, 10), "test")
    expected = np.ones((10, 10), np.uint8)
    expected[:, :3] = 3
    expected[1:3, 1:3] = 2
    np.testing.assert_array_equal(mask, expected)


def test_polygons_without_pycocotools_agree_with_it(monkeypatch):
    pytest.importorskip("pycocotools")
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([30 + 20.3 * np.cos(angles), 25 + 15.7 * np.sin(angles)], axis=1)
    objects = [{"class": 1, "area": 1, "segmentation": [points.ravel().tolist()]}]
    reference = draw_mask(objects, (50, 60), "test")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    own = draw_mask(objects, (50, 60), "test")
    assert reference.sum() > 900
    assert (own != reference).mean() < 0.02


def test_compressed_rle_agrees_with_pycocotools():
    coco_mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for sigma in (0.6, 2.0, 6.0):
        blobs = cv2.GaussianBlur(rng.random((37, 53)), (0, 0), sigma)
        region = (blobs > np.median(blobs)).astype(np.uint8)
        counts = coco_mask.encode(np.asfortranarray(region))["counts"].decode()
        segmentation = {"size": [37, 53], "counts": counts}
        mask = draw_mask([{"class": 1, "area": 1, "segmentation": segmentation}], (37, 53), "test")
        np.testing.assert_array_equal(mask, region)


def test_broken_segmentations_are_refused():
    for segmentation, message in (
        ("text", "must be polygons or RLE"),
        ({"size": [5, 5], "counts": [25]}, "must be polygons or RLE of size"),
        ({"size": [10, 10], "counts": [25]}, "add up to 100 pixels"),
        ({"size": [10, 10], "counts": [-5, 105]}, "add up to 100 pixels"),
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "at least 3 points"),
    ):
        with pytest.raises(DatasetError, match=message):
            draw_mask([{"class": 1, "area": 1, "segmentation": segmentation}], (10, 10), "test")
    with pytest.raises(DatasetError, match="unknown character"):
        decode_rle_text("7 3")


def test_missing_parts_say_where_they_come_from(coco):
    with pytest.raises(DatasetError, match=r"annotations are missing.*cocodataset\.org.*train2014, val2014"):
        CocoDataset(coco, "train2017")
    shutil.rmtree(coco / "images" / "val2014")
    with pytest.raises(DatasetError, match=r"images/val2014: images are missing"):
        CocoDataset(coco, "val2014")
    with pytest.raises(DatasetError, match="no folder of depth maps"):
        CocoDataset(coco, "train2014", depth_folder="none/here")
    (coco / "annotations" / "instances_train2014.json").write_text('{"images": [{"id": 1}]}')
    with pytest.raises(DatasetError, match="not COCO instance annotations"):
        CocoDataset(coco, "train2014")


def test_an_image_of_another_size_than_annotated_is_refused(coco):
    cv2.imwrite(str(coco / "images" / "train2014" / "COCO_train2014_000000000001.jpg"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"must be 96 x 128 as annotated, got \(9, 9\)"):
        CocoDataset(coco, "train2014")[0]
