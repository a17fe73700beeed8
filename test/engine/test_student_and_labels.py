# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From a trained CAM network to label maps, from label maps to a bundle, and what is measured of each."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from engine_runs import StopAfter, assert_same_run
from engine_scenes import CLASSES, SIZE, MemoryDataset, cam_config, label_config, scenes, student_config
from torch.nn import functional as F

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.views import spread
from deal_ros.engine.checkpoint import CheckpointError
from deal_ros.engine.distributed import Ranks, alone
from deal_ros.engine.evaluate import EvaluateConfig, MapScores, evaluate_cam, evaluate_labels, evaluate_student
from deal_ros.engine.label_folder import LabelFolder, read_map, write_index, write_map
from deal_ros.engine.loader import FrameSource, LoaderConfig
from deal_ros.engine.progress import Cancelled, ignore_progress, never_stop
from deal_ros.engine.pseudo_label import CamMaker, PseudoLabelStageConfig, _threshold, pseudo_label
from deal_ros.engine.run_folder import RunFolder
from deal_ros.engine.train_cam import load_cam, train_cam
from deal_ros.engine.train_student import StudentLossConfig, _Criterion, class_weights, train_student
from deal_ros.metrics import SegmentationMetrics
from deal_ros.pseudo_labels import label_map
from deal_ros.students import InferenceConfig, Student, read_bundle
from deal_ros.students.pixels import network_size


@pytest.fixture(scope="module")
def cam_run(tmp_path_factory):
    """A CAM network that has seen a few scenes."""
    return train_cam(scenes(12), tmp_path_factory.mktemp("cam"), cam_config(steps=25)).run


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


# --- label maps -------------------------------------------------------------------------------------------------------


def test_every_labelled_sample_gets_a_map(tmp_path, cam_run):
    samples = scenes(6).samples
    samples[1] = replace(samples[1], labels=None)
    samples[2] = replace(samples[2], labels=frozenset())
    result = pseudo_label(MemoryDataset(samples), cam_run, tmp_path, label_config())
    maps = LabelFolder(tmp_path, CLASSES)
    assert [maps.has(f"s{i:03d}") for i in range(6)] == [True, False, True, True, True, True]
    assert not maps.read("s002").any()  # nothing in view is background, and that is certain
    for index in (0, 3, 4, 5):
        mask = maps.read(f"s{index:03d}")
        assert mask.shape == SIZE
        assert set(np.unique(mask)) <= {0, 255, 1 + index % 3}  # only classes that the labels name
    assert result.labelled == 5
    assert sum(result.fractions.values()) == pytest.approx(1)
    assert json.loads((tmp_path / "threshold.json").read_text())["mode"] == "contour"


def test_an_interrupted_labelling_goes_on_with_its_threshold(tmp_path, cam_run):
    pseudo_label(scenes(6), cam_run, tmp_path / "whole", label_config())
    with pytest.raises(Cancelled):
        pseudo_label(scenes(6), cam_run, tmp_path / "parts", label_config(), should_stop=StopAfter(7))
    assert 0 < len(files_of(tmp_path / "parts")) < 6
    with pytest.raises(DatasetError, match="to its end first"):
        LabelFolder(tmp_path / "parts", CLASSES)
    dataset = scenes(6)
    pseudo_label(dataset, cam_run, tmp_path / "parts", label_config())
    assert len(dataset.decoded) < 6
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_labels_of_another_size_than_training_keep_their_own(tmp_path, cam_run):
    dataset = scenes(2, size=(60, 100))
    for resolution in ("training", "native"):
        config = replace(label_config(mode="fixed"), resolution=resolution)
        pseudo_label(dataset, cam_run, tmp_path / resolution, config)
        assert read_map(tmp_path / resolution / "s000.png", 3).shape == (60, 100)


def test_the_swept_threshold_needs_truth(tmp_path, cam_run):
    blind = MemoryDataset([replace(s, mask=None) for s in scenes(3).samples])
    with pytest.raises(ValueError, match="pixel truth"):
        pseudo_label(blind, cam_run, tmp_path / "blind", label_config(mode="swept"))
    config = replace(label_config(mode="swept", refine="none", band=0.0), threshold_samples=6)
    swept = pseudo_label(scenes(6), cam_run, tmp_path / "seen", config)
    scores = evaluate_cam(scenes(6), load_cam(cam_run)[0], label_config(), SIZE, EvaluateConfig(contours=False))
    assert swept.threshold == pytest.approx(scores["swept"]["threshold"], abs=0.011)


