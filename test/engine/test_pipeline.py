# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A recipe from data to report: resumed, repeated, on a store that has grown meanwhile."""

import json
from dataclasses import replace

import cv2
import pytest
import yaml
from engine_runs import assert_same_run
from engine_scenes import cam_config, label_config, student_config

from deal_ros.config import ConfigError
from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.miniature import miniature_sample, write_store, write_voc
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.views import Subset, split_by_sequence
from deal_ros.engine.checkpoint import CheckpointError
from deal_ros.engine.correct_labels import CorrectLabelsConfig
from deal_ros.engine.pipeline import run_pipeline, summary
from deal_ros.engine.progress import Cancelled
from deal_ros.engine.provenance import commit, provenance
from deal_ros.engine.recipe import Recipe, RecipeData, load_recipe, merged
from deal_ros.students import read_bundle


def recipe_of(**changes):
    parts = {
        "name": "tiny",
        "train_cam": cam_config(steps=4, cached_views=2),
        "pseudo_label": label_config(),
        "train_student": student_config(steps=3),
    }
    return Recipe(**{**parts, **changes})


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", per_class=4)


def test_everything_is_there_at_the_end_and_nothing_is_done_twice(tmp_path, store):
    stages = []
    recipe = recipe_of(baseline=True, seeds=(0, 3))
    result = run_pipeline(recipe, store, tmp_path / "out", on_progress=lambda p: stages.append(p.stage))
    assert list(dict.fromkeys(stages)) == [
        "train-cam (baseline)",
        "train-cam",
        "pseudo-label threshold",
        "pseudo-label",
        "evaluate",
        "train-student",
    ] or set(stages) == {
        "train-cam (baseline)",
        "train-cam",
        "pseudo-label threshold",
        "pseudo-label",
        "train-student",
        "evaluate",
    }
    student, spec = read_bundle(result.bundle)
    assert spec.training["losses"] == "deal"
    report = result.report.read_text()
    for picture in ("overlays.png", "student.png", "curves.png", "thresholds.png"):
        assert picture in report
        assert list((tmp_path / "out").rglob(picture))
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert {(row["stage"], row["losses"]) for row in rows} == {
        ("cam seeds", "none"),
        ("cam seeds", "deal"),
        ("pseudo-labels", "deal"),
        ("student", "deal"),
    }
    assert all(row["miou_sd"] is not None and 0 <= row["miou"] <= 1 for row in rows)
    wanted = {"data", "network", "losses", "stage", "threshold", "depth", "seeds", "miou", "miou_sd", "contour_f"}
    assert wanted | {"map", "commit", "machine"} <= rows[0].keys()
    stages.clear()
    again = run_pipeline(recipe, store, tmp_path / "out", on_progress=lambda p: stages.append(p.stage))
    assert stages == []
    assert summary(again) == summary(result)


@pytest.mark.parametrize("stop_at", ["train-cam", "pseudo-label", "train-student"])
def test_a_second_start_goes_on_where_the_first_stopped(tmp_path, store, stop_at):
    whole = run_pipeline(recipe_of(), store, tmp_path / "whole")
    seen = []

    def should_stop():
        return bool(seen) and seen[-1].stage == stop_at and seen[-1].done >= 2

    with pytest.raises(Cancelled):
        run_pipeline(recipe_of(), store, tmp_path / "parts", on_progress=seen.append, should_stop=should_stop)
    parts = run_pipeline(recipe_of(), store, tmp_path / "parts")
    for stage in ("cam", "student"):
        assert_same_run(tmp_path / "whole" / "seed-0" / stage, tmp_path / "parts" / "seed-0" / stage)
    assert parts.metrics == whole.metrics


