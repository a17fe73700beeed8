# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images that show one class alone correct the label maps of those that show several, and these theirs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from engine_runs import StopAfter
from engine_scenes import CLASSES, SIZE, MemoryDataset, scenes, student_config

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.miniature import miniature_sample
from deal_ros.engine.checkpoint import CheckpointError
from deal_ros.engine.correct_labels import CorrectLabelsConfig, correct_labels, shown
from deal_ros.engine.label_folder import LabelFolder, map_path, write_index, write_map
from deal_ros.engine.pasting import PasteConfig
from deal_ros.engine.progress import Cancelled
from deal_ros.engine.teachers import train_with_teachers
from deal_ros.engine.train_student import StudentLossConfig
from deal_ros.pseudo_labels import corrected_map, likely_parts
from deal_ros.sample import IGNORE_ID

CONFIG = CorrectLabelsConfig(least=2, confidence=0.5, parts=0)
TWO_TEACHERS = replace(CONFIG, parts=0.75)


def dataset_of(simple=12, pairs=6):
    """Scenes of one class, then scenes of two."""
    samples = scenes(simple).samples
    for number in range(pairs):
        samples.append(miniature_sample([1 + number % 3, 1 + (number + 1) % 3], CLASSES, seed=100 + number, size=SIZE))
    return MemoryDataset(samples)


def swapped(sample):
    """The true mask with its two classes mistaken for one another."""
    first, second = sorted(CLASSES.index(name) + 1 for name in sample.labels)
    mask = sample.mask.copy()
    mask[sample.mask == first], mask[sample.mask == second] = second, first
    return mask


def labels_of(dataset, folder):
    """True maps of simple images, swapped ones of the others."""
    for index in range(len(dataset)):
        sample = dataset[index]
        mask = swapped(sample) if len(sample.labels) > 1 else sample.mask
        write_map(map_path(folder, dataset.sample_id(index)), mask)
    write_index(folder, {"classes": list(dataset.classes)})
    return folder


@pytest.fixture
def labels(tmp_path):
    (tmp_path / "maps").mkdir()
    return labels_of(dataset_of(), tmp_path / "maps")


def test_background_stays_and_only_present_and_probable_classes_are_named():
    labels = np.uint8([[0, 1, 2, IGNORE_ID, 1, 2]])
    likely = torch.zeros(4, 1, 6)
    likely[3, 0, 0] = 1.0  # an object where the map says background
    likely[:, 0, 1] = torch.tensor([0.1, 0.1, 0.2, 0.6])  # class 3 is not in view: two thirds are class 2's ...
    likely[:, 0, 2] = torch.tensor([0.6, 0.3, 0.1, 0.0])
    likely[:, 0, 3] = torch.tensor([0.1, 0.8, 0.1, 0.0])  # unlabelled becomes labelled
    likely[:, 0, 4] = torch.tensor([0.3, 0.3, 0.4, 0.0])
    likely[:, 0, 5] = torch.tensor([0.7, 0.1, 0.0, 0.2])  # seven eighths are background's
    found = corrected_map(labels, likely, [True, True, False], 0.45, 0.8)
    assert found.tolist() == [[0, 2, IGNORE_ID, 1, IGNORE_ID, 0]]


def test_parts_that_are_much_less_likely_than_the_surest_become_background():
    labels = np.zeros((40, 60), np.uint8)
    labels[5:15, 5:15] = labels[5:15, 25:35] = labels[25:35, 5:15] = 2
    labels[25:35, 25:35], labels[30, 50] = IGNORE_ID, 2  # one pixel is surer than all, by chance
    likely = torch.full((4, 40, 60), 0.01)
    likely[2, 5:15, 5:15], likely[0, 5:15, 5:15] = 0.2, 0.6  # 1/4 against background: the best of a shy teacher
    likely[2, 5:15, 25:35], likely[0, 5:15, 25:35] = 0.2, 0.8  # 1/5
    likely[2, 25:35, 5:15], likely[0, 25:35, 5:15] = 0.1, 0.8  # 1/9
    likely[2, 30, 50] = 1.0
    found = likely_parts(labels, likely, 2, 0.75)
    expected = labels.copy()
    expected[25:35, 5:15] = 0
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(likely_parts(labels, likely, 1, 0.75), labels)
    np.testing.assert_array_equal(likely_parts(labels, likely, 2, 0.0), labels)
    likely[2] /= 4  # 1/13 at best: it knows nothing
    np.testing.assert_array_equal(likely_parts(labels, likely, 2, 0.75), labels)