def test_a_rank_that_comes_late_to_a_fixed_threshold_waits_as_often_as_the_others(tmp_path, cam_run):
    """It may find the file that the first rank has written; going another way then, all would wait for ever."""

    class Counting(Ranks):
        def barrier(self):
            waits.append(self.rank)

    waits, config = [], label_config(mode="fixed")
    maker = CamMaker(load_cam(cam_run)[0], config, SIZE, torch.device("cpu"))
    for rank in (0, 1):
        ranks = Counting(rank, 2, torch.device("cpu"))
        folder = RunFolder(tmp_path, {}, writer=rank == 0)
        assert _threshold(scenes(2), [0], maker, config, folder, ranks, ignore_progress, never_stop, {}) == 0.5
    assert waits.count(0) == waits.count(1) > 0


def test_other_classes_are_refused(tmp_path, cam_run):
    with pytest.raises(DatasetError, match="classes that"):
        pseudo_label(MemoryDataset([], ("cup",)), cam_run, tmp_path)


# --- students ---------------------------------------------------------------------------------------------------------


def test_a_student_learns_true_masks_and_its_bundle_is_the_chosen_network(tmp_path):
    dataset = scenes(12)
    result = train_student(dataset, None, tmp_path, student_config(steps=60), provenance={"commit": "abc"})
    assert result.agreement > 0.6
    student, spec = read_bundle(result.bundle)
    assert spec.classes == CLASSES
    assert spec.training["commit"] == "abc"
    assert spec.training["labels"] == "true masks"
    figures = evaluate_student(dataset, student)
    assert figures["miou"] > 0.6
    assert figures["label_recovery"] > 0.9
    assert figures["samples"] == 12
    assert set(figures["iou"]) == {"background", *CLASSES}


