# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Fold batch normalisation into the convolutions before it: the same function with half as many kernels."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def fold_batch_norm(network: M, example: Tensor) -> M:
    """Return a copy of ``network``, in evaluation mode, whose batch norms are folded where they follow a convolution.

    Which norm follows which convolution is seen by running ``example``, so this works for any timm CNN: a norm whose
    input is, as an object, the output of a convolution that nobody else normalises. If the folded copy differs from the
    original by more than rounding, the original's plain copy is returned.

    Args:
        network: any module; it is not changed.
        example: an input for it.
    """
    network = copy.deepcopy(network).eval()
    before = network(example)
    folded = copy.deepcopy(network)
    produced: dict[int, str] = {}
    pairs: dict[str, str] = {}
    outputs: list[Tensor] = []  # Kept alive, so that an id is never given to another tensor.
    hooks = []
    for name, module in folded.named_modules():
        if isinstance(module, nn.Conv2d):

            def after(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                produced[id(output)] = name
                outputs.append(output)

            hooks.append(module.register_forward_hook(after))
        elif isinstance(module, nn.BatchNorm2d):

            def ahead(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                if id(args[0]) in produced:
                    pairs[name] = produced.pop(id(args[0]))

            hooks.append(module.register_forward_pre_hook(ahead))
    folded(example)
    for hook in hooks:
        hook.remove()
    for norm_name, conv_name in pairs.items():
        norm, conv = folded.get_submodule(norm_name), folded.get_submodule(conv_name)
        fused = fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var, arg-type]
        _replace(folded, conv_name, fused)
        _replace(folded, norm_name, _what_follows(norm))
    same = torch.allclose(folded(example), before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    return folded if same else network


def _what_follows(norm: nn.Module) -> nn.Module:
    """Timm's BatchNormAct2d holds the activation after it."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
