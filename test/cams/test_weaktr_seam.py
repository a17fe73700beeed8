# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is particular to WeakTr and SEAM: what is detached, and that published checkpoints fit."""

import pytest
import torch
from torch import nn

from deal_ros.backbones import BackboneError, create_backbone
from deal_ros.cams import create_cam_network
from deal_ros.cams.seam import PixelCorrelation, rename_seam
from deal_ros.cams.weaktr import _attend

torch.set_num_threads(1)


def weaktr(num_classes=3, **arguments):
    torch.manual_seed(0)
    return create_cam_network("weaktr", num_classes, backbone="vit_tiny_patch16_224", weights="none", **arguments)


def seam(num_classes=3, **arguments):
    torch.manual_seed(0)
    return create_cam_network(
        "seam", num_classes, **{"backbone": "resnet10t", "weights": "none", "frozen_stages": 0, **arguments}
    )


def with_gradient(network):
    return {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def test_weaktr_fine_cam_trains_the_fusion_alone():
    network = weaktr()
    network(torch.randn(2, 3, 64, 64)).cam.square().sum().backward()
    assert with_gradient(network)
    assert all(name.startswith("fusion.") for name in with_gradient(network))


def test_weaktr_attention_is_that_of_timm():
    network = weaktr().eval()
    block, tokens = network.blocks[0], torch.randn(2, 9, 192)
    mixed, weights = _attend(block.attn, tokens)
    assert torch.allclose(mixed, block.attn(tokens), atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 9), atol=1e-5)


def test_weaktr_fine_cam_is_the_fused_attention_on_the_coarse_one():
    """Against the definition, with every head weighted alike: the mean over heads and layers, written as a loop."""
    network = weaktr(drop_path_rate=0.0).eval()
    nn.init.zeros_(network.fusion.mix[2].weight)  # sigmoid(0): all weights 1/2
    image = torch.randn(1, 3, 48, 64)
    kept = []
    for block in network.blocks:
        block.attn.register_forward_hook(lambda module, inputs, output: None)
        block.norm1.register_forward_hook(
            lambda module, inputs, output, attn=block.attn: kept.append(_attend(attn, output)[1])
        )
    with torch.no_grad():
        output = network(image)
    mean = torch.stack([maps.mean(1) for maps in kept]).mean(0)[0] / 2
    coarse = output.raw[0].relu().flatten(1)
    fine = (mean[:3, 3:] * coarse) @ mean[3:, 3:].T
    assert torch.allclose(output.cam[0].flatten(1), fine, atol=1e-5)


def test_weaktr_refuses_other_transformers():
    for name in ("resnet10t", "deit_tiny_distilled_patch16_224"):
        with pytest.raises(BackboneError, match="plain vision transformer"):
            create_cam_network("weaktr", 3, backbone=name, weights="none")


def test_class_tokens_start_as_copies_of_the_pretrained_one():
    backbone = create_backbone("vit_tiny_patch16_224", weights="none")
    path_free = weaktr(5)
    assert path_free.cls_token.shape == (1, 5, 192)
    assert path_free.pos_embed.shape == (1, 5 + 196, 192)
    assert torch.equal(path_free.cls_token[:, 0], path_free.cls_token[:, 4])
    assert backbone.network.cls_token.shape == (1, 1, 192)


