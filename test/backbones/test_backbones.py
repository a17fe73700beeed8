# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deal_ros.backbones import PACKAGED_WEIGHTS, BackboneError, create_backbone, import_timm, split_dilated_depthwise
from deal_ros.backbones.weights import load_packaged, read_state_dict

torch.set_num_threads(1)
NAMES = ["tf_efficientnet_lite0", "resnet10t", "mobilenetv3_small_050", "convnext_atto", "regnetx_002"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("output_stride", [8, 32])
def test_feature_maps_have_the_promised_shapes(name, output_stride):
    backbone = create_backbone(name, output_stride=output_stride, weights="none").eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert [f.shape[1] for f in features] == list(backbone.channels)
    assert [f.shape[2:] for f in features] == [(64 // r, 96 // r) for r in backbone.reductions]
    assert backbone.reductions[-1] == output_stride


@pytest.mark.parametrize("name", [*NAMES, "vit_tiny_patch16_224"])
@pytest.mark.parametrize("stages", [0, 1, 3])
def test_lower_then_upper_equals_forward(name, stages):
    backbone = create_backbone(name, weights="none").eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = backbone(image)
        lower = backbone.lower(image, stages)
        parts = backbone.upper(lower, stages)
    assert len(parts) == len(whole)
    assert all(torch.equal(a, b) for a, b in zip(parts, whole))
    if stages and "vit" not in name:
        alone = backbone.upper(lower[-1:], stages)
        assert torch.equal(alone[-1], whole[-1])


def test_stages_compute_what_timm_computes():
    backbone = create_backbone("tf_efficientnet_lite0", weights="none", head=True).eval()
    whole = import_timm().create_model("tf_efficientnet_lite0").eval()
    state = whole.state_dict()
    own = list(backbone.state_dict().values())
    whole.load_state_dict({**state, **dict(zip(list(state)[: len(own)], own))})
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(whole.forward_features(image), backbone(image)[-1])
    assert backbone.channels[-1] == 1280


def test_freeze_stops_gradients_and_batch_norm():
    backbone = create_backbone("resnet10t", weights="none")
    backbone.freeze(2)
    backbone.train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    after = backbone.state_dict()
    moved = {k.split(".")[1] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"2", "3", "4"}
    with_grad = {k.split(".")[1] for k, p in backbone.named_parameters() if p.grad is not None}
    assert with_grad == {"2", "3", "4"}
    backbone.freeze(0)
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.modules())


def test_freeze_of_a_vision_transformer_leaves_the_upper_blocks():
    backbone = create_backbone("vit_tiny_patch16_224", weights="none")
    backbone.freeze(10)
    free = {n.split(".")[1] + "." + n.split(".")[2] for n, p in backbone.named_parameters() if p.requires_grad}
    assert free == {"blocks.10", "blocks.11", "norm.weight", "norm.bias"}


@pytest.mark.parametrize(("size", "dilation", "kernel"), [((12, 16), 2, 3), ((13, 10), 2, 5), ((17, 19), 4, 3)])
def test_phase_split_convolution_is_exact(size, dilation, kernel):
    conv = torch.nn.Conv2d(6, 6, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=6).double()
    image = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    expected = conv(image)
    (gradient,) = torch.autograd.grad(expected.square().sum(), image)
    assert split_dilated_depthwise(conv) == 1
    result = conv(image)
    (split_gradient,) = torch.autograd.grad(result.square().sum(), image)
    assert torch.allclose(result, expected, atol=1e-12)
    assert torch.allclose(split_gradient, gradient, atol=1e-10)


def test_phase_split_leaves_a_whole_network_as_it_was():
    torch.manual_seed(0)
    plain = create_backbone("tf_efficientnet_lite0", output_stride=8, weights="none", phase_split=False).eval()
    split = create_backbone("tf_efficientnet_lite0", output_stride=8, weights="none").eval()
    split.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 72, 64)
    with torch.no_grad():
        assert torch.allclose(plain(image)[-1], split(image)[-1], atol=1e-4, rtol=1e-4)


def test_unknown_name_lists_similar_ones():
    with pytest.raises(BackboneError, match=r"got 'resnet18x'.*similar"):
        create_backbone("resnet18x", weights="none")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet18", {"output_stride": 12}, "8, 16 or 32"),
        ("vit_tiny_patch16_224", {"output_stride": 32}, "patch size 16"),
        ("swin_tiny_patch4_window7_224", {}, "swin"),
        ("resnet18", {"head": True}, "EfficientNet"),
        ("resnet18", {"weights": "/nowhere/file.pth"}, "existing file"),
    ],
)
def test_wrong_use_is_explained(name, arguments, message):
    with pytest.raises(BackboneError, match=message):
        create_backbone(name, **{"weights": "none", **arguments})


def test_missing_hub_weights_name_the_remedy(monkeypatch):
    timm = import_timm()

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(BackboneError, match=r"no route to host.*weights=PATH.*tf_efficientnet_lite0.*weights='none'"):
        create_backbone("resnet18")


