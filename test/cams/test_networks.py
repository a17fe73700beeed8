# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every CAM network must do; each network's class below inherits all of it."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deal_ros.backbones import PACKAGED_WEIGHTS
from deal_ros.cams import CAM_NETWORKS, CamNetworkError, create_cam_network
from deal_ros.cams.alignment import mirror_shift_px

torch.set_num_threads(1)
K = 3


def pictures(size=64, count=6, seed=0):
    """Dark images with one or two coloured squares, and which colours are there: red, green, blue."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for i in range(count):
        image = np.full((3, size, size), 0.15, np.float32) + 0.05 * rng.random((3, size, size), np.float32)
        label = np.zeros(K, np.float32)
        for color in {i % K, int(rng.integers(K))}:
            y, x = rng.integers(0, size // 2, 2)
            image[:, y : y + size // 3, x : x + size // 3] = 0.1
            image[color, y : y + size // 3, x : x + size // 3] = 0.95
            label[color] = 1
        images.append(image)
        labels.append(label)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def blobs(size, count=4, seed=0):
    """Smooth random images, for finding displacements of a fraction of a pixel."""
    noise = torch.randn(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (size, size), mode="bicubic", align_corners=False)


def symmetrize(network):
    """Make every kernel its own mirror image, so that only the sampling grid can displace anything."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)


class CamNetworkTester:
    name: str
    arguments: ClassVar[dict] = {}
    size = 64
    seeing = "backbone"  # parameters that a loss on raw must reach
    mirror_tolerance_px = 1.0
    learning_rate = 2e-3
    steps = 12

    def make(self, **arguments):
        torch.manual_seed(0)
        return create_cam_network(self.name, K, **{"weights": "none", **self.arguments, **arguments})

    def make_symmetric(self):
        network = self.make()
        symmetrize(network)
        return network.eval()

    @pytest.mark.parametrize("size", [(64, 64), (64, 96), (70, 90)])
    def test_output_shapes(self, size):
        network = self.make().eval()
        with torch.no_grad():
            output = network(torch.randn(2, 3, *size))
        cells = tuple(max(1, round(side / network.stride)) for side in size)
        assert output.scores.shape == (2, K)
        assert output.raw.shape == (2, K, *cells)
        assert output.cam.shape[:2] == (2, K)
        assert output.cam.min() >= 0
        assert all(torch.isfinite(t).all() for t in (output.scores, output.raw, output.cam))

    def test_a_loss_on_raw_reaches_the_backbone(self):
        network = self.make().train()
        wanted = {n: p for n, p in network.named_parameters() if n.startswith(self.seeing) and p.requires_grad}
        for parameter in network.parameters():
            if not parameter.any():  # timm starts residual branches at 0, which stops gradients for one step
                nn.init.normal_(parameter, std=0.1)
        network(torch.randn(2, 3, self.size, self.size)).raw.square().mean().backward()
        reached = [name for name, parameter in wanted.items() if parameter.grad is not None and parameter.grad.any()]
        assert len(reached) > 0.9 * len(wanted) > 0

    def test_a_mirrored_image_gives_the_mirrored_maps(self):
        network = self.make_symmetric()
        shift = mirror_shift_px(lambda image: network(image).raw, blobs(128))
        assert abs(shift) <= self.mirror_tolerance_px

    def test_frozen_features_equal_the_full_forward(self):
        network = self.make(frozen_stages=2).eval()
        image = torch.randn(2, 3, 64, 96)
        features = network.frozen_features(image)
        if features is None:
            pytest.skip("this network has nothing to cache")
        with torch.no_grad():
            full, cached = network(image), network(image, features)
        assert torch.allclose(full.raw, cached.raw, atol=1e-5)
        assert torch.allclose(full.cam, cached.cam, atol=1e-5)
        assert not features.requires_grad

    def test_training_with_frozen_features_is_training_without(self):
        network = self.make(frozen_stages=2).eval()
        images, labels = pictures(self.size, count=2)
        image = network.normalize(images)
        features = network.frozen_features(image)
        _, full = network.training_forward(image, labels)
        _, cached = network.training_forward(image, labels, features)
        assert full.keys() == cached.keys()
        assert all(float(full[name].detach()) == pytest.approx(float(cached[name].detach()), abs=1e-5) for name in full)

    def test_nothing_frozen_means_nothing_to_cache(self):
        assert self.make(frozen_stages=0).frozen_features(torch.randn(1, 3, 64, 64)) is None

    def test_frozen_stages_do_not_train(self):
        network = self.make(frozen_stages=2).train()
        before = {k: v.clone() for k, v in network.state_dict().items()}
        images, labels = pictures(self.size)
        optimizer = torch.optim.SGD(network.parameter_groups(0.1, 1e-2), lr=0.1)
        _, terms = network.training_forward(network.normalize(images), labels)
        sum(terms.values()).backward()
        optimizer.step()
        changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
        frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
        assert frozen
        assert changed
        assert not changed & frozen

    def test_state_dict_round_trip(self):
        one, two = self.make().eval(), self.make()
        for parameter in two.parameters():
            nn.init.normal_(parameter)
        two.load_state_dict(one.state_dict())
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(one(image).cam, two.eval()(image).cam)

    def test_training_forward_learns_to_classify(self):
        network = self.make().train()
        images, labels = pictures(self.size)
        image = network.normalize(images)
        groups = network.parameter_groups(self.learning_rate, 1e-4)
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        values = []
        for _ in range(self.steps):
            output, terms = network.training_forward(image, labels)
            assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
            values.append(float(F.multilabel_soft_margin_loss(output.scores.detach(), labels)))
        assert min(values[-3:]) < 0.75 * values[0]

    def test_parameter_groups_hold_every_trainable_parameter_once(self):
        network = self.make()
        grouped = [id(p) for group in network.parameter_groups(0.1, 0.01) for p in group["params"]]
        assert len(grouped) == len(set(grouped))
        assert set(grouped) == {id(p) for p in network.parameters() if p.requires_grad}

    def test_half_precision(self):
        network = self.make().eval().to(torch.bfloat16)
        output = network(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))
        assert output.raw.dtype == output.scores.dtype == torch.bfloat16

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_other_device(self):
        network = self.make().cuda()
        images, labels = pictures(self.size)
        output, terms = network.training_forward(network.normalize(images.cuda()), labels.cuda())
        assert output.raw.is_cuda
        sum(terms.values()).backward()

    def test_no_classes_is_refused(self):
        with pytest.raises(ValueError, match="num_classes must be at least 1"):
            create_cam_network(self.name, 0, **{"weights": "none", **self.arguments})


