# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn import functional as F

from deal_ros.students import Student, create_student
from deal_ros.students.inference import InferenceConfig, segment, window_logits


class PixelStudent(Student):
    """Looks at each pixel alone, so that windows, scales and mirrors must not matter."""

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def forward(self, image, features=None):
        return torch.cat([image * 3, image[:, :1] - image[:, 1:2]], dim=1)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def _smooth(height, width):
    coarse = torch.rand(2, 3, 4, 4)
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)


@pytest.mark.parametrize(
    "config",
    [
        InferenceConfig(flip=True),
        InferenceConfig(window=32, window_stride=20),
        InferenceConfig(window=32, window_stride=32, window_batch=1, flip=True),
        InferenceConfig(window=200, window_stride=100),
    ],
)
def test_pixelwise_student_gives_the_same_however_asked(config):
    student, rgb = PixelStudent(3).eval(), _smooth(71, 90)
    expected = student(student.normalize(rgb)).softmax(1)
    torch.testing.assert_close(segment(student, rgb, config), expected, atol=1e-5, rtol=1e-5)


def test_scales_are_averaged():
    student, rgb = PixelStudent(3).eval(), _smooth(96, 128)
    expected = student(student.normalize(rgb)).softmax(1)
    found = segment(student, rgb, InferenceConfig(scales=(0.75, 1.0, 1.5)))
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)


def test_probabilities_of_a_real_student():
    student = create_student("light", 3, weights="none", encoder="mobilenetv3_small_050", channels=16).eval()
    rgb = (_smooth(64, 96) * 255).to(torch.uint8)
    for config in (InferenceConfig(), InferenceConfig(scales=(0.5, 1.0), flip=True, window=64, window_stride=48)):
        probability = segment(student, rgb, config)
        assert probability.shape == (2, 4, 64, 96)
        torch.testing.assert_close(probability.sum(1), torch.ones(2, 64, 96))
    mirrored = segment(student, rgb.flip(-1), InferenceConfig(flip=True)).flip(-1)
    torch.testing.assert_close(segment(student, rgb, InferenceConfig(flip=True)), mirrored, atol=1e-5, rtol=1e-5)


def test_windows_end_with_the_image():
    student = PixelStudent(3).eval()
    seen = []
    student.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    window_logits(student, torch.randn(1, 3, 32, 75), InferenceConfig(window=32, window_stride=20, window_batch=2))
    assert seen == [(2, 3, 32, 32), (2, 3, 32, 32)]  # left edges 0, 20, 40 and 43


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="scales"):
        InferenceConfig(scales=())
    with pytest.raises(ValueError, match="window_stride in 1"):
        InferenceConfig(window=64, window_stride=65)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        segment(PixelStudent(3).eval(), torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="evaluation mode"):
        segment(PixelStudent(3).train(), torch.zeros(1, 3, 4, 4))
