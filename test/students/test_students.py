# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One base tester that every architecture inherits."""

from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from deal_ros.config import ConfigError, to_mapping
from deal_ros.students import STUDENTS, create_student


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


class StudentTester:
    name: str
    arguments: ClassVar[dict]
    trains_at: float
    classes = 3

    def make(self, **more):
        return create_student(self.name, self.classes, weights="none", **{**self.arguments, **more})

    def test_logits_cover_the_view(self):
        student = self.make().eval()
        logits = student(torch.randn(2, 3, 64, 96))
        assert logits.shape[:2] == (2, self.classes + 1)
        assert logits.shape[2] / logits.shape[3] == pytest.approx(64 / 96)

    @pytest.mark.parametrize("size", [(50, 70), (33, 97)])
    def test_odd_sizes_work(self, size):
        logits = self.make().eval()(torch.randn(1, 3, *size))
        assert torch.isfinite(logits).all()

    def test_config_builds_the_same_architecture_again(self):
        student = self.make()
        twin = create_student(self.name, self.classes, weights="none", **to_mapping(student.config))
        twin.load_state_dict(student.state_dict())
        image = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(student.eval()(image), twin.eval()(image))

    def test_learns_two_halves(self):
        """Left of the picture red, right green: solved in a few steps, or something does not get its gradient."""
        student = self.make().train()
        image = torch.zeros(4, 3, 64, 64)
        image[:, 0, :, :32] = image[:, 1, :, 32:] = 1
        image = image + 0.1 * torch.randn_like(image)
        target = torch.ones(4, 64, 64, dtype=torch.long)
        target[:, :, 32:] = 2
        optimizer = torch.optim.AdamW(student.parameter_groups(self.trains_at, 1e-4))
        for _ in range(25):
            logits = F.interpolate(student(image), size=(64, 64), mode="bilinear", align_corners=False)
            loss = F.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert (logits.argmax(1) == target).float().mean() > 0.9

    def test_every_trainable_parameter_is_in_one_group_and_gets_a_gradient(self):
        student = self.make().train()
        groups = student.parameter_groups(1.0, 0.1)
        grouped = [id(p) for group in groups for p in group["params"]]
        trainable = {id(p): n for n, p in student.named_parameters() if p.requires_grad}
        assert sorted(grouped) == sorted(trainable)
        assert {group["lr"] for group in groups} == {0.1, 1.0}
        student(torch.randn(2, 3, 64, 64)).square().sum().backward()
        without = [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None]
        unused = [n for n in without if not n.startswith("encoder.")]
        assert not unused

    def test_unknown_argument_names_the_known_ones(self):
        with pytest.raises(ConfigError, match=r"unknown key 'channel'|unknown key 'layer'"):
            self.make(**{"channel" if self.name == "light" else "layer": 3})

    def test_class_count_must_fit_a_mask(self):
        with pytest.raises(ValueError, match=r"1\.\.254"):
            create_student(self.name, 255, weights="none", **self.arguments)


class TestLight(StudentTester):
    name = "light"
    arguments: ClassVar[dict] = {"channels": 32}
    trains_at = 3e-3

    @pytest.mark.parametrize("frozen", [1, 2, 4, 5])
    def test_cached_features_give_the_same_logits(self, frozen):
        student = self.make(frozen_stages=frozen).train()
        student.dropout.p = 0.0
        image = torch.randn(2, 3, 64, 96)
        features = student.frozen_features(image)
        assert not any(feature.requires_grad for feature in features)
        torch.testing.assert_close(student(None, features), student(image))

    def test_half_precision_cache_is_accepted(self):
        student = self.make(frozen_stages=4).eval()
        image = torch.randn(1, 3, 64, 64)
        cached = [feature.half() for feature in student.frozen_features(image)]
        torch.testing.assert_close(student(None, cached), student(image), atol=0.02, rtol=0.02)

    def test_frozen_part_stays_as_it_was(self):
        student = self.make(frozen_stages=4)
        before = {n: v.clone() for n, v in student.encoder.state_dict().items()}
        optimizer = torch.optim.SGD(student.parameter_groups(1.0, 0.1))
        student.train()(torch.randn(4, 3, 64, 64)).square().mean().backward()
        optimizer.step()
        changed = {n for n, v in student.encoder.state_dict().items() if not torch.equal(v, before[n])}
        assert changed
        assert all(n.startswith("stages.4.") for n in changed)

    def test_nothing_frozen_has_nothing_to_cache(self):
        assert self.make().frozen_features(torch.randn(1, 3, 64, 64)) is None

    def test_finest_stride_sets_the_grid(self):
        image = torch.randn(1, 3, 64, 64)
        for stride in (2, 4, 8):
            assert self.make(finest_stride=stride).eval()(image).shape[-1] == 64 // stride

    @pytest.mark.parametrize("encoder", ["resnet10t", "mobilenetv3_small_050"])
    def test_any_cnn_of_timm(self, encoder):
        assert self.make(encoder=encoder).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 4, 16, 16)

    def test_refuses_what_cannot_be(self):
        with pytest.raises(ConfigError, match="channels must be in 8"):
            self.make(channels=4)
        with pytest.raises(ValueError, match="patch size"):
            self.make(encoder="deit_tiny_patch16_224")
        with pytest.raises(ValueError, match="image or features"):
            self.make()(None)


class TestMaskTransformer(StudentTester):
    name = "mask_transformer"
    arguments: ClassVar[dict] = {"encoder": "deit_tiny_patch16_224", "layers": 1}
    trains_at = 3e-3

    def test_scores_are_cosines_normalised_over_classes(self):
        logits = self.make().eval()(torch.randn(1, 3, 64, 64))
        torch.testing.assert_close(logits.mean(1), torch.zeros(1, 4, 4), atol=1e-5, rtol=0)

    def test_refuses_what_cannot_be(self):
        with pytest.raises(ValueError, match="vision transformer"):
            self.make(encoder="resnet10t")
        with pytest.raises(ValueError, match="no frozen part"):
            self.make()(None, [])


def test_every_architecture_is_tested():
    assert {TestLight.name, TestMaskTransformer.name} == set(STUDENTS)


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="light, mask_transformer"):
        create_student("heavy", 3)


def test_packaged_imagenet_weights_are_used():
    student, other = create_student("light", 3), create_student("light", 3, weights="none")
    stems = [network.encoder.state_dict()["stages.0.conv_stem.weight"] for network in (student, other)]
    assert not torch.equal(*stems)
    assert student.mean == (0.5, 0.5, 0.5)
