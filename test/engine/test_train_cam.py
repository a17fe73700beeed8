# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Every network with every loss learns, resumes bit by bit, and picks its weights by image labels alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_runs import StopAfter, assert_same_run, weights_of
from engine_scenes import NETWORKS, SIZE, MemoryDataset, cam_config, scenes

from deal_ros.cams import create_cam_network
from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.views import ForgottenLabels, Subset
from deal_ros.engine.checkpoint import CheckpointError, load_checkpoint
from deal_ros.engine.distributed import alone
from deal_ros.engine.objective import LOSS_CHOICES, CamLossConfig, CamObjective, parse_terms
from deal_ros.engine.optimization import _autocast_dtype
from deal_ros.engine.progress import Cancelled
from deal_ros.engine.run_folder import read_metrics
from deal_ros.engine.train_cam import load_cam, train_cam, without_losses
from deal_ros.losses import LossWeightConfig


@pytest.mark.parametrize("terms", LOSS_CHOICES)
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "timm-vit"])
def test_classification_is_learnt(tmp_path, network, terms):
    config = cam_config(network, terms, steps=40)
    config = replace(config, evaluate_every=10, checkpoint_every=40)
    result = train_cam(scenes(12), tmp_path, config)
    assert result.map > 0.95
    records = read_metrics(tmp_path)
    expected = {"lambda", "gradient_ratio", "depth_edge_fraction", "cam_edge_fraction", "cam_activation"}
    assert (expected <= records[-1].keys()) == ("deal" in terms)
    assert ("isl" in records[-1] and "fsl" in records[-1]) == ("isl" in terms)
    assert (tmp_path / "curves.png").stat().st_size > 5000
    loaded, classes, stored = load_cam(tmp_path)
    assert (classes, stored) == (("milk", "ketchup", "butter"), config)
    assert not loaded.training


@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, network):
    terms = "isl,fsl,deal" if network != "timm-vit" else "deal"
    cached = 2 if network == "timm" else 0
    config = cam_config(network, terms, steps=5, cached_views=cached)
    train_cam(scenes(8), tmp_path / "whole", config)
    for stop in (2, 1):
        with pytest.raises(Cancelled, match="start again"):
            train_cam(scenes(8), tmp_path / "parts", config, should_stop=StopAfter(stop))
    assert train_cam(scenes(8), tmp_path / "parts", config).step > 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_killed_run_repeats_what_came_after_its_checkpoint(tmp_path):
    config = cam_config(steps=5)
    train_cam(scenes(8), tmp_path / "whole", config)

    class Killed(BaseException):
        pass

    def kill(progress):
        if progress.done == 5:
            raise Killed

    with pytest.raises(Killed):
        train_cam(scenes(8), tmp_path / "killed", config, on_progress=kill)
    assert load_checkpoint(tmp_path / "killed" / "last.safetensors").state["step"] == 3
    assert len(read_metrics(tmp_path / "killed")) == 5
    train_cam(scenes(8), tmp_path / "killed", config)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_run_is_not_repeated(tmp_path):
    first = train_cam(scenes(8), tmp_path, cam_config(steps=2))
    dataset = scenes(8)
    again = train_cam(dataset, tmp_path, cam_config(steps=2))
    assert dataset.decoded == []
    assert (again.map, again.step) == (first.map, first.step)


def test_other_settings_or_data_in_the_folder_are_refused(tmp_path):
    train_cam(scenes(8), tmp_path, cam_config(steps=2))
    with pytest.raises(CheckpointError, match=r"steps: was 2, asked for 3"):
        train_cam(scenes(8), tmp_path, cam_config(steps=3))
    with pytest.raises(CheckpointError, match=r"samples: was 8, asked for 9"):
        train_cam(scenes(9), tmp_path, cam_config(steps=2))
    others = scenes(16)
    for other in (Subset(others, range(8, 16)), ForgottenLabels(scenes(8), 1.0)):
        with pytest.raises(CheckpointError, match=r"content: was \d+, asked for \d+"):
            train_cam(other, tmp_path, cam_config(steps=2))
    with pytest.raises(CheckpointError, match="validation: was None"):
        train_cam(scenes(8), tmp_path, cam_config(steps=2), validation=scenes(8))


def test_cached_features_train_like_computed_ones(tmp_path):
    live = train_cam(scenes(8), tmp_path / "live", cam_config(steps=4))
    cached = train_cam(scenes(8), tmp_path / "cached", cam_config(steps=4, cached_views=1))
    # The cache knows no flips with one view; what is compared is that both learn from the same start.
    first, second = read_metrics(live.run)[0], read_metrics(cached.run)[0]
    assert first["classification"] == pytest.approx(second["classification"], rel=0.05)


def test_accumulated_rounds_equal_one_large_batch(tmp_path):
    config = cam_config("timm-vit", "none", steps=3)  # no batch statistics, no sampling
    rounds = replace(config, optimization=replace(config.optimization, accumulate=3))
    train_cam(scenes(12), tmp_path / "one", config)
    train_cam(scenes(12), tmp_path / "three", rounds)
    one, three = weights_of(tmp_path / "one"), weights_of(tmp_path / "three")
    assert max(float((one[k] - three[k]).abs().max()) for k in one) < 1e-4