class TestTimmCamConvolutional(CamNetworkTester):
    name = "timm"
    arguments: ClassVar[dict] = {
        "backbone": "resnet18",
        "shift_px": 8,
        "head_lr": 1.0,
    }  # 7.5: half a pixel of each of four levels


class TestTimmCamDilated(CamNetworkTester):
    name = "timm"
    arguments: ClassVar[dict] = {
        "backbone": "resnet10t",
        "output_stride": 8,
        "shift_px": -7,
        "head_lr": 5.0,
        "bias": True,
    }


class TestTimmCamSeparateScorer(CamNetworkTester):
    name = "timm"
    arguments: ClassVar[dict] = {"backbone": "resnet18", "shift_px": 8, "head_lr": 1.0, "scorer": "separate"}

    def test_an_edge_loss_does_not_pull_at_the_scorer(self):
        network = self.make().train()
        image, labels = torch.rand(2, 3, 64, 64), torch.eye(network.num_classes)[:2]
        output, terms = network.training_forward(image, labels)
        assert terms.keys() == {"classification", "cam_classification"}
        output.raw.square().sum().backward()
        assert network.scorer.weight.grad is None
        assert network.classifier.weight.grad.any()


class TestTimmCamEfficientNet(CamNetworkTester):
    name = "timm"
    arguments: ClassVar[dict] = {"backbone": "tf_efficientnet_lite0", "head_lr": 1.0}
    learning_rate = 5e-3
    steps = 20

    @pytest.mark.parametrize(("output_stride", "before"), [(32, -1.3), (16, 6.8)])
    def test_a_mirrored_image_gives_the_mirrored_maps(self, output_stride, before):
        """With the ImageNet weights that the correction was measured for, in pixels of 192."""
        if PACKAGED_WEIGHTS["tf_efficientnet_lite0"].path() is None:
            pytest.skip("the packaged ImageNet weights are not installed")
        data = pytest.importorskip("skimage.data")
        images = [F.interpolate(_square(photo), (192, 192), mode="area") for photo in (data.chelsea(), data.coffee())]
        network = self.make(weights="auto", output_stride=output_stride).eval()
        image = network.normalize(torch.cat(images))
        assert abs(mirror_shift_px(lambda image: _last_maps(network, image), image)) < 1.5
        network.shift_px = 0
        uncorrected = mirror_shift_px(lambda image: _last_maps(network, image), image, search_cells=2.5)
        assert uncorrected == pytest.approx(before, abs=1.5)