@pytest.mark.parametrize("change", [{}, {"ema": 0.9}, {"loss": StudentLossConfig(kind="clipped")}])
def test_a_resumed_student_equals_an_uninterrupted_one(tmp_path, change):
    config = student_config(steps=5, **change)
    whole = train_student(scenes(8), None, tmp_path / "whole", config)
    with pytest.raises(Cancelled):
        train_student(scenes(8), None, tmp_path / "parts", config, should_stop=StopAfter(2))
    parts = train_student(scenes(8), None, tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert read_bundle(whole.bundle)[1].weights_sha256 == read_bundle(parts.bundle)[1].weights_sha256


def test_a_student_trains_on_label_maps_alone(tmp_path, cam_run):
    pseudo_label(scenes(8), cam_run, tmp_path / "labels", label_config())
    blind = MemoryDataset([replace(s, mask=None, labels=None) for s in scenes(8).samples])
    result = train_student(blind, tmp_path / "labels", tmp_path / "student", student_config(steps=2))
    assert 0 <= result.agreement <= 1


def test_the_mask_transformer_trains_too(tmp_path):
    config = student_config(steps=2, student="mask_transformer", arguments={"encoder": "test_vit"})
    assert read_bundle(train_student(scenes(6), None, tmp_path, config).bundle)[0].name == "mask_transformer"


def test_rare_classes_weigh_more_and_the_mean_weight_is_one():
    source = FrameSource(scenes(6), LoaderConfig(size=SIZE), seed=0, target=lambda index, sample: sample.mask)
    weights = class_weights(source, 3, balance=0.5)
    assert weights[0] < 1 < weights[1:].min()
    shares = np.bincount(np.concatenate([s.mask.ravel() for s in scenes(6).samples]), minlength=4) / (6 * 48 * 64)
    assert float((weights.numpy() * shares).sum()) == pytest.approx(1, abs=0.02)
    assert torch.allclose(class_weights(source, 3, balance=0.0), torch.ones(4))


def test_labelled_pixels_count_as_before_where_others_are_unlabelled():
    class Fixed(torch.nn.Module):
        def normalize(self, rgb):
            return rgb

        def forward(self, rgb, features):
            return torch.tensor([[[[0.0, 1.0]], [[2.0, 0.5]], [[1.0, 3.0]]]])  # (1, 3, 1, 2)

    config = StudentLossConfig(stride=1, absent=0.5)
    loss = _Criterion(Fixed(), config, torch.ones(3))
    plain = _Criterion(Fixed(), replace(config, absent=0.0), torch.ones(3))
    rgb, labels = torch.zeros(1, 3, 1, 2), torch.tensor([[1.0, 0.0]])
    full, half = torch.tensor([[[1, 0]]]), torch.tensor([[[1, 255]]])
    assert loss(rgb, full, labels, None) == plain(rgb, full, labels, None)
    logits = Fixed()(rgb, None)[0, :, 0]
    known = -logits[:, 0].log_softmax(0)[1]
    unknown = -logits[:, 1].softmax(0)[:2].sum().log()
    torch.testing.assert_close(loss(rgb, half, labels, None), (known + 0.5 * unknown) / 2)


@pytest.mark.parametrize("said", [True, False])
def test_unlabelled_pixels_teach_what_is_not_in_view(tmp_path, said):
    """Only milk has label maps; ketchup and butter are unlabelled, so that nothing else tells them from milk."""
    samples = [
        replace(s, mask=np.where(s.mask > 1, 255, s.mask).astype(np.uint8), labels=s.labels if said else None)
        for s in scenes(12).samples
    ]
    belief = {}
    for absent in (0.0, 1.0):
        config = student_config(steps=30, loss=StudentLossConfig(absent=absent))
        run = train_student(MemoryDataset(samples), None, tmp_path / str(absent), config)
        student = read_bundle(run.bundle)[0].eval()
        milk = []
        for sample, truth in zip(samples, scenes(12).samples):
            rgb = torch.from_numpy(sample.rgb).permute(2, 0, 1)[None]
            with torch.no_grad():
                logits = F.interpolate(student(student.normalize(rgb)), SIZE, mode="bilinear")
            milk.append(logits.softmax(1)[0, 1].numpy()[truth.mask > 1])
        belief[absent] = float(np.concatenate(milk).mean())
    if said:
        assert belief[1.0] < belief[0.0] / 3
    else:
        assert belief[1.0] == pytest.approx(belief[0.0], rel=1e-3)  # nobody said what is in view


def test_maps_without_any_labelled_pixel_are_refused():
    ignored = np.full(SIZE, 255, np.uint8)
    source = FrameSource(scenes(2), LoaderConfig(size=SIZE), seed=0, target=lambda index, sample: ignored)
    with pytest.raises(DatasetError, match="no labelled pixel"):
        class_weights(source, 3, 0.5)


def test_missing_maps_and_masks_are_named(tmp_path):
    write_index(tmp_path, {"classes": list(CLASSES)})
    with pytest.raises(DatasetError, match="no label map belongs"):
        train_student(scenes(2), tmp_path, tmp_path / "out", student_config())
    blind = MemoryDataset([replace(s, mask=None) for s in scenes(2).samples])
    with pytest.raises(DatasetError, match="no true mask"):
        train_student(blind, None, tmp_path / "out2", student_config())


def test_another_run_in_the_folder_is_refused(tmp_path):
    train_student(scenes(6), None, tmp_path, student_config(steps=1))
    with pytest.raises(CheckpointError, match="other settings"):
        train_student(scenes(6), None, tmp_path, student_config(steps=2))


# --- label folders ----------------------------------------------------------------------------------------------------


def test_damaged_maps_and_indices_are_named(tmp_path):
    with pytest.raises(DatasetError, match="run the stage"):
        LabelFolder(tmp_path, CLASSES)
    write_index(tmp_path, {"classes": ["cup"]})
    with pytest.raises(DatasetError, match="for the classes milk"):
        LabelFolder(tmp_path, CLASSES)
    (tmp_path / "labels.json").write_text("{]")
    with pytest.raises(DatasetError, match="not readable"):
        LabelFolder(tmp_path, CLASSES)
    path = tmp_path / "a.png"
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        read_map(path, 3)
    write_map(path, np.full((4, 4), 9, np.uint8))
    with pytest.raises(DatasetError, match=r"ids must be 0\.\.3"):
        read_map(path, 3)
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DatasetError, match="8-bit grey"):
        read_map(path, 3)
    assert not list(tmp_path.glob(".*partial"))


# --- evaluation -------------------------------------------------------------------------------------------------------


class Oracle(Student):
    """Knows the scenes: gives each image the logits of its true mask."""

    name = "oracle"
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, dataset, wrong=()):
        super().__init__(len(CLASSES))
        self.known = {sample.rgb.tobytes(): sample.mask for sample in dataset.samples}
        self.wrong = wrong

    def forward(self, image, features=None):
        rgb = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
        mask = torch.from_numpy(self.known[rgb.tobytes()]).long()
        for old, new in self.wrong:
            mask[mask == old] = new
        return torch.nn.functional.one_hot(mask, 4).permute(2, 0, 1)[None].float() * 9


