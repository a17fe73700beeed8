# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import math

import numpy as np
import pytest

from deal_ros.scenes import SPLITS, available_objects, onboarding_scene, surface_textures, tabletop_scene
from deal_ros.scenes.objects import load_geometry
from deal_ros.scenes.scene import CameraPose

pytest.importorskip("mujoco")


def test_same_arguments_same_scene_and_other_seed_other_scene():
    first = onboarding_scene("milk", "up", seed=3)
    assert first == onboarding_scene("milk", "up", seed=3)
    assert first.checksum() == onboarding_scene("milk", "up", seed=3).checksum()
    assert len({onboarding_scene("milk", pose, seed=s).checksum() for s in range(4) for pose in ("up", "down")}) == 8
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.seed = 4
    json.dumps(first.to_mapping())


def test_checksum_ignores_the_last_bits_of_floats():
    scene = onboarding_scene("milk")
    nudged = dataclasses.replace(scene, ambient=np.nextafter(scene.ambient, 1.0))
    assert nudged != scene
    assert nudged.checksum() == scene.checksum()


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_uses_its_own_textures_and_light(split):
    sectors = {"train": (0, 180), "val": (200, 255), "test": (280, 335)}
    for seed in range(5):
        scene = tabletop_scene(["milk", "ketchup"], clutter=3, seed=seed, split=split)
        assert {scene.table.texture, scene.floor.texture, scene.wall.texture} <= set(surface_textures(split))
        x, y, _ = scene.lights[0].direction
        assert sectors[split][0] <= math.degrees(math.atan2(-y, -x)) % 360 <= sectors[split][1]


def test_one_labelled_object_and_only_unlabelled_company():
    for count in range(3):
        scene = onboarding_scene("butter", seed=count, distractors=count)
        assert scene.labels == {"butter"}
        assert [item.class_id for item in scene.items] == [scene.classes.index("butter") + 1] + [0] * count


def test_the_object_is_where_the_camera_looks():
    for name in ("akita_black_bowl", "chefmate_8_frypan", "milk"):
        scene = onboarding_scene(name, seed=1, distractors=2)
        item = scene.items[0]
        points = placed(item)[:, :2]
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        assert np.linalg.norm(middle - scene.orbit.target[:2]) < 0.05, name


def placed(item):
    w, x, y, z = item.quaternion
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return load_geometry(item.name).hull @ rotation.T + item.position


def test_nothing_stands_in_something_else():
    names = list(available_objects())[:8]
    scene = tabletop_scene(names, clutter=4, seed=1)
    outlines = []
    for item in scene.items:
        if item.shape is None:
            points = placed(item)
            assert points[:, 2].min() == pytest.approx(0, abs=1e-6)
            outlines.append(points[:, :2])
    for i, first in enumerate(outlines):
        for second in outlines[:i]:  # convex sets are apart if some direction separates them
            gaps = [
                max((first @ d).min() - (second @ d).max(), (second @ d).min() - (first @ d).max())
                for d in (np.array([math.cos(a), math.sin(a)]) for a in np.linspace(0, math.pi, 180))
            ]
            assert max(gaps) > 0


def test_the_orbit_closes_and_keeps_its_distance():
    orbit = onboarding_scene("cookies", seed=2).orbit
    np.testing.assert_allclose(orbit.pose(0.0).position, orbit.pose(1.0).position)
    for phase in np.linspace(0, 1, 17):
        pose = orbit.pose(float(phase))
        distance = np.linalg.norm(np.subtract(pose.position, pose.target))
        assert 0.91 * orbit.distance_m <= distance <= 1.09 * orbit.distance_m
        np.testing.assert_allclose(pose.rotation().T @ pose.rotation(), np.eye(3), atol=1e-12)


def test_wrong_arguments_are_refused_with_the_range():
    with pytest.raises(ValueError, match="object_name must be one of the classes"):
        onboarding_scene("teapot")
    with pytest.raises(ValueError, match=r"distractors must be 0\.\.2, got 3"):
        onboarding_scene("milk", distractors=3)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        onboarding_scene("milk", seed=-1)
    with pytest.raises(ValueError, match=r"clutter 0\.\.8, got 1 and 9"):
        tabletop_scene(["milk"], clutter=9)
    with pytest.raises(ValueError, match="got teapot"):
        onboarding_scene("milk", classes=["milk", "teapot"])
    with pytest.raises(ValueError, match="straight up or down"):
        CameraPose((0, 0, 1), (0, 0, 0)).rotation()


def test_class_ids_follow_the_given_classes():
    scene = tabletop_scene(["ketchup", "milk"], clutter=0, classes=["milk", "ketchup"])
    assert [(item.name, item.class_id) for item in scene.items] == [("ketchup", 2), ("milk", 1)]