class TestTimmCamTransformer(CamNetworkTester):
    name = "timm"
    arguments: ClassVar[dict] = {"backbone": "vit_tiny_patch16_224", "head_lr": 1.0}
    mirror_tolerance_px = 0.1
    learning_rate = 3e-4

    def make_symmetric(self):
        network = super().make_symmetric()
        mirror_positions(network.backbone.network.pos_embed, 1)
        return network


class TestWeakTr(CamNetworkTester):
    name = "weaktr"
    arguments: ClassVar[dict] = {"backbone": "vit_tiny_patch16_224"}
    seeing = "blocks"
    mirror_tolerance_px = 0.1
    learning_rate = 3e-4
    steps = 20

    def make_symmetric(self):
        network = super().make_symmetric()
        mirror_positions(network.pos_embed, K)
        return network


class TestSeam(CamNetworkTester):
    name = "seam"
    arguments: ClassVar[dict] = {"backbone": "resnet18", "frozen_stages": 0, "shift_px": 4}  # 3.5
    learning_rate = 1e-3
    steps = 16


def _square(photo):
    side = min(photo.shape[:2])
    return torch.from_numpy(photo[:side, :side, :3].copy()).permute(2, 0, 1)[None].float() / 255


@torch.no_grad()
def _last_maps(network, image):
    """All channels before the classifier, which is random here."""
    return network._upper(network._lower(image), image)


def mirror_positions(embedding, prefix):
    with torch.no_grad():
        grid = embedding[:, prefix:].unflatten(1, (14, 14))
        embedding[:, prefix:] = ((grid + grid.flip(2)) / 2).flatten(1, 2)


def test_the_mirror_test_sees_the_displacement_that_the_cure_removes():
    torch.manual_seed(0)
    arguments: ClassVar[dict] = {"backbone": "resnet18", "weights": "none", "shift_px": 0}
    network = create_cam_network("timm", K, **arguments).eval()
    symmetrize(network)
    assert mirror_shift_px(lambda image: network(image).raw, blobs(128)) == pytest.approx(7.5, abs=0.7)


def test_unknown_network_and_argument_name_the_known():
    with pytest.raises(CamNetworkError, match="must be one of timm, weaktr, seam, got 'weektr'"):
        create_cam_network("weektr", 3)
    with pytest.raises(CamNetworkError, match="no argument 'bakbone'; did you mean 'backbone'"):
        create_cam_network("timm", 3, bakbone="resnet18")


def test_a_transformer_has_no_displacement_to_correct():
    with pytest.raises(ValueError, match="shift_px must be 0 for a transformer"):
        create_cam_network("timm", 3, backbone="vit_tiny_patch16_224", weights="none", shift_px=4)


def test_every_network_is_tested():
    tested = {cls.name for cls in CamNetworkTester.__subclasses__()}
    assert tested == set(CAM_NETWORKS)