def test_a_run_can_start_from_another(tmp_path):
    base = train_cam(scenes(8), tmp_path / "base", cam_config(terms="none", steps=2))
    config = replace(cam_config(steps=1), initial=base.run)
    config = replace(config, optimization=replace(config.optimization, lr=1e-12))
    train_cam(scenes(8), tmp_path / "on", config)
    first, second = weights_of(tmp_path / "base", "best"), weights_of(tmp_path / "on", "best")
    name = "classifier.weight"
    torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)


def test_the_newest_weights_of_nearly_the_best_map_are_chosen(tmp_path, monkeypatch):
    figures = iter([0.5, 0.9, 0.88, 0.6])
    monkeypatch.setattr("deal_ros.engine.train_cam._MapMeter.__call__", lambda self, network: next(figures))
    config = replace(cam_config(steps=4), evaluate_every=1, map_tolerance=0.03)
    result = train_cam(scenes(8), tmp_path, config)
    assert (result.step, result.map) == (3, 0.88)


def test_weights_from_before_deal_had_its_say_are_not_chosen(tmp_path, monkeypatch):
    figures = iter([0.9, 0.9, 0.5, 0.6])
    monkeypatch.setattr("deal_ros.engine.train_cam._MapMeter.__call__", lambda self, network: next(figures))
    config = replace(cam_config(steps=4), evaluate_every=1)
    late = LossWeightConfig(mode="gradient_ratio", value=1.0, start_step=2, warmup_steps=1)
    config = replace(config, losses=replace(config.losses, deal_weight=late))
    assert train_cam(scenes(8), tmp_path, config).step == 4


def test_true_masks_are_never_looked_at(tmp_path):
    blind = MemoryDataset([replace(s, mask=None) for s in scenes(8).samples])
    train_cam(scenes(8), tmp_path / "seen", cam_config(steps=2))
    train_cam(blind, tmp_path / "blind", cam_config(steps=2))
    assert_same_run(tmp_path / "seen", tmp_path / "blind")


def test_held_out_samples_give_the_map(tmp_path):
    result = train_cam(scenes(8), tmp_path, cam_config(steps=2), validation=scenes(6, seed=500))
    assert result.metrics["map_on"] == "held-out samples"
    assert 0 <= result.map <= 1


def test_no_labels_at_all_is_an_error(tmp_path):
    dataset = MemoryDataset([replace(s, labels=None) for s in scenes(3).samples])
    with pytest.raises(DatasetError, match="labels"):
        train_cam(dataset, tmp_path, cam_config())


def test_shuffled_depth_changes_what_deal_learns(tmp_path):
    aligned = train_cam(scenes(8), tmp_path / "a", cam_config(steps=2))
    shuffled = train_cam(scenes(8), tmp_path / "s", cam_config(steps=2, shuffle_depth=True))
    assert aligned.metrics["deal"] != shuffled.metrics["deal"]


def test_terms_are_read_and_checked():
    assert parse_terms("none") == ()
    assert parse_terms("isl, deal") == ("isl", "deal")
    for wrong in ("edge", "deal,deal", "", "none,deal"):
        with pytest.raises(ValueError, match="losses must be"):
            parse_terms(wrong)
    with pytest.raises(ValueError, match="losses must be"):
        CamLossConfig(terms="edges")
    assert without_losses(cam_config()).losses.terms == "none"


def test_progress_has_the_figures_that_matter(tmp_path):
    reports = []
    train_cam(scenes(8), tmp_path, cam_config(steps=3), on_progress=reports.append)
    assert [(r.stage, r.done, r.total) for r in reports] == [("train-cam", i, 3) for i in (1, 2, 3)]
    assert {"loss", "lambda", "gradient_ratio", "map"} <= reports[-1].metrics.keys()
    assert all(np.isfinite(list(r.metrics.values())).all() for r in reports)


@pytest.mark.parametrize(
    ("network", "arguments", "averaged", "weight"),
    [
        ("timm", {}, "classification", 1.0),
        ("timm", {"scorer": "separate"}, "cam_classification", 1.0),
        ("weaktr", {}, "patches", 1.0),
        ("seam", {}, "classification", 0.5),  # as released: .4 and .1 of the large image, .5 of the small one
    ],
)
def test_isl_takes_its_share_of_the_loss_on_averaged_maps(monkeypatch, network, arguments, averaged, weight):
    monkeypatch.setattr("deal_ros.engine.objective.importance_sampling_loss", lambda *a, **k: torch.tensor(3.0))
    config = cam_config(network, "isl")
    made = create_cam_network(config.network, 3, **{**config.arguments, **arguments}).eval()
    rgb = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    _, own = made.training_forward(made.normalize(rgb), labels)
    loss, _, _ = CamObjective(made, config.losses, alone("cpu"))(0, True, rgb, torch.ones(2, 1, *SIZE), labels)
    expected = sum(own.values()) + 0.2 * (weight * 3.0 - own[averaged])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_auto_precision_is_bf16_only_where_a_gpu_computes_in_it(monkeypatch, capability, expected):
    """Torch says that older GPUs support it, too: they emulate it, slowly."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert _autocast_dtype("auto", torch.device("cuda")) is expected
    assert _autocast_dtype("auto", torch.device("cpu")) is None
