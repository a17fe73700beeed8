# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Backbones by timm name, with weights from a package, timm's hub or a local file."""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from deal_ros.backbones.backbone import Backbone, ConvBackbone, Triple, VitBackbone
from deal_ros.backbones.dilation import split_dilated_depthwise
from deal_ros.backbones.resnet38d import rename_resnet38d, resnet38d
from deal_ros.backbones.timm_import import import_timm
from deal_ros.backbones.weights import PACKAGED_WEIGHTS, BackboneError, load_packaged, read_state_dict, strict_load

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


def create_backbone(
    name: str,
    *,
    output_stride: int | None = None,
    weights: str = "auto",
    head: bool | None = False,
    phase_split: bool = True,
    drop_path_rate: float = 0.0,
) -> Backbone:
    """Make a backbone.

    Args:
        name: timm name, for example ``tf_efficientnet_lite0``, ``resnet50``, ``deit_small_patch16_224``; or
            ``resnet38d``, SEAM's network, always at stride 8.
        output_stride: image pixels per cell of the coarsest map, 8, 16 or 32 (default); smaller ones dilate the last
            stages. A vision transformer has its patch size and no other.
        weights: ``auto`` (ImageNet weights from an installed package, else from timm's hub), ``none`` (random), or
            a local file of the whole timm network, .safetensors or .pth.
        head: for EfficientNets, add the 1×1 convolution before pooling as one more stage. Its channels carry the
            class evidence, which suits class activation maps. ``None``: where there is one.
        phase_split: compute dilated depthwise convolutions phase-split (see :mod:`deal_ros.backbones.dilation`).
        drop_path_rate: stochastic depth, 0..1.

    Raises:
        BackboneError: if timm does not know the name, the network cannot be cut into stages or have this stride, or
            the weights cannot be had; the message names the remedy.

    Example:
        >>> backbone = create_backbone("resnet10t", output_stride=16, weights="none")
        >>> backbone.channels, backbone.reductions
        ((64, 64, 128, 256, 512), (2, 4, 8, 16, 16))
    """
    if name == "resnet38d":
        return _create_resnet38d(output_stride, weights)
    timm = import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"; similar: {', '.join(near)}" if near else "; timm.list_models() lists all"
        raise BackboneError(f"backbone must be a name that timm {timm.__version__} knows, got {name!r}{hint}")
    if output_stride is not None and output_stride not in (8, 16, 32):
        raise BackboneError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    mean, std = _normalisation(timm, name)
    arguments: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if is_vit(name):
        network = _load(timm, name, weights, {**arguments, "dynamic_img_size": True}, whole=True)
        vit = VitBackbone(name, network, mean, std)
        if output_stride not in (None, vit.patch):
            raise BackboneError(f"output_stride of {name} must be its patch size {vit.patch}, got {output_stride}")
        network.head = nn.Identity()
        return vit
    arguments["output_stride"] = output_stride or 32
    efficient = name.split(".")[0] in _efficientnets(timm)
    head = efficient if head is None else head
    if head and not efficient:
        raise BackboneError(f"head=True needs an EfficientNet of timm, got {name!r}; leave it out")
    network = _load(timm, name, weights, arguments, whole=efficient)
    if phase_split:
        split_dilated_depthwise(network)
    stages, channels, reductions = _cut(name, network)
    if head:
        stages.append(nn.Sequential(OrderedDict(conv_head=network.conv_head, bn2=network.bn2)))
        channels, reductions = (*channels, network.num_features), (*reductions, reductions[-1])
    return ConvBackbone(name, stages, channels, reductions, mean, std)


def _create_resnet38d(output_stride: int | None, weights: str) -> ConvBackbone:
    if output_stride not in (None, 8):
        raise BackboneError(f"output_stride of resnet38d must be 8, got {output_stride}")
    if weights == "auto":
        raise BackboneError(
            "no package or hub has the weights of resnet38d; give the published ImageNet or SEAM checkpoint,"
            " a .pth, as weights=PATH, or weights='none'"
        )
    backbone = resnet38d()
    if weights != "none":
        strict_load(backbone, rename_resnet38d(read_state_dict(weights), backbone), weights)
    return backbone


def _efficientnets(timm: Any) -> set[str]:
    return set(timm.list_models(module="efficientnet"))


def is_vit(name: str) -> bool:
    """Whether timm's network of this name is a plain vision transformer."""
    timm = import_timm()
    return name.split(".")[0] in timm.list_models(module="vision_transformer") + timm.list_models("deit*_patch*")


def _normalisation(timm: Any, name: str) -> tuple[Triple, Triple]:
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(config.mean), tuple(config.std)  # type: ignore[return-value]