def test_a_store_that_grows_meanwhile_does_not_change_the_run(tmp_path, store):
    whole = run_pipeline(recipe_of(), store, tmp_path / "whole")
    seen = []
    with pytest.raises(Cancelled):
        run_pipeline(
            recipe_of(), store, tmp_path / "grown", on_progress=seen.append, should_stop=lambda: len(seen) >= 2
        )
    with SampleStore.open_or_create(store, ["cup"]) as writable:
        writable.append(miniature_sample([1], ["cup"], seed=9), sequence="new")
    grown = run_pipeline(recipe_of(), store, tmp_path / "grown")
    assert grown.metrics == whole.metrics
    assert read_bundle(grown.bundle)[1].classes == ("milk", "ketchup")
    with pytest.raises(CheckpointError, match="not the data"):
        run_pipeline(recipe_of(), write_store(tmp_path / "other", per_class=3), tmp_path / "grown")


def test_label_maps_are_corrected_where_the_recipe_says_so(tmp_path, store):
    with SampleStore.open(store, writable=True) as samples:
        for number in range(4):
            samples.append(miniature_sample([1, 2], samples.classes, seed=90 + number), sequence="table")
    stages = []
    correction = CorrectLabelsConfig(least=2, confidence=0.0, background_confidence=1.0)
    recipe = recipe_of(correct_labels=correction, train_student=student_config(steps=3))
    result = run_pipeline(recipe, store, tmp_path / "out", on_progress=lambda p: stages.append(p.stage))
    assert [stage for stage in dict.fromkeys(stages) if "label" in stage or "student" in stage] == [
        "pseudo-label threshold",
        "pseudo-label",
        "correct-labels (for the teacher)",
        "train-student (teacher)",
        "correct-labels",
        "correct-labels (for the second teacher)",
        "train-student (second-teacher)",
        "correct-labels (parts)",
        "train-student",
    ]
    assert read_bundle(result.bundle)[1].training["labels"] == "labels-checked"
    assert "corrected the label maps of 4 images; it knew milk" in result.report.read_text()
    assert "A second one checked those of" in result.report.read_text()
    assert {path.name for path in (tmp_path / "out" / "seed-0").iterdir()} >= {"labels", "labels-simple", "teacher"}


def test_other_settings_in_the_folder_are_refused(tmp_path, store):
    with pytest.raises(Cancelled):
        run_pipeline(recipe_of(), store, tmp_path / "out", should_stop=lambda: True)
    with pytest.raises(CheckpointError, match="other settings"):
        run_pipeline(recipe_of(train_student=student_config(steps=9)), store, tmp_path / "out")


def test_data_of_another_layout_or_none_is_refused(tmp_path):
    write_voc(tmp_path / "voc", per_split=1)
    with pytest.raises(ConfigError, match="must be store data for this recipe, got voc"):
        run_pipeline(recipe_of(), tmp_path / "voc", tmp_path / "out")
    SampleStore.create(tmp_path / "empty", ["milk"]).close()
    with pytest.raises(DatasetError, match="holds no sample yet"):
        run_pipeline(recipe_of(), tmp_path / "empty", tmp_path / "out2")


def test_seeds_reach_every_stage():
    seeded = recipe_of(seeds=(1, 2)).seeded(2)
    assert (seeded.train_cam.optimization.seed, seeded.train_student.optimization.seed, seeded.seeds) == (2, 2, (2,))
    with pytest.raises(ValueError, match="seeds must be different"):
        recipe_of(seeds=(1, 1))


def test_recipes_are_files_with_smoke_settings_and_changes(tmp_path):
    path = tmp_path / "r.yaml"
    text = {"name": "r", "train_cam": {"optimization": {"steps": 9, "lr": 0.5}}, "smoke": {"seeds": [4]}}
    text["smoke"] |= {"train_cam": {"optimization": {"steps": 1}}}
    path.write_text(yaml.safe_dump(text))
    assert load_recipe(path).train_cam.optimization.steps == 9
    smoke = load_recipe(path, smoke=True, changes={"train_cam": {"losses": {"terms": "isl"}}})
    assert (smoke.train_cam.optimization.steps, smoke.train_cam.optimization.lr, smoke.seeds) == (1, 0.5, (4,))
    assert smoke.train_cam.losses.terms == "isl"
    with pytest.raises(ConfigError, match="did you mean 'train_cam'"):
        load_recipe(path, changes={"traincam": {}})
    assert merged({"a": {"b": 1}}, {"a": {}}) == {"a": {}}


