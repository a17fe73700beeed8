# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("mujoco")

from deal_ros.datasets.base import SampleDataset
from deal_ros.datasets.rendered import (
    RenderConfig,
    expected_frames,
    open_rendered,
    planned_scenes,
    render_dataset,
)
from deal_ros.datasets.rendered_manifest import MANIFEST, RECORDS, ManifestError, compare_manifests, read_manifest
from deal_ros.datasets.store import SampleStore
from deal_ros.scenes import SPLITS

SMALL = RenderConfig(
    classes=("milk", "ketchup"),
    height=48,
    width=64,
    onboarding_scenes=(1, 1, 0),
    onboarding_frames=2,
    tabletop_scenes=(1, 0, 1),
    tabletop_frames=2,
    tabletop_objects=(2, 2),
    shadows=False,
    supersampling=1,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("rendered") / "small"
    report = render_dataset(out, SMALL, jobs=1)
    assert (report.rendered, report.found) == (expected_frames(SMALL), 0)
    return out


@pytest.mark.gl
def test_stores_are_data_sets_with_labels_masks_and_sequences(small):
    train = open_rendered(small, "onboarding", "train")
    assert isinstance(train, SampleDataset)
    assert len(train) == 2 * 2 * 2
    assert [train.sequence(i) for i in range(0, 8, 2)] == [
        f"onboarding-{name}-{pose}-train-0" for name in ("milk", "ketchup") for pose in ("up", "down")
    ]
    for index in range(len(train)):
        sample = train[index]
        assert sample.labels == {("milk", "ketchup")[index // 4]}
        assert set(np.unique(sample.mask)) <= {0, 1 + index // 4, 255}
        assert (sample.depth_m > 0).all()
        assert sample.camera_matrix is not None
    assert len({train[i].stamp_ns for i in range(8)}) == 8
    with pytest.raises(ValueError, match="there is onboarding/train, onboarding/val"):
        open_rendered(small, "onboarding", "test")


def test_no_scene_is_in_two_splits():
    seen = {}
    for split in SPLITS:
        for scenario in ("onboarding", "tabletop"):
            config = dataclasses.replace(SMALL, onboarding_scenes=(1, 1, 1), tabletop_scenes=(2, 2, 2))
            for scene in planned_scenes(config, scenario, split):
                key = (scene.name, scene.checksum())
                assert key not in seen
                seen[key] = split
    assert len(seen) == 3 * (4 + 2)


@pytest.mark.gl
def test_both_scenarios_are_one_data_set_if_wanted(small):
    joined = open_rendered(small, "all", "train")
    parts = [open_rendered(small, scenario, "train") for scenario in ("onboarding", "tabletop")]
    assert isinstance(joined, SampleDataset)
    assert len(joined) == len(parts[0]) + len(parts[1]) == 10
    assert joined.classes == parts[0].classes
    assert joined.sample_id(7) == f"onboarding-{parts[0].sample_id(7)}"
    assert joined.sample_id(8) == f"tabletop-{parts[1].sample_id(0)}"
    assert (joined.labels(9), joined.sequence(9)) == (parts[1].labels(1), parts[1].sequence(1))
    np.testing.assert_array_equal(joined[9].rgb, parts[1][1].rgb)
    with pytest.raises(IndexError):
        joined[10]
    assert len(open_rendered(small, "all", "test")) == 2  # tabletop alone
    with pytest.raises(ValueError, match="not a sample store"):
        open_rendered(small / "onboarding", "all", "train")


@pytest.mark.gl
def test_two_processes_make_the_same_as_one(small, tmp_path):
    report = render_dataset(tmp_path / "again", SMALL, jobs=2)
    assert report.rendered == expected_frames(SMALL)
    assert compare_manifests(small, tmp_path / "again") == []
    for name in report.stores:
        ours, theirs = (SampleStore.open(folder / name) for folder in (small, tmp_path / "again"))
        assert [ours.sample_id(i) for i in range(len(ours))] == [theirs.sample_id(i) for i in range(len(theirs))]


@pytest.mark.gl
def test_an_interrupted_run_goes_on_to_the_same_result(small, tmp_path):
    out = tmp_path / "torn"

    class Power(Exception):
        pass

    def fail(done, total):
        if done == 3:
            raise Power

    with pytest.raises(Power):
        render_dataset(out, SMALL, jobs=1, on_scene=fail)
    assert not read_manifest(out)["complete"]
    with pytest.raises(ManifestError, match="rendering has not finished"):
        compare_manifests(small, out)
    # a kill between the samples and their record: the scene is taken back and made again
    records = out / "onboarding" / "train" / RECORDS
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:-1]) + '{"name": "tor')
    report = render_dataset(out, SMALL, jobs=1)
    assert (report.found, report.rendered) == (4, expected_frames(SMALL) - 4)
    assert compare_manifests(small, out) == []
    assert render_dataset(out, SMALL, jobs=1).rendered == 0


@pytest.mark.gl
def test_other_settings_or_contents_are_refused(small, tmp_path):
    with pytest.raises(ManifestError, match=r"other settings \(seed\)"):
        render_dataset(small, dataclasses.replace(SMALL, seed=1), jobs=1)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ManifestError, match="must be empty or hold manifest"):
        render_dataset(tmp_path, SMALL, jobs=1)


