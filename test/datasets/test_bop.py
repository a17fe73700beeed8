# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import numpy as np
import pytest

from deal_ros.datasets import BopDataset, DatasetError, SampleDataset
from deal_ros.datasets.miniature import write_hope


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_hope(tmp_path_factory.mktemp("bop") / "hopev2", objects=3, frames=2)


@pytest.fixture
def hope(original, tmp_path):
    return shutil.copytree(original, tmp_path / "hopev2")


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_onboarding_frames_have_one_object_and_metric_depth(hope):
    dataset = BopDataset(hope)
    assert isinstance(dataset, SampleDataset)
    assert dataset.classes == ("obj_000001", "obj_000002", "obj_000003")
    assert len(dataset) == 3 * 2 * 2
    for index in range(len(dataset)):
        sample = dataset[index]
        (name,) = sample.labels
        assert set(np.unique(sample.mask)) == {0, dataset.classes.index(name) + 1}
        assert dataset.sequence(index).startswith(f"onboarding_static/{name}")
        assert 0.5 < np.median(sample.depth_m[sample.depth_m > 0]) < 1.3  # 0.1 mm per unit
        assert sample.camera_matrix[0, 0] == 128
    assert dataset.sample_id(0) == "onboarding_static-obj_000001_down-000000"
    assert len({dataset.sample_id(i) for i in range(len(dataset))}) == len(dataset)


def test_sides_and_scenes_split_without_sharing_a_sequence(hope):
    sequences = []
    for side in ("up", "down"):
        part = BopDataset(hope, side=side)
        assert len(part) == 6
        assert {part.sequence(i)[-len(side) :] for i in range(6)} == {side}
        sequences.append({part.sequence(i) for i in range(6)})
    assert not sequences[0] & sequences[1]
    chosen = BopDataset(hope, scenes=["obj_00000[13]_up"])
    found = {chosen.sequence(i) for i in range(len(chosen))}
    assert found == {f"onboarding_static/obj_00000{number}_up" for number in (1, 3)}
    assert len(BopDataset(hope, scenes="obj_000001_up")) == len(BopDataset(hope, scenes=["obj_000001_up"]))
    with pytest.raises(DatasetError, match=r"no annotated frame \(side up, scenes all\)"):
        BopDataset(hope, "val", side="up")


def test_scenes_of_several_objects_and_names(hope):
    dataset = BopDataset(hope, "val", names={1: "soup", 3: "milk"})
    assert dataset.classes == ("soup", "obj_000002", "milk")
    assert any(len(dataset.labels(i)) == 2 for i in range(len(dataset)))
    for index in range(len(dataset)):
        sample = dataset[index]
        assert {dataset.classes[i - 1] for i in np.unique(sample.mask) if i} == sample.labels


def test_hardly_visible_objects_are_ignored(hope):
    scene = hope / "onboarding_static" / "obj_000001_up"
    edit(scene / "scene_gt_info.json", lambda info: info["0"][0].update(visib_fract=0.05))
    dataset = BopDataset(hope, scenes=["obj_000001_up"])
    assert dataset.labels(0) == frozenset()
    assert set(np.unique(dataset[0].mask)) == {0, 255}
    assert BopDataset(hope, scenes=["obj_000001_up"], min_visible=0.01).labels(0) == {"obj_000001"}


def test_models_fix_the_classes_and_extras_may_be_missing(hope):
    (hope / "models").mkdir()
    (hope / "models" / "models_info.json").write_text(json.dumps({str(i): {"diameter": 1} for i in range(1, 29)}))
    scene = hope / "onboarding_static" / "obj_000002_up"
    (scene / "scene_gt_info.json").unlink()
    shutil.rmtree(scene / "mask_visib")
    (scene / "rgb").rename(scene / "gray")
    dataset = BopDataset(hope, scenes=["obj_000002_up"])
    assert len(dataset.classes) == 28
    assert dataset[0].labels == {"obj_000002"}
    assert dataset[0].mask is None


def test_without_depth_the_ways_out_are_named_and_work(hope):
    for scene in (hope / "onboarding_static").iterdir():
        shutil.copytree(scene / "depth", hope / "estimated" / scene.name)
        shutil.rmtree(scene / "depth")
        edit(scene / "scene_camera.json", lambda cameras: [camera.pop("depth_scale") for camera in cameras.values()])
    with pytest.raises(DatasetError, match=r"depth is missing; HOPEv2.*depth_folder=….*depth_kind='none'"):
        BopDataset(hope)[0]
    estimated = BopDataset(hope, depth_folder="estimated", depth_kind="relative")[0].depth_m
    assert np.median(estimated[estimated > 0]) == pytest.approx(1)
    assert not BopDataset(hope, depth_kind="none")[0].depth_m.any()
    with pytest.raises(DatasetError, match="no folder of depth maps"):
        BopDataset(hope, depth_folder="nowhere")


def test_damage_is_named_with_its_file(hope):
    with pytest.raises(DatasetError, match="splits here: onboarding_static, val"):
        BopDataset(hope, "test")
    scene = hope / "onboarding_static" / "obj_000001_down"
    (scene / "mask_visib" / "000001_000000.png").unlink()
    with pytest.raises(DatasetError, match=r"obj_000001_down/mask_visib/000001_000000\.png: mask cannot be read"):
        BopDataset(hope)[1]
    (scene / "rgb" / "000000.jpg").unlink()
    with pytest.raises(DatasetError, match=r"obj_000001_down/rgb/000000\.jpg .*image is missing"):
        BopDataset(hope)[0]
    edit(scene / "scene_camera.json", lambda cameras: cameras["1"].pop("cam_K"))
    with pytest.raises(DatasetError, match="image 1 must have cam_K"):
        BopDataset(hope)[1]
    (scene / "scene_gt.json").write_text("[")
    with pytest.raises(DatasetError, match=r"scene_gt\.json: not JSON"):
        BopDataset(hope)
    with pytest.raises(DatasetError, match="side must be 'up', 'down' or none"):
        BopDataset(hope, side="left")