def test_holding_out_spares_whole_sequences_and_every_class(store):
    dataset = SampleStore.open(store)
    train, held = split_by_sequence(dataset, 0.4)
    assert held is None  # one recording per class: none can be spared
    assert len(train) == len(dataset)
    writer = SampleStore.open_or_create(store)
    for number in range(4):
        writer.append(miniature_sample([1], ["milk"], seed=50 + number), sequence="show-milk-again")
    writer.close()
    dataset = SampleStore.open(store)
    train, held = split_by_sequence(dataset, 0.4)
    assert len(train) + len(held) == len(dataset)
    assert len({held.sequence(i) for i in range(len(held))}) == 1
    names = {train.sequence(i) for i in range(len(train))}
    assert not names & {held.sequence(i) for i in range(len(held))}
    assert {label for i in range(len(train)) for label in train.labels(i)} == {"milk", "ketchup"}
    assert isinstance(held, Subset)
    assert split_by_sequence(dataset, 0.0)[1] is None


def test_a_store_without_masks_has_a_report_all_the_same(tmp_path):
    """As a robot gathers it: what the classifier learnt is known, mIoU is not, and no column of truth is drawn."""
    bare = SampleStore.create(tmp_path / "bare", ("milk", "ketchup"))
    for number in range(8):
        sample = miniature_sample([1 + number % 2], ["milk", "ketchup"], seed=number)
        bare.append(replace(sample, mask=None), sequence=f"turn-{number % 4}")
    bare.close()
    out = tmp_path / "out"
    run_pipeline(recipe_of(), tmp_path / "bare", out)
    rows = {row["stage"]: row for row in json.loads((out / "report.json").read_text())["rows"]}
    assert rows["cam seeds"]["miou"] is None
    assert 0 <= rows["cam seeds"]["map"] <= 1
    assert rows["student"]["map"] is not None
    run_pipeline(recipe_of(), write_store(tmp_path / "store", per_class=4), tmp_path / "with")
    for name in ("overlays.png", "student.png"):
        bare, whole = (cv2.imread(str(path / "seed-0" / "evaluation" / name)) for path in (out, tmp_path / "with"))
        assert bare.shape[1] < whole.shape[1], "no column of truth where there is none"


def test_a_subset_is_a_data_set(store):
    dataset = SampleStore.open(store)
    part = Subset(dataset, [5, 1], ["milk"])
    assert len(part) == 2
    assert part.classes == ("milk",)
    assert (part.sample_id(0), part.sequence(0), part.labels(0)) == (
        dataset.sample_id(5),
        dataset.sequence(5),
        dataset.labels(5),
    )
    assert (part[1].rgb == dataset[1].rgb).all()
    with pytest.raises(IndexError):
        part[2]
    with pytest.raises(DatasetError, match="must begin with"):
        Subset(dataset, [0], ["ketchup"])


def test_where_figures_come_from(tmp_path):
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# packed\n" + "ab" * 20 + " refs/heads/main\n")
    assert commit(tmp_path) == "ab" * 6
    (git / "refs" / "heads" / "main").write_text("cd" * 20 + "\n")
    assert commit(tmp_path) == "cd" * 6
    (git / "HEAD").write_text("ef" * 20 + "\n")
    assert commit(tmp_path) == "ef" * 6
    assert commit(tmp_path / "nowhere") == "unknown"
    assert {"commit", "torch", "machine", "threads"} <= provenance().keys()


def test_a_held_out_share_must_be_a_share():
    with pytest.raises(ValueError, match="holdout"):
        RecipeData(holdout=1.0)
    assert replace(RecipeData(), holdout=0.2).holdout == 0.2