def test_a_perfect_student_scores_one():
    dataset = scenes(6)
    figures = evaluate_student(dataset, Oracle(dataset).eval())
    assert figures["miou"] == figures["pixel_accuracy"] == 1
    assert figures["contour_f"] == pytest.approx(1)
    assert figures["label_recovery"] == 1


def test_a_confused_student_is_seen_by_every_figure():
    dataset = scenes(6)
    figures = evaluate_student(dataset, Oracle(dataset, wrong=[(1, 2)]).eval())
    assert figures["iou"]["milk"] == 0
    assert figures["iou"]["butter"] == 1
    assert figures["miou"] < 0.8
    assert figures["label_recovery"] < 1


def test_a_student_is_measured_at_the_size_at_which_a_robot_asks_it():
    class Witness(Oracle):
        def forward(self, image, features=None):
            seen.append(tuple(image.shape[-2:]))
            return torch.zeros(1, 4, *image.shape[-2:])

    dataset, seen = scenes(1), []
    student = Witness(dataset).eval()
    trained = (96, 128)
    evaluate_student(dataset, student, input_size=trained)
    evaluate_student(dataset, student)
    several = EvaluateConfig(inference=InferenceConfig(scales=(1.0, 1.5)))  # as papers do: of the image's own size
    evaluate_student(dataset, student, several, input_size=trained)
    assert seen == [network_size(SIZE, trained), SIZE, SIZE, (SIZE[0] * 3 // 2, SIZE[1] * 3 // 2)]
    assert seen[0] != SIZE


def test_without_masks_only_label_recovery_is_known():
    dataset = scenes(6)
    student = Oracle(dataset).eval()
    blind = MemoryDataset([replace(s, mask=None) for s in dataset.samples])
    figures = evaluate_student(blind, student)
    assert figures["miou"] is None
    assert figures["label_recovery"] == 1


def test_a_large_data_set_does_not_fill_the_memory_with_maps(monkeypatch):
    monkeypatch.setattr("deal_ros.engine.evaluate.CONTOUR_IMAGES", 4)
    compared: list[int] = []
    monkeypatch.setattr("deal_ros.engine.evaluate.contour_f_score", lambda mask, truth: compared.append(1) or 0.5)
    cam, truth = torch.rand(3, 8, 8), np.ones((8, 8), np.uint8)
    scores = MapScores(3, images=11)
    for row in range(11):
        scores.update(row, cam, truth, torch.ones(3))
    figures = scores.result({}, alone("cpu"))
    assert figures["swept"]["contour_f"] == 0.5
    assert 2 <= len(compared) <= 4


def test_the_sweep_equals_thresholding_by_hand(cam_run):
    dataset, network = scenes(5), load_cam(cam_run)[0]
    figures = evaluate_cam(dataset, network, label_config(), SIZE, thresholds={"half": 0.5})
    maker = CamMaker(network, label_config(), SIZE, torch.device("cpu"))
    for threshold in (0.25, 0.5, 0.7):
        metrics = SegmentationMetrics(3)
        for sample in dataset.samples:
            cam, present = maker(sample, CLASSES, refined=False)
            metrics.update(label_map(cam, present, threshold), sample.mask)
        assert figures["curve"][round(100 * threshold) - 1] == pytest.approx(metrics.miou())
    assert figures["half"]["miou"] == pytest.approx(figures["curve"][49])
    assert figures["swept"]["miou"] == max(figures["curve"])
    assert 0 <= figures["swept"]["contour_f"] <= 1


def test_label_maps_are_scored(tmp_path):
    dataset = scenes(3)
    for index, sample in enumerate(dataset.samples):
        write_map(tmp_path / f"s{index:03d}.png", sample.mask)
    write_index(tmp_path, {"classes": list(CLASSES)})
    assert evaluate_labels(dataset, tmp_path)["miou"] == 1
    write_map(tmp_path / "s000.png", np.full(SIZE, 255, np.uint8))
    assert evaluate_labels(dataset, tmp_path)["miou"] < 1


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="must have the student's 3 classes"):
        evaluate_student(MemoryDataset([], ("cup",)), Oracle(scenes(1)))


def test_samples_are_spread_evenly():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([5, 6], 0) == spread([5, 6], 9) == [5, 6]


def test_the_stage_refuses_impossible_settings():
    with pytest.raises(ValueError, match="threshold_samples"):
        PseudoLabelStageConfig(threshold_samples=0)
    with pytest.raises(ValueError, match="balance"):
        StudentLossConfig(balance=2)