def test_maps_and_probabilities_must_fit():
    with pytest.raises(ValueError, match="probabilities must be"):
        likely_parts(np.zeros((4, 4), np.uint8), torch.zeros(3, 4, 5), 1, 0.5)
    with pytest.raises(ValueError, match="probabilities must be"):
        corrected_map(np.zeros((4, 4), np.uint8), torch.zeros(3, 4, 5), [True, True], 0.5, 0.9)
    with pytest.raises(ValueError, match="present must be"):
        corrected_map(np.zeros((4, 4), np.uint8), torch.zeros(3, 4, 4), [True], 0.5, 0.9)


def test_without_a_teacher_objects_of_images_with_several_classes_are_left_unlabelled(tmp_path, labels):
    dataset = dataset_of()
    result = correct_labels(dataset, labels, tmp_path / "simple", CONFIG)
    assert (result.taught, result.changed) == (CLASSES, 6)
    old, new = LabelFolder(labels, CLASSES), LabelFolder(tmp_path / "simple", CLASSES)
    for index in range(len(dataset)):
        before, after = old.read(dataset.sample_id(index)), new.read(dataset.sample_id(index))
        expected = before if index < 12 else np.where(before == 0, 0, IGNORE_ID)
        np.testing.assert_array_equal(after, expected)
    assert sum(result.fractions.values()) == pytest.approx(1)


def test_a_class_that_is_hardly_shown_alone_keeps_its_labels(tmp_path):
    samples = dataset_of().samples
    dataset = MemoryDataset([s for s in samples if s.labels != {"butter"}])
    (tmp_path / "maps").mkdir()
    maps = labels_of(dataset, tmp_path / "maps")
    taught = train_with_teachers(dataset, maps, tmp_path / "run", student_config(steps=3), CONFIG)
    assert taught.corrected.taught == ("milk", "ketchup")
    simple, corrected = tmp_path / "run" / "labels-simple", taught.labels
    for index in range(8, len(dataset)):
        first, hidden, last = (
            LabelFolder(folder, CLASSES).read(dataset.sample_id(index)) for folder in (maps, simple, corrected)
        )
        assert set(np.unique(hidden)) == {0, IGNORE_ID}  # nothing of the first maps' objects reaches the teacher
        np.testing.assert_array_equal(last == 3, first == 3)  # butter is neither lost nor spread


def test_a_class_whose_own_maps_do_not_show_it_is_not_taught(tmp_path):
    dataset = dataset_of()
    (tmp_path / "maps").mkdir()
    maps = LabelFolder(labels_of(dataset, tmp_path / "maps"), CLASSES)
    assert shown(dataset, maps, "one", 4) == CLASSES
    assert shown(dataset, maps, "one", 5) == ()
    assert shown(dataset, maps, "several", 4) == CLASSES  # two in each of six images
    assert shown(dataset, maps, "several", 5) == ()
    write_map(map_path(maps.path, "s000"), np.zeros(SIZE, np.uint8))  # milk, by its label
    map_path(maps.path, "s001").unlink()  # ketchup
    assert shown(dataset, maps, "one", 4) == ("butter",)


def test_a_map_of_another_size_is_named(tmp_path, labels):
    dataset = dataset_of()
    teacher = train_with_teachers(dataset, labels, tmp_path / "run", student_config(steps=2), CONFIG).student.bundle
    write_map(map_path(labels, "s013"), np.ones((8, 8), np.uint8))
    with pytest.raises(DatasetError, match="label map of s013 must be"):
        correct_labels(dataset, labels, tmp_path / "out", CONFIG, teacher=teacher)