def published_weaktr(num_classes=20):
    """Names and shapes of hustvl/WeakTr's DeiT-S checkpoint."""
    shapes = {
        "cls_token": (1, num_classes, 384),
        "pos_embed": (1, num_classes + 196, 384),
        "patch_embed.proj.weight": (384, 3, 16, 16),
        "patch_embed.proj.bias": (384,),
        "norm.weight": (384,),
        "norm.bias": (384,),
        "head.weight": (num_classes, 384, 3, 3),
        "head.bias": (num_classes,),
        "adaptive_attention_fusion.attn_head_ffn.0.weight": (9, 72),
        "adaptive_attention_fusion.attn_head_ffn.2.weight": (72, 9),
        "adaptive_attention_fusion.attn_feat_ffn.0.weight": (8, 64),
        "adaptive_attention_fusion.attn_feat_ffn.0.bias": (8,),
        "adaptive_attention_fusion.attn_feat_ffn.1.weight": (1, 8),
        "adaptive_attention_fusion.attn_feat_ffn.1.bias": (1,),
    }
    for i in range(12):
        for part, shape in {
            "norm1": (384,),
            "norm2": (384,),
            "attn.qkv": (1152, 384),
            "attn.proj": (384, 384),
            "mlp.fc1": (1536, 384),
            "mlp.fc2": (384, 1536),
        }.items():
            shapes[f"blocks.{i}.{part}.weight"] = shape
            shapes[f"blocks.{i}.{part}.bias"] = shape[:1]
    return shapes


def test_published_weaktr_checkpoint_loads_whole(tmp_path):
    state = {name: torch.randn(shape) for name, shape in published_weaktr().items()}
    path = tmp_path / "checkpoint_best_mIoU.pth"
    torch.save({"model": state, "epoch": 3}, path)
    network = create_cam_network("weaktr", 20, weights=str(path))
    own = network.state_dict()
    assert torch.equal(own["cls_token"], state["cls_token"])
    assert torch.equal(own["blocks.11.mlp.fc2.weight"], state["blocks.11.mlp.fc2.weight"])
    assert torch.equal(own["fusion.mix.2.weight"], state["adaptive_attention_fusion.attn_head_ffn.2.weight"])
    assert torch.equal(own["fusion.head_score.1.bias"], state["adaptive_attention_fusion.attn_feat_ffn.1.bias"])
    assert len(own) == len(state) - 2  # all but the unused norm


def test_published_weaktr_checkpoint_of_other_classes_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({name: torch.zeros(shape) for name, shape in published_weaktr(80).items()}, path)
    with pytest.raises(BackboneError, match=r"cls_token must be \(1, 20, 384\), got \(1, 80, 384\)"):
        create_cam_network("weaktr", 20, weights=str(path))


def test_seam_refined_maps_do_not_reach_the_backbone():
    network = seam()
    network(torch.randn(2, 3, 64, 64)).cam.square().sum().backward()
    assert with_gradient(network)
    assert all(name.startswith("pcm.") for name in with_gradient(network))


def test_pixel_correlation_spreads_over_cells_that_look_alike():
    torch.manual_seed(0)
    pcm = PixelCorrelation(4, 4)
    image = torch.zeros(1, 3, 4, 4)
    image[:, 0, :, :2], image[:, 2, :, 2:] = 3.0, 3.0
    features = torch.cat([image, image[:, :1]], dim=1)
    cam = torch.zeros(1, 1, 4, 4)
    cam[..., 0, 0] = 1.0
    with torch.no_grad():
        refined = pcm(cam, image, features, features)[0, 0]
    assert torch.allclose(refined[:, :2], refined[0, 0].expand(4, 2), atol=1e-6)
    assert refined[0, 0] > 2 * refined[0, 3]
    assert refined.sum() == pytest.approx(1.0, abs=0.5)


def test_seam_has_the_published_terms_and_learning_rates():
    network = seam()
    images, labels = torch.rand(2, 3, 96, 96), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    _, terms = network.training_forward(network.normalize(images), labels)
    assert set(terms) == {"classification", "small_classification", "min_pool", "equivariance", "equivariant_cross"}
    groups = network.parameter_groups(0.01, 5e-4)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 5e-4), (0.1, 5e-4)]


def test_seam_keeps_batch_norm_as_it_was():
    network = seam().train()
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    network(torch.randn(2, 3, 64, 64))
    assert before
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())


