# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from deal_ros.cams import CamNetwork, CamOutput, min_max, multiscale_cam

torch.set_num_threads(1)


class Redness(CamNetwork):
    """Sees red in class 0 and blue in class 1, at half the resolution."""

    num_classes = 2
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.sizes = []

    def forward(self, image, features=None):
        self.sizes.append(tuple(image.shape[-2:]))
        raw = nn.functional.avg_pool2d(image, 2)[:, [0, 2]]
        return CamOutput(scores=raw.mean((2, 3)), raw=raw, cam=raw.relu())


def picture():
    rgb = torch.zeros(1, 3, 32, 48, dtype=torch.uint8)
    rgb[:, 0, 4:12, 8:20] = 255
    rgb[:, 2, 20:28, 30:44] = 200
    return rgb


def test_maps_lie_where_the_colour_is_at_every_scale():
    cam = multiscale_cam(Redness(), picture(), scales=(0.5, 1.0, 1.5))
    assert cam.shape == (1, 2, 32, 48)
    assert cam.dtype == torch.float32
    assert cam[0, 0, 6:10, 10:18].min() > 0.8
    assert cam[0, 1, 22:26, 32:42].min() > 0.8
    assert cam[0, 0, 20:].max() < 0.05


def test_mirror_image_changes_nothing_for_a_network_without_sides():
    assert torch.allclose(
        multiscale_cam(Redness(), picture(), flip=True), multiscale_cam(Redness(), picture(), flip=False), atol=1e-6
    )


def test_absent_classes_become_zero_and_present_ones_reach_one():
    cam = multiscale_cam(Redness(), picture(), torch.tensor([[0, 1]]))
    assert not cam[0, 0].any()
    assert cam[0, 1].max() == 1


def test_default_scales_are_those_of_the_network():
    network = Redness()
    network.seed_scales = (1.0, 0.5)
    multiscale_cam(network, picture(), flip=False)
    assert network.sizes == [(32, 48), (16, 24)]


def test_the_mode_of_the_network_is_put_back():
    network = Redness().train()
    multiscale_cam(network, picture())
    assert network.training
    assert network.norm.training


def test_float_and_uint8_images_agree():
    assert torch.allclose(
        multiscale_cam(Redness(), picture()), multiscale_cam(Redness(), picture().float() / 255), atol=1e-6
    )


def test_min_max_of_a_flat_map_is_zero():
    assert not min_max(torch.full((1, 1, 4, 4), 3.0)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rgb": torch.zeros(3, 32, 48)}, r"rgb must be"),
        ({"labels": torch.ones(1, 5)}, r"labels must be \(1, 2\), got \(1, 5\)"),
        ({"scales": ()}, "scales must be positive"),
        ({"scales": (1.0, -1.0)}, "scales must be positive"),
    ],
)
def test_wrong_use_is_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        multiscale_cam(Redness(), **{"rgb": picture(), **arguments})