def test_without_a_network_the_hub_is_not_waited_for(monkeypatch, tmp_path):
    import socket
    import time

    from huggingface_hub import constants

    def refuse(*args, **kwargs):
        raise socket.gaierror("no name server")

    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(BackboneError, match="could not be had"):
        create_backbone("resnet10t")
    assert time.monotonic() - start < 5
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_file_round_trip(tmp_path, name, suffix):
    from safetensors.torch import save_file

    network = import_timm().create_model(name, num_classes=7)
    path = tmp_path / f"weights{suffix}"
    torch.save(network.state_dict(), path) if suffix == ".pth" else save_file(network.state_dict(), str(path))
    backbone = create_backbone(name, weights=str(path)).eval()
    image = torch.randn(1, 3, 64 if "vit" not in name else 224, 64 if "vit" not in name else 224)
    ours = sorted(p.double().sum().item() for n, p in backbone.named_parameters())
    theirs = {round(p.double().sum().item(), 9) for p in network.parameters()}
    assert all(round(value, 9) in theirs for value in ours)
    assert all(torch.isfinite(f).all() for f in backbone(image))


def test_local_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(import_timm().create_model("resnet18").state_dict(), path)
    with pytest.raises(BackboneError, match=r"do not fit.*missing"):
        create_backbone("resnet10t", weights=str(path))


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": Path("x")}, path)
    with pytest.raises(BackboneError, match="plain tensors"):
        create_backbone("resnet10t", weights=str(path))


def test_manifest_lists_the_packaged_weights():
    manifest = json.loads((Path(__file__).parents[2] / "models" / "weights.json").read_text())
    listed = {row["name"]: row for row in manifest}
    assert listed.keys() == PACKAGED_WEIGHTS.keys()
    for name, weights in PACKAGED_WEIGHTS.items():
        row = listed[name]
        assert (row["package"], row["sha256"], row["licence"]) == (weights.package, weights.sha256, weights.licence)
        assert row["file"] == f"{weights.module}/{weights.file}"


@pytest.mark.parametrize("name", list(PACKAGED_WEIGHTS))
def test_packaged_weights_recognise_real_photographs(name):
    """Top-1 of photographs that scikit-image carries: cat breeds, espresso or mug; rocket on its tower."""
    data = pytest.importorskip("skimage.data")
    expected = {"chelsea": {281, 282, 285}, "coffee": {504, 967, 968}, "rocket": {540, 657, 744}}
    network = _classifier(name)
    for picture, classes in expected.items():
        image = torch.from_numpy(getattr(data, picture)()).permute(2, 0, 1)[None].float() / 255
        image = F.interpolate(image, (224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            scores = network((image - 0.5) / 0.5)
        assert int(scores.argmax()) in classes, (picture, scores.topk(3))


@pytest.mark.parametrize("name", list(PACKAGED_WEIGHTS))
def test_packaged_weights_give_the_logits_of_the_published_network(name):
    """Against EfficientNet-Lite computed straight from the published tensors, with nothing of timm."""
    network = _classifier(name)
    state = read_state_dict(PACKAGED_WEIGHTS[name].path())
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        assert torch.allclose(network(image), _published_logits(state, image), atol=1e-3)


def _published_logits(state, x):
    def conv(x, key, stride=1, groups=1):
        weight = state[key + ".weight"]
        pads = []
        for n in (x.shape[3], x.shape[2]):  # TensorFlow's SAME padding: the odd pixel goes to the right and bottom
            total = max((math.ceil(n / stride) - 1) * stride + weight.shape[2] - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def norm(x, key):
        moments = (state[f"{key}.running_mean"], state[f"{key}.running_var"])
        return F.batch_norm(x, *moments, state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-3)

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    index, stage, channels = 0, -1, x.shape[1]
    while f"_blocks.{index}._depthwise_conv.weight" in state:
        block, y = f"_blocks.{index}.", x
        if block + "_expand_conv.weight" in state:
            y = F.relu6(norm(conv(y, block + "_expand_conv"), block + "_bn0"))
        out = state[block + "_project_conv.weight"].shape[0]
        stage += out != channels
        stride = 2 if out != channels and stage in (1, 2, 3, 5) else 1  # of seven stages
        y = F.relu6(norm(conv(y, block + "_depthwise_conv", stride, y.shape[1]), block + "_bn1"))
        y = norm(conv(y, block + "_project_conv"), block + "_bn2")
        x, channels, index = (y + x if stride == 1 and out == channels else y), out, index + 1
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    return F.linear(x, state["_fc.weight"], state["_fc.bias"])


def _classifier(name):
    if PACKAGED_WEIGHTS[name].path() is None:
        pytest.skip(f"{PACKAGED_WEIGHTS[name].package} is not installed")
    network = import_timm().create_model(name).eval()
    load_packaged(name, network)
    return network


def test_a_checkpoint_may_hold_numpy_numbers_beside_its_tensors_and_nothing_else(tmp_path):
    """Training code often saves its best score with the weights, as WeakTr's does."""
    torch.save({"model": {"a": torch.ones(2)}, "epoch": 3, "miou": np.float64(0.5)}, tmp_path / "best.pth")
    assert read_state_dict(tmp_path / "best.pth")["a"].tolist() == [1, 1]
    torch.save({"model": {"a": torch.ones(2)}, "args": tmp_path}, tmp_path / "object.pth")
    with pytest.raises(BackboneError, match="plain tensors"):
        read_state_dict(tmp_path / "object.pth")
