# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The examples run as they are written, on real samples, and do what they say."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
        assert len(path.read_text().splitlines()) <= 60, path.name


@pytest.mark.gl
def test_class_maps_average_to_the_scores_of_the_untouched_classifier(store):
    example = load("deal_in_a_timm_classifier")
    from deal_ros.backbones import import_timm

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
