# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects of images that show one class alone appear in other training views, with their labels."""

import gc
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
from engine_scenes import SIZE, MemoryDataset, scenes, student_config

from deal_ros.engine.augmentation import PLAIN, Frame
from deal_ros.engine.loader import FrameSource, LoaderConfig
from deal_ros.engine.pasting import PasteConfig, Paster
from deal_ros.engine.train_student import train_student
from deal_ros.sample import IGNORE_ID

ALWAYS = PasteConfig(probability=1.0, most=1, zoom=(0.5, 0.5), rotate_deg=0.0)


def frame_of(ident, color, top=10, left=20, side=20):
    """A coloured square of one class on black."""
    rgb, target = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
    rgb[top : top + side, left : left + side] = color
    target[top : top + side, left : left + side] = ident
    return Frame(rgb, np.ones(SIZE, np.float32), np.eye(3, dtype=np.float32)[ident - 1], target)


def source_of(dataset=None, paste=ALWAYS, seed=0, views=3):
    config = LoaderConfig(size=SIZE, augmentation=replace(PLAIN, flip=True), cached_views=views)
    return FrameSource(dataset or scenes(6), config, seed=seed, target=lambda _, sample: sample.mask, paste=paste)


def test_an_object_comes_with_its_colour_its_class_and_its_size():
    paste = Paster(ALWAYS, [0], SIZE, PLAIN)
    lent = frame_of(2, (10, 200, 30), top=4, side=40)
    view = frame_of(1, (200, 0, 0), top=0, left=0, side=4)
    whole = 0
    for seed in range(20):
        made = paste(view, lambda _: lent, np.random.default_rng(seed))
        pasted = made.target == 2
        if not pasted.any():
            continue  # mostly outside the view
        inner = pasted & np.all(made.rgb == (10, 200, 30), axis=-1)
        assert inner.sum() > 0.5 * pasted.sum()  # its border is mixed with what it covers
        assert made.labels.tolist() == [1, 1, 0]
        near = cv2.dilate(pasted.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        np.testing.assert_array_equal(made.rgb[~near], view.rgb[~near])
        assert pasted.sum() <= 441
        whole += pasted.sum() >= 361
    assert whole > 5  # half of its size each way, wherever there was room
    assert set(np.unique(view.target)) == {0, 1}  # the view itself is not changed


def test_only_the_labelled_pixels_of_an_object_are_pasted():
    frame = frame_of(2, (10, 200, 30))
    frame.target[:, 30:] = IGNORE_ID
    paste = Paster(replace(ALWAYS, zoom=(1.0, 1.0)), [0], SIZE, PLAIN)
    for seed in range(10):
        made = paste(frame_of(1, (200, 0, 0)), lambda _: frame, np.random.default_rng(seed))
        assert (made.target == 2).sum() <= 11 * 21  # its border lies between pixels
        assert IGNORE_ID not in made.target


def test_random_views_alone_get_objects_and_always_the_same():
    bare, pasted, again = source_of(paste=None), source_of(), source_of()
    changed = 0
    for position in range(6):
        for number in (0, 1):
            np.testing.assert_array_equal(bare.view(position, number).rgb, pasted.view(position, number).rgb)
        np.testing.assert_array_equal(pasted.view(position, 2).rgb, again.view(position, 2).rgb)
        np.testing.assert_array_equal(pasted.view(position, 2).target, again.view(position, 2).target)
        changed += bool((pasted.view(position, 2).target != bare.view(position, 2).target).any())
    assert changed >= 3


def test_images_with_several_classes_or_none_lend_no_object():
    samples = scenes(3).samples
    samples[0] = replace(samples[0], labels=frozenset({"milk", "ketchup"}))
    samples[1] = replace(samples[1], labels=frozenset())
    ids = set()
    for seed in range(5):
        source = source_of(MemoryDataset(samples), seed=seed)
        ids |= set(np.unique(source.view(1, 2).target).tolist()) - set(np.unique(samples[1].mask).tolist())
    assert ids == {3}
    alone = source_of(MemoryDataset(samples[:2]))
    np.testing.assert_array_equal(
        alone.view(1, 2).rgb, source_of(MemoryDataset(samples[:2]), paste=None).view(1, 2).rgb
    )


def test_a_source_that_pastes_is_freed_when_nobody_has_it_any_more():
    gc.disable()
    try:
        source = source_of()
        source.view(0, 2)
        seen = weakref.ref(source)
        del source
        assert seen() is None  # its decoded frames can be gigabytes, and a teacher's would stay beside the student's
    finally:
        gc.enable()


def test_a_student_is_trained_on_what_was_pasted(tmp_path):
    loader = LoaderConfig(size=SIZE, augmentation=PLAIN)
    bundles = [
        train_student(scenes(6), None, tmp_path / name, student_config(steps=2, loader=loader, paste=paste)).bundle
        for name, paste in (("with", ALWAYS), ("without", None))
    ]
    assert (
        bundles[0].joinpath("model.safetensors").read_bytes() != bundles[1].joinpath("model.safetensors").read_bytes()
    )


@pytest.mark.parametrize(("views", "flip"), [(1, False), (2, True)])
def test_pasting_into_fixed_views_alone_is_refused(views, flip):
    loader = LoaderConfig(size=SIZE, augmentation=replace(PLAIN, flip=flip), cached_views=views)
    with pytest.raises(ValueError, match="paste needs random views"):
        student_config(loader=loader, paste=ALWAYS)


def test_an_empty_label_map_lends_nothing():
    frame = frame_of(2, (10, 200, 30))
    frame.target[:] = 0
    view = frame_of(1, (200, 0, 0))
    made = Paster(ALWAYS, [0], SIZE, PLAIN)(view, lambda _: frame, np.random.default_rng(0))
    np.testing.assert_array_equal(made.rgb, view.rgb)
    np.testing.assert_array_equal(made.target, view.target)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"probability": 1.2}, "probability"), ({"most": 0}, "most"), ({"zoom": (1.0, 0.5)}, "zoom")],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PasteConfig(**change)