def test_a_student_of_simple_images_puts_right_what_the_maps_of_others_confuse(tmp_path, labels):
    dataset = dataset_of()
    taught = train_with_teachers(dataset, labels, tmp_path / "run", student_config(steps=40), CONFIG)
    assert taught.labels == tmp_path / "run" / "labels-corrected"
    assert taught.student.run == tmp_path / "run" / "student"
    right = wrong = 0
    for index in range(12, len(dataset)):
        truth, mask = dataset[index].mask, LabelFolder(taught.labels, CLASSES).read(dataset.sample_id(index))
        named = (mask > 0) & (mask != IGNORE_ID)
        right, wrong = right + (mask[named] == truth[named]).sum(), wrong + (mask[named] != truth[named]).sum()
    assert right > 500  # of the maps that it began with, none was right
    assert right > 9 * wrong


def with_companion(sample):
    """The same with a thing without a class in a corner: white, unlike objects and background."""
    rgb = sample.rgb.copy()
    rgb[:10, :10] = 255
    return replace(sample, rgb=rgb)


def test_what_only_ever_lies_beside_an_object_is_found_out_by_the_other_images(tmp_path):
    """Beside milk alone a white thing always stands; on tables it stands beside others, too, and milk without it."""
    samples = dataset_of(pairs=18).samples
    milk = [index for index in range(12) if samples[index].labels == {"milk"}]
    tables = [index for index in range(12, len(samples)) if "milk" not in samples[index].labels]
    dataset = MemoryDataset([with_companion(s) if i in (*milk, *tables) else s for i, s in enumerate(samples)])
    (tmp_path / "maps").mkdir()
    maps = labels_of(dataset, tmp_path / "maps")
    for index in range(len(dataset)):
        mask = dataset[index].mask.copy()
        if index in milk:
            mask[:10, :10] = CLASSES.index("milk") + 1  # it stands out in depth, and in every image of milk alone
        write_map(map_path(maps, dataset.sample_id(index)), mask)
    settings = student_config(steps=40)
    settings = replace(settings, loss=StudentLossConfig(absent=0.5), loader=replace(settings.loader, cached_views=0))
    settings = replace(settings, paste=PasteConfig(probability=0.3))
    taught = train_with_teachers(dataset, maps, tmp_path / "run", settings, TWO_TEACHERS)
    corrected, hidden, checked = (
        LabelFolder(tmp_path / "run" / name, CLASSES)
        for name in ("labels-corrected", "labels-several", "labels-checked")
    )
    assert taught.labels == checked.path
    assert taught.checked.changed >= len(milk)
    for index in milk:
        name, truth = dataset.sample_id(index), dataset[index].mask
        assert corrected.read(name)[:10, :10].all()  # images with several classes alone are corrected first
        assert set(np.unique(hidden.read(name))) == {0, IGNORE_ID}
        found = checked.read(name)
        assert not found[:10, :10].any()
        assert (found == truth)[truth > 0].mean() > 0.9
    other = yaml.safe_load((tmp_path / "run" / "second-teacher" / "config.yaml").read_text())["config"]
    assert (other["paste"], other["loss"]["absent"]) == (None, 0.0)


def test_a_second_teacher_learns_nothing_from_maps_that_nobody_corrected(tmp_path):
    """Butter is hardly shown alone: its labels in images with several classes are the first ones, and not relied on."""
    samples = dataset_of(pairs=12).samples
    butter = [s for s in samples if s.labels == {"butter"}]
    dataset = MemoryDataset([s for s in samples if s.labels != {"butter"}] + butter[:1])
    (tmp_path / "maps").mkdir()
    maps = labels_of(dataset, tmp_path / "maps")
    settings = replace(TWO_TEACHERS, confidence=0.0, background_confidence=1.0)
    taught = train_with_teachers(dataset, maps, tmp_path / "run", student_config(steps=3), settings)
    assert taught.corrected.taught == ("milk", "ketchup")
    assert set(taught.checked.taught) <= {"milk", "ketchup"}
    name = dataset.sample_id(len(dataset) - 1)
    np.testing.assert_array_equal(LabelFolder(taught.labels, CLASSES).read(name), LabelFolder(maps, CLASSES).read(name))