@pytest.mark.gl
def test_manifests_tell_scenes_from_renderers(small, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    values = json.loads((small / MANIFEST).read_text())
    record = values["stores"]["tabletop/train"][0]
    record["pixels"] = "0" * 64

    def compared():
        (other / MANIFEST).write_text(json.dumps(values))
        return compare_manifests(small, other)

    assert compared() == ["tabletop/train/tabletop-train-0: same scene and renderer, other pixels"]
    values["renderer"]["opengl"] = "another library"
    assert compared() == []
    record["mean_depth_mm"] += 5
    record["class_pixels"]["1"] = record["class_pixels"].get("1", 0) + 500
    assert len(compared()) == 2
    record["scene"] = "f" * 64
    assert compared() == ["tabletop/train/tabletop-train-0: another scene (tabletop-train-0)"]
    (other / MANIFEST).write_text("[]")
    with pytest.raises(ManifestError, match="must be the manifest"):
        compare_manifests(small, other)
    shutil.rmtree(other)
    with pytest.raises(ManifestError, match="cannot be read"):
        compare_manifests(small, other)


@pytest.mark.gl
def test_noise_is_on_depth_only_and_repeatable(small, tmp_path):
    config = dataclasses.replace(
        SMALL, noise_strength=2.0, scenarios=("tabletop",), image_format="png", tabletop_scenes=(1, 0, 0)
    )
    clean_config = dataclasses.replace(config, noise_strength=0.0)
    samples = {}
    for name, made in (("noisy", config), ("same", config), ("clean", clean_config)):
        render_dataset(tmp_path / name, made, jobs=1)
        samples[name] = open_rendered(tmp_path / name, "tabletop", "train")[1]
    np.testing.assert_array_equal(samples["noisy"].depth_m, samples["same"].depth_m)
    np.testing.assert_array_equal(samples["noisy"].rgb, samples["clean"].rgb)
    np.testing.assert_array_equal(samples["noisy"].mask, samples["clean"].mask)
    assert (samples["noisy"].depth_m == 0).mean() > 0.02
    assert (samples["noisy"].depth_m != samples["clean"].depth_m).mean() > 0.3


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="scenarios must be some of onboarding, tabletop"):
        RenderConfig(scenarios=("kitchen",))
    with pytest.raises(ValueError, match="onboarding_scenes must be three counts"):
        RenderConfig(onboarding_scenes=(1, 1, -1))
    with pytest.raises(ValueError, match="tabletop_objects must be two numbers 1"):
        RenderConfig(tabletop_objects=(5, 3))
    with pytest.raises(ValueError, match="noise_strength must be >= 0"):
        RenderConfig(noise_strength=-1)