def test_seam_takes_its_constants_from_a_recipe():
    network = seam(equivariance={"er_weight": 0.5}, min_pool={"share": 0.1})
    assert (network.equivariance.er_weight, network.min_pool.share) == (0.5, 0.1)
    with pytest.raises(ValueError, match="er_wait"):
        seam(equivariance={"er_wait": 0.5})


def test_seam_refuses_a_transformer_and_too_many_frozen_stages():
    with pytest.raises(BackboneError, match="must be convolutional"):
        seam(backbone="vit_tiny_patch16_224", output_stride=16)
    with pytest.raises(ValueError, match=r"frozen_stages must be 0\.\.3"):
        seam(frozen_stages=4)


def published_seam():
    """Names and shapes of YudeWang/SEAM's ResNet-38 checkpoint."""
    shapes = {"conv1a.weight": (64, 3, 3, 3), "fc8.weight": (21, 4096, 1, 1), "f9.weight": (192, 195, 1, 1)}
    shapes |= {"f8_3.weight": (64, 512, 1, 1), "f8_4.weight": (128, 1024, 1, 1)}

    def norm(name, channels):
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{kind}"] = (channels,)

    def wide(name, before, middle, after, changes):
        norm(f"{name}.bn_branch2a", before)
        norm(f"{name}.bn_branch2b1", middle)
        shapes[f"{name}.conv_branch2a.weight"] = (middle, before, 3, 3)
        shapes[f"{name}.conv_branch2b1.weight"] = (after, middle, 3, 3)
        if changes:
            shapes[f"{name}.conv_branch1.weight"] = (after, before, 1, 1)

    for stage, blocks, before, middle, after in (
        ("b2", 2, 64, 128, 128),
        ("b3", 2, 128, 256, 256),
        ("b4", 5, 256, 512, 512),
        ("b5", 2, 512, 512, 1024),
    ):
        wide(stage, before, middle, after, True)
        for i in range(1, blocks + 1):
            wide(f"{stage}_{i}", after, middle, after, False)
    for name, before, after in (("b6", 1024, 2048), ("b7", 2048, 4096)):
        norm(f"{name}.bn_branch2a", before)
        norm(f"{name}.bn_branch2b1", after // 4)
        norm(f"{name}.bn_branch2b2", after // 2)
        shapes[f"{name}.conv_branch1.weight"] = (after, before, 1, 1)
        shapes[f"{name}.conv_branch2a.weight"] = (after // 4, before, 1, 1)
        shapes[f"{name}.conv_branch2b1.weight"] = (after // 2, after // 4, 3, 3)
        shapes[f"{name}.conv_branch2b2.weight"] = (after, after // 2, 1, 1)
    norm("bn7", 4096)
    return shapes


def test_published_seam_checkpoint_fits_resnet38d():
    """On the meta device: shapes without the 400 MB."""
    with torch.device("meta"):
        network = create_cam_network("seam", 20, weights="none")
        state = {name: torch.empty(shape) for name, shape in published_seam().items()}
        renamed = rename_seam(state, network)
    own = network.state_dict()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in own.items()}
    counters = sum(key.endswith("num_batches_tracked") for key in own)
    assert len(renamed) == len(state) + counters


def test_published_seam_checkpoint_needs_its_backbone():
    with pytest.raises(BackboneError, match="needs backbone='resnet38d', got 'resnet10t'"):
        rename_seam({}, seam())


def test_resnet38d_without_a_file_names_the_remedy():
    with pytest.raises(BackboneError, match=r"resnet38d.*weights=PATH"):
        create_cam_network("seam", 20)


@pytest.mark.slow
def test_resnet38d_computes():
    network = create_cam_network("seam", 2, weights="none").eval()
    with torch.no_grad():
        output = network(torch.randn(1, 3, 64, 48))
    assert output.raw.shape == (1, 2, 8, 6)
    assert torch.isfinite(output.cam).all()
    assert sum(p.numel() for p in network.backbone.parameters()) > 1e8