def test_without_enough_images_of_several_classes_there_is_no_second_teacher(tmp_path):
    dataset = dataset_of(pairs=1)
    (tmp_path / "maps").mkdir()
    maps = labels_of(dataset, tmp_path / "maps")
    taught = train_with_teachers(dataset, maps, tmp_path / "run", student_config(steps=2), TWO_TEACHERS)
    assert taught.corrected is not None
    assert taught.checked is None
    assert taught.labels == tmp_path / "run" / "labels-corrected"


def test_what_was_interrupted_ends_as_what_was_not(tmp_path, labels):
    settings = student_config(steps=4), replace(TWO_TEACHERS, confidence=0.0, background_confidence=1.0)
    whole = train_with_teachers(dataset_of(), labels, tmp_path / "whole", *settings)
    assert whole.labels.name == "labels-checked"
    for stop in (10, 20, 16, 28, 20, 12):  # while hiding, in the teacher, while correcting; the same of the second
        with pytest.raises(Cancelled):
            train_with_teachers(dataset_of(), labels, tmp_path / "parts", *settings, should_stop=StopAfter(stop))
    parts = train_with_teachers(dataset_of(), labels, tmp_path / "parts", *settings)
    for path in whole.labels.glob("*.png"):
        assert path.read_bytes() == (parts.labels / path.name).read_bytes()
    assert (whole.student.bundle / "model.safetensors").read_bytes() == (
        parts.student.bundle / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("correction", [None, TWO_TEACHERS])
def test_where_there_is_nothing_to_correct_the_maps_are_used_as_they_are(tmp_path, correction):
    dataset = scenes(6)
    (tmp_path / "maps").mkdir()
    folder = labels_of(dataset, tmp_path / "maps")
    taught = train_with_teachers(dataset, folder, tmp_path, student_config(steps=2), correction)
    assert taught.labels == folder
    assert not (tmp_path / "teacher").exists()


def test_maps_of_other_data_are_refused(tmp_path, labels):
    class Elsewhere(MemoryDataset):
        def sample_id(self, index):
            return f"elsewhere{index}"

    with pytest.raises(DatasetError, match="no label map belongs"):
        correct_labels(Elsewhere(scenes(3).samples), labels, tmp_path / "out", CONFIG)


def test_another_teacher_other_maps_and_other_classes_are_refused(tmp_path, labels):
    dataset = dataset_of()
    teacher = train_with_teachers(dataset, labels, tmp_path / "run", student_config(steps=2), CONFIG).student.bundle
    correct_labels(dataset, labels, tmp_path / "new", CONFIG)
    with pytest.raises(CheckpointError, match="other settings"):
        correct_labels(dataset, labels, tmp_path / "new", CONFIG, teacher=teacher)
    (tmp_path / "again").mkdir()
    write_index(labels_of(dataset, tmp_path / "again"), {"classes": list(CLASSES), "threshold": 0.3})
    with pytest.raises(CheckpointError, match="other settings"):
        correct_labels(dataset, tmp_path / "again", tmp_path / "new", CONFIG)
    other = MemoryDataset(dataset.samples, ("milk", "ketchup", "jam"))
    for path in labels.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_index(tmp_path, {"classes": ["milk", "ketchup", "jam"]})
    with pytest.raises(DatasetError, match="teacher must know milk, ketchup, jam"):
        correct_labels(other, tmp_path, tmp_path / "other", CONFIG, teacher=teacher)


@pytest.mark.parametrize("change", [{"least": 0}, {"confidence": 1.5}, {"background_confidence": -0.1}, {"parts": 2}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        CorrectLabelsConfig(**change)