def _load(timm: Any, name: str, weights: str, arguments: dict[str, Any], whole: bool) -> Any:
    """Load the timm network with its weights: the whole classifier, or timm's chain of feature stages."""
    if not whole:
        arguments = {**arguments, "features_only": True}
    packaged = weights == "auto" and name.split(".")[0] in PACKAGED_WEIGHTS
    hub = weights == "auto" and not packaged
    try:
        with _cache_alone_if_cut_off() if hub else nullcontext():
            network = timm.create_model(name, pretrained=hub, **arguments)
    except TypeError as error:
        raise BackboneError(f"{name} does not accept {arguments}: {error}") from error
    except (NotImplementedError, AssertionError) as error:
        raise BackboneError(f"{name} cannot be built with {arguments}: {error or type(error).__name__}") from error
    except Exception as error:  # the hub client raises a dozen kinds: no network, no such weights, refused
        if not hub:
            raise BackboneError(f"{name} cannot be built with {arguments}: {error}") from error
        known = ", ".join(PACKAGED_WEIGHTS)
        raise BackboneError(
            f"pre-trained weights of {name} could not be had from timm's hub ({type(error).__name__}: {error});"
            f" give a local file as weights=PATH, use a backbone with packaged weights ({known}),"
            " or start from random ones with weights='none'"
        ) from error
    if packaged:
        load_packaged(name.split(".")[0], network)
    elif weights not in ("auto", "none"):
        _load_file(timm, name, network, Path(weights), arguments)
    return network


@contextmanager
def _cache_alone_if_cut_off() -> Iterator[None]:
    """Without a route to the hub look in its local cache only: the client would retry for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _resolves(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(url: str) -> bool:
    import socket
    from urllib import parse, request

    if any(name in request.getproxies() for name in ("https", "all")):
        return True  # the proxy resolves names
    try:
        socket.getaddrinfo(parse.urlsplit(url).hostname, 443)
    except OSError:
        return False
    return True


def _load_file(timm: Any, name: str, network: nn.Module, path: Path, arguments: dict[str, Any]) -> None:
    state = read_state_dict(path)
    for head in ("classifier", "head", "fc", "head.fc"):  # any number of classes: the classifier is not used
        for kind in ("weight", "bias"):
            state.pop(f"{head}.{kind}", None)
    wanted = network.state_dict()
    found: dict[str, Tensor] = {}
    for key, value in wanted.items():
        dotted = re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key)  # timm's feature chains write stages.0 as stages_0
        source = key if key in state else dotted
        if source in state:
            found[key] = state.pop(source)
        elif re.match(r"(classifier|head|fc)\.(weight|bias|fc\.)", key) or key.endswith("num_batches_tracked"):
            found[key] = value
    strict_load(network, {**found, **_unused(timm, name, state)}, str(path))


def _unused(timm: Any, name: str, left: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the file that are no part of the network called ``name`` at all, for the error message."""
    if not left:
        return left
    known = timm.create_model(name, pretrained=False).state_dict()
    return {key: value for key, value in left.items() if key not in known}


def _cut(name: str, network: Any) -> tuple[list[nn.Sequential], tuple[int, ...], tuple[int, ...]]:
    """Cut a timm network into stages that each end in a feature map."""
    if hasattr(network, "blocks") and hasattr(network, "conv_stem"):  # EfficientNet and MobileNet families
        info = network.feature_info
        info = info if isinstance(info, list) else info.get_dicts()
        ends = {entry["stage"] for entry in info}
        chain = [(child, getattr(network, child)) for child in ("conv_stem", "bn1", "act1") if hasattr(network, child)]
        links = [(*link, False) for link in chain[:-1]] + [(*chain[-1], 0 in ends)]
        links += [(f"block{i}", block, i + 1 in ends) for i, block in enumerate(network.blocks)]
    elif type(network).__name__ == "FeatureListNet" and str(getattr(network, "output_fmt", "NCHW")).endswith("NCHW"):
        info = network.feature_info.get_dicts()
        links = [(child, module, child in network.return_layers) for child, module in network.items()]
    else:
        raise BackboneError(
            f"{name} cannot be cut into a chain of stages (timm gives {type(network).__name__});"
            " use an EfficientNet, MobileNet, ResNet, RegNet, ConvNeXt or a plain vision transformer"
        )
    stages, current = [], OrderedDict()
    for child, module, ends_here in links:
        current[child] = module
        if ends_here:
            stages.append(nn.Sequential(current))
            current = OrderedDict()
    return stages, tuple(i["num_chs"] for i in info), tuple(i["reduction"] for i in info)
