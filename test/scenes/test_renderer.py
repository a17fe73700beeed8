# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import ctypes.util
import dataclasses
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from deal_ros.scenes import OpenGLError, SceneRenderer, onboarding_scene, opengl, tabletop_scene
from deal_ros.scenes.scene import CameraPose

pytest.importorskip("mujoco")
CLASSES = ("milk", "ketchup", "butter")


@pytest.fixture(scope="module")
def renderer():
    with SceneRenderer((120, 160), supersampling=1) as made:
        yield made


def world_points(sample, pose):
    rows, columns = np.indices(sample.size)
    rays = np.stack([columns, rows, np.ones(sample.size)], axis=-1) @ np.linalg.inv(sample.camera_matrix).T
    return (rays * sample.depth_m[..., None]) @ pose.rotation().T + np.asarray(pose.position)


@pytest.mark.gl
def test_depth_and_camera_matrix_put_the_table_on_its_plane(renderer):
    scene = onboarding_scene("milk", seed=1, distractors=0, classes=CLASSES)
    renderer.load(dataclasses.replace(scene, table_half_size_m=(2.0, 2.0), room_half_size_m=3.0))
    sample = renderer.render(0.2)
    points = world_points(sample, scene.orbit.pose(0.2))
    table = sample.mask == 0
    assert np.abs(points[table][:, 2]).max() < 1e-3
    milk = points[sample.mask == 1]
    assert milk[:, 2].min() > -1e-3
    assert milk[:, 2].max() == pytest.approx(0.143, abs=0.01)  # its height, standing
    position = np.asarray(scene.items[0].position)
    assert np.abs(milk[:, :2] - position[:2]).max() < 0.05


@pytest.mark.gl
def test_every_field_of_the_sample_is_filled(renderer):
    renderer.load(tabletop_scene(["ketchup", "milk"], clutter=2, seed=4, classes=CLASSES))
    sample = renderer.render(0.6)
    assert sample.size == (120, 160)
    assert sample.labels == {CLASSES[i - 1] for i in np.unique(sample.mask) if 0 < i < 255}
    assert (sample.depth_m > 0.1).all()
    assert (sample.depth_m < 6).all()
    assert sample.frame_id == "camera_color_optical_frame"
    assert sample.source.startswith("tabletop-train-4@0.6")
    assert 40 < sample.rgb.mean() < 220
    assert sample.rgb.std() > 10


@pytest.mark.gl
def test_the_same_phase_gives_the_same_pixels_and_reloading_too(renderer):
    scene = onboarding_scene("ketchup", "down", seed=2, classes=CLASSES)
    renderer.load(scene)
    first = renderer.render(0.3)
    renderer.render(0.7)
    again = renderer.render(0.3)
    renderer.load(scene)
    reloaded = renderer.render(1.3)
    for other in (again, reloaded):
        np.testing.assert_array_equal(first.rgb, other.rgb)
        np.testing.assert_array_equal(first.depth_m, other.depth_m)
        np.testing.assert_array_equal(first.mask, other.mask)


@pytest.mark.gl
def test_mask_edges_are_depth_edges_and_ids_never_blend(renderer):
    renderer.load(onboarding_scene("milk", seed=5, distractors=0, classes=CLASSES))
    sample = renderer.render(0.1)
    assert set(np.unique(sample.mask)) == {0, 1}
    inside = sample.mask == 1
    top = np.argmax(inside.any(axis=1))
    column = int(np.flatnonzero(inside[top])[0])
    assert sample.depth_m[top - 1, column] > sample.depth_m[top, column] + 0.02  # behind the top edge: the table


@pytest.mark.gl
def test_a_sliver_of_a_class_is_not_labelled_and_is_ignored(renderer):
    scene = onboarding_scene("butter", seed=0, distractors=0, classes=CLASSES)
    renderer.load(scene)
    far = CameraPose((1.2, 0.0, 0.9), scene.orbit.target)
    pixels = int((renderer.render(far).mask == 3).sum())
    assert pixels > 0
    with SceneRenderer((120, 160), min_visible_pixels=pixels + 1) as strict:
        strict.load(scene)
        sample = strict.render(far)
    assert sample.labels == frozenset()
    assert set(np.unique(sample.mask)) == {0, 255}


@pytest.mark.gl
def test_supersampling_and_shadows_change_colour_only():
    scene = onboarding_scene("milk", seed=1, classes=CLASSES)
    samples = []
    for supersampling, shadows in ((1, False), (2, True)):
        with SceneRenderer((96, 128), shadows=shadows, supersampling=supersampling) as renderer:
            renderer.load(scene)
            samples.append(renderer.render(0.4))
    np.testing.assert_array_equal(samples[0].mask, samples[1].mask)
    np.testing.assert_array_equal(samples[0].depth_m, samples[1].depth_m)
    assert (samples[0].rgb != samples[1].rgb).any()


@pytest.mark.gl
def test_wrong_use_says_what_to_do():
    with pytest.raises(ValueError, match=r"size must be \(height, width\) of 16\.\.2048"):
        SceneRenderer((8, 320))
    with pytest.raises(ValueError, match=r"supersampling must be 1\.\.4, got 0"):
        SceneRenderer(supersampling=0)
    renderer = SceneRenderer((32, 32))
    with pytest.raises(RuntimeError, match="call load"):
        renderer.render(0.0)
    renderer.close()
    renderer.close()
    with pytest.raises(RuntimeError, match="closed"):
        renderer.load(onboarding_scene("milk", classes=CLASSES))


def test_without_an_opengl_library_the_packages_are_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(OpenGLError, match="sudo apt install libosmesa6 libegl1 libgl1-mesa-dri"):
        opengl.import_mujoco()


WITHOUT_OPENGL = """
import ctypes
plain = ctypes.CDLL.__init__
def hidden(self, name, *args, **options):
    if name and any(word in str(name) for word in ("OSMesa", "EGL", "libGL", "GLESv")):
        raise OSError(f"{name}: cannot open shared object file")
    plain(self, name, *args, **options)
ctypes.CDLL.__init__ = hidden
from deal_ros.scenes import OpenGLError, SceneRenderer, onboarding_scene
print(onboarding_scene("milk").name)
try:
    SceneRenderer((64, 64))
except OpenGLError as error:
    print(error)
"""


def test_scenes_are_composed_where_opengl_does_not_load():
    environment = {**os.environ, "MUJOCO_GL": "osmesa"}
    command = [sys.executable, "-c", WITHOUT_OPENGL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    name, message = done.stdout.splitlines()
    assert name == "onboarding-milk-up-train-0"
    assert "sudo apt install libosmesa6 libegl1 libgl1-mesa-dri" in message


def test_without_mujoco_the_package_is_named(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(OpenGLError, match="pip install mujoco"):
        opengl.import_mujoco()


def test_a_chosen_backend_is_left_alone(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setitem(sys.modules, "mujoco", SimpleNamespace(__version__="4.0.0", mjtLightType=None))
    opengl.import_mujoco()

    assert os.environ["MUJOCO_GL"] == "egl"
    monkeypatch.setitem(sys.modules, "mujoco", SimpleNamespace(__version__="3.2.7"))
    with pytest.raises(OpenGLError, match=r"must be 3\.3\.7 or newer, got 3\.2\.7"):
        opengl.import_mujoco()
