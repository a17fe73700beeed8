# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""DEAL, the Depth Edge Alignment Loss: class activations should break where depth breaks, and only there.

Five lines in any training loop, whatever the network, as long as it has class maps that carry gradients::

    from deal_ros.losses import RECOMMENDED, DepthEdgeAlignmentLoss
    align = DepthEdgeAlignmentLoss(RECOMMENDED)         # DepthEdgeAlignmentLoss() is the published form
    cam = classifier_1x1(features)                      # raw class maps (B, K, h, w), before pooling
    loss = F.multilabel_soft_margin_loss(cam.mean((2, 3)), labels)
    loss = loss + 0.2 * align(cam, depth_m, labels)     # depth in metres (B, H, W), 0 or NaN = no return
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.filters.depth_edges import DepthEdgeConfig, depth_edges, depth_edges_with_sides
from deal_ros.filters.sobel import gradient_magnitude, sobel_gradients

CamActivation = Literal["minmax", "relu_max", "sigmoid", "none"]
Averaging = Literal["published", "balanced"]
EdgeOwner = Literal["either", "nearer"]
CamResample = Literal["nearest", "bilinear", "bicubic", "area"]


@dataclass(frozen=True)
class DepthEdgeAlignmentConfig:
    """All that DEAL can be asked to be. The defaults are the published form where it is known.

    Args:
        mu: μ of the gate; its zero lies at an edge activation of 1/(1 + e^μ). 2.5 as published.
        average: ``published``, every valid pixel counts alike; ``balanced`` (ours), pixels on depth edges and pixels
            off them get half the weight each, because edges are sparse and a flat map already pleases the others.
        cam_activation: how raw maps become [0, 1], per image and class: ``minmax`` (s − min)/(max − min); ``relu_max``
            s⁺/max s⁺; ``sigmoid``; ``none`` for maps that are in [0, 1] already. Unknown in the paper.
        detach_range: leave the minimum and maximum of that scaling out of the gradient.
        cam_sobel_scale: factor of the textbook Sobel kernel on the maps. 1/8 keeps activations below 0.56, where the
            gate flips at a step of 0.15; unknown in the paper.
        resolution: (height, width) at which edges are compared; ``None`` is ``upsample`` times the maps' own.
        upsample: see ``resolution``. Maps of stride 16 are so coarse that a third of their cells hold a depth edge;
            at four times their size a tenth does, and thin background between objects survives.
        resample: how maps are brought to ``resolution``; ``bicubic`` as published.
        edges: how depth becomes edges, with depth's range, resampling and hole handling; see
            :class:`~deal_ros.filters.depth_edges.DepthEdgeConfig`. Its ``step_level`` follows ``mu``.
        edge_owner: which side of a depth edge may be the active one. ``either`` as published: an edge has no sign,
            and a map that is bright around the object and dark on it is as good as the right one. ``nearer`` (ours):
            where depth jumps, the edge belongs to the nearer surface, and activation must grow towards it. Sensors
            lose depth just there: let ``edges.fill`` find the step across the hole.
        owner_step: jump in depth from which on ``nearer`` applies, as a fraction of depth.
        depth_control: ``aligned``; or ``shuffled``, each image meets the depth of the next one of its batch. What is
            gained with shuffled depth is not owed to depth. An image alone in its batch has loss 0 then.

    Raises:
        ValueError: if a field is outside its range.
    """

    mu: float = 2.5
    average: Averaging = "published"
    cam_activation: CamActivation = "minmax"
    detach_range: bool = False
    cam_sobel_scale: float = 1 / 8
    resolution: tuple[int, int] | None = None
    upsample: int = 1
    resample: CamResample = "bicubic"
    edges: DepthEdgeConfig = field(default_factory=DepthEdgeConfig)
    edge_owner: EdgeOwner = "either"
    owner_step: float = 0.04
    depth_control: Literal["aligned", "shuffled"] = "aligned"

    def __post_init__(self) -> None:
        """Check ranges."""
        choices = {
            "average": (self.average, get_args(Averaging)),
            "cam_activation": (self.cam_activation, get_args(CamActivation)),
            "resample": (self.resample, get_args(CamResample)),
            "edge_owner": (self.edge_owner, get_args(EdgeOwner)),
            "depth_control": (self.depth_control, ("aligned", "shuffled")),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if not abs(self.mu) <= 20:
            raise ValueError(f"mu must be within ±20, got {self.mu}")
        if not self.cam_sobel_scale > 0:
            raise ValueError(f"cam_sobel_scale must be positive, got {self.cam_sobel_scale}")
        if self.resolution is not None and min(self.resolution) < 3:
            raise ValueError(f"resolution must be at least (3, 3), got {self.resolution}")
        if not 0 < self.owner_step < 1:
            raise ValueError(f"owner_step must be in (0, 1), got {self.owner_step}")
        if self.upsample < 1:
            raise ValueError(f"upsample must be at least 1, got {self.upsample}")

    def comparison_size(self, cam: Tensor) -> tuple[int, int]:
        """Height and width at which the edges of maps (B, K, h, w) are compared."""
        return self.resolution or (cam.shape[-2] * self.upsample, cam.shape[-1] * self.upsample)


RECOMMENDED = DepthEdgeAlignmentConfig(
    average="balanced",
    upsample=4,
    edge_owner="nearer",
    edges=DepthEdgeConfig(form="lap", normalization="step", range_clamp=1.6, fill=2),
)
"""What was measured (results.md) and recipes for sensors have: fine, balanced, blind to planes, of the nearer side."""


@dataclass(frozen=True)
class AlignmentStatistics:
    """What to watch while training with DEAL; all are detached scalar tensors in [0, 1].

    Args:
        depth_edge_fraction: share of valid pixels with d' > 0.
        cam_edge_fraction: share of pixels of present classes with a' > 0; falling to 0 means flat maps.
        cam_activation: mean activation of present classes; a collapse shows here too.
        valid_fraction: share of pixels with usable depth.
    """

    depth_edge_fraction: Tensor
    cam_edge_fraction: Tensor
    cam_activation: Tensor
    valid_fraction: Tensor

    def as_floats(self) -> dict[str, float]:
        """Plain numbers by name, for a log line."""
        return {name: float(value) for name, value in vars(self).items()}


def edge_gate(activation: Tensor, mu: float = 2.5) -> Tensor:
    r"""Compute DEAL's soft sign of an edge activation: −1 no edge, +1 edge.

    ``a' = tanh(μ + ln(a / (1 − a))) = (c·a² − (1 − a)²) / (c·a² + (1 − a)²)`` with ``c = e^{2μ}``. The right side
    is exact, has no logarithm, no clamp and no pole, and is what is computed.

    Source: arXiv 2509.17702, the gate below its edge loss; the closed form is ours (method.md).

    Args:
        activation: float tensor of any shape, in [0, 1].
        mu: μ.

    Returns:
        float tensor of the same shape in [−1, 1].

    Example:
        >>> [round(float(v), 2) for v in edge_gate(torch.tensor([0.0, 0.02, 0.1, 0.3, 1.0]))]
        [-1.0, -0.88, 0.29, 0.93, 1.0]
    """
    edge = activation.square() * math.exp(2 * mu)
    flat = (1 - activation).square()
    return (edge - flat) / (edge + flat)


@overload
def depth_edge_alignment_loss(
    cam: Tensor, depth_m: Tensor, labels: Tensor, *, config: DepthEdgeAlignmentConfig = ...
) -> Tensor: ...


@overload
def depth_edge_alignment_loss(
    cam: Tensor, depth_m: Tensor, labels: Tensor, *, config: DepthEdgeAlignmentConfig = ..., return_statistics: bool
) -> tuple[Tensor, AlignmentStatistics]: ...


def depth_edge_alignment_loss(
    cam: Tensor,
    depth_m: Tensor,
    labels: Tensor,
    *,
    config: DepthEdgeAlignmentConfig = DepthEdgeAlignmentConfig(),
    return_statistics: bool = False,
) -> Tensor | tuple[Tensor, AlignmentStatistics]:
    r"""Penalise class activations whose edges disagree with the edges of depth.

    With a_k the Sobel magnitude of class k's activation map, d the edge activation of depth, the gate a', d' of
    :func:`edge_gate`, y the image labels and w pixel weights that sum to 1 over the image::

        L = −Σ_ij w_ij · 1/(Σ_k y_k) · Σ_k y_k · a'_{k,ij} · d'_{ij}          averaged over images

    Published: w = 1/(H·W). Here w is 0 where depth is invalid, 1/(number of valid pixels) elsewhere (``published``),
    or half of the weight shared by pixels with d' > 0 and half by the others (``balanced``).

    Source: Schmidt, Belagiannis, Nalpantidis, arXiv 2509.17702, edge loss. Differences: invalid depth has weight
    0 and images without a present class or without usable depth are left out of the batch average.

    Args:
        cam: float (B, K, h, w), raw class maps that carry gradients to the backbone; normalised here as
            ``config.cam_activation`` says. Half precision is computed in float32.
        depth_m: float (B, 1, H, W) or (B, H, W), metres, registered to the image of ``cam``; 0, NaN, ±Inf invalid.
            No gradient flows into it.
        labels: bool, int or float (B, K), 1 where the class is in view. Only these maps are computed.
        config: see :class:`DepthEdgeAlignmentConfig`.
        return_statistics: also return :class:`AlignmentStatistics`.

    Returns:
        Scalar in [−1, 1], up to 3 with edges that belong to the nearer surface; lower is better aligned (a perfectly
        flat map scores nearly −1 under ``published`` where edges are sparse, so a classification loss must anchor it);
        0 if no image has labels and depth.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> depth = torch.full((1, 32, 32), 1.0)
        >>> depth[:, 8:24, 8:24] = 0.8
        >>> inside = (depth < 0.9).float()[:, None]
        >>> labels = torch.ones(1, 1)
        >>> aligned = depth_edge_alignment_loss(inside, depth, labels)
        >>> shifted = depth_edge_alignment_loss(inside.roll(5, -1), depth, labels)
        >>> bool(aligned < shifted)
        True
    """
    _check(cam, depth_m, labels)
    with torch.autocast(cam.device.type, enabled=False):
        if cam.dtype in (torch.float16, torch.bfloat16):
            cam = cam.float()
        depth_m = depth_m.to(cam.device)
        target, nearer, statistics = _pixel_targets(depth_m, cam, config)
        image, kind = (labels > 0).nonzero(as_tuple=True)
        share = _class_share(image, target)
        activation = _activate(cam[image, kind][:, None], config)  # (pairs, 1, h, w): present classes only
        if (size := config.comparison_size(cam)) != tuple(activation.shape[-2:]):
            align = None if config.resample in ("nearest", "area") else False
            activation = F.interpolate(activation, size, mode=config.resample, align_corners=align)
        slopes = sobel_gradients(activation, scale=config.cam_sobel_scale)
        gated = edge_gate(gradient_magnitude(*slopes), config.mu)
        weighted = target[image] * share
        agreement = gated
        if nearer is not None:
            nearer = nearer[image]
            owned = nearer.any(1, keepdim=True) & (weighted > 0)
            agreement = torch.where(owned, _signed_gate(*slopes, nearer, config.mu), gated)
        loss = -(agreement * weighted).sum()
    if not return_statistics:
        return loss
    with torch.no_grad():
        none = cam.new_zeros(())
        found = bool(len(image))
        return loss, AlignmentStatistics(
            depth_edge_fraction=statistics[0],
            cam_edge_fraction=(gated > 0).to(cam).mean() if found else none,
            cam_activation=activation.detach().mean() if found else none,
            valid_fraction=statistics[1],
        )


class DepthEdgeAlignmentLoss(nn.Module):
    """:func:`depth_edge_alignment_loss` with a stored configuration.

    Args:
        config: see :class:`DepthEdgeAlignmentConfig`; the published form by default.

    Example:
        >>> loss = DepthEdgeAlignmentLoss(RECOMMENDED)
        >>> raw = torch.randn(2, 4, 16, 16, requires_grad=True)
        >>> loss(raw, torch.rand(2, 48, 64) + 0.5, torch.eye(4)[:2]).backward()
        >>> raw.grad.shape
        torch.Size([2, 4, 16, 16])
    """

    def __init__(self, config: DepthEdgeAlignmentConfig = DepthEdgeAlignmentConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(self, cam: Tensor, depth_m: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss; arguments as in :func:`depth_edge_alignment_loss`."""
        return depth_edge_alignment_loss(cam, depth_m, labels, config=self.config)

    def extra_repr(self) -> str:
        """Show the configuration."""
        return str(self.config)


@torch.no_grad()
def _pixel_targets(
    depth_m: Tensor, cam: Tensor, config: DepthEdgeAlignmentConfig
) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
    """d'·w per image (B, 1, h, w), the nearer side if it is asked for, and the shares of edge and of valid pixels."""
    size, nearer = config.comparison_size(cam), None
    edge_config = replace(config.edges, step_level=1 / (1 + math.exp(config.mu)))
    if config.edge_owner == "nearer":
        edges, weight, nearer = depth_edges_with_sides(depth_m, config=edge_config, size=size, step=config.owner_step)
        nearer = _shuffled(nearer, config)
    else:
        edges, weight = depth_edges(depth_m, config=edge_config, size=size)
    gate = edge_gate(edges, config.mu)
    on_edge = weight * (gate > 0)
    if config.average == "balanced":
        share = (_normalized(on_edge) + _normalized(weight - on_edge)) / 2
    else:
        share = _normalized(weight)
    valid = weight.sum()
    statistics = on_edge.sum() / valid.clamp_min(1), valid / weight.numel()
    target = gate * share
    target = _shuffled(target, config)
    return target.to(cam.dtype), nearer, (statistics[0].to(cam.dtype), statistics[1].to(cam.dtype))


def _signed_gate(gx: Tensor, gy: Tensor, nearer: Tensor, mu: float) -> Tensor:
    """Return the gate of the slope towards the nearer side; a slope away from it answers ``−2 − a'``, in [−3, −1]."""
    slope = gx * nearer[:, :1] + gy * nearer[:, 1:]
    gate = edge_gate(slope.abs(), mu)
    return torch.where(slope >= 0, gate, -2 - gate)


def _shuffled(of_depth: Tensor, config: DepthEdgeAlignmentConfig) -> Tensor:
    """Return what depth says, given to the next image of the batch if the control asks for it."""
    if config.depth_control == "aligned":
        return of_depth
    return of_depth.roll(1, dims=0) if len(of_depth) > 1 else torch.zeros_like(of_depth)


def _normalized(weight: Tensor) -> Tensor:
    return weight / weight.sum((-2, -1), keepdim=True).clamp_min(1e-12)


def _class_share(image: Tensor, target: Tensor) -> Tensor:
    """1/(classes of the image · images that count), per present class, (pairs, 1, 1, 1)."""
    classes = torch.bincount(image, minlength=len(target))
    counts = (classes > 0) & (target != 0).flatten(1).any(1)
    share = counts / classes.clamp_min(1) / counts.sum().clamp_min(1)
    return share[image].to(target.dtype).view(-1, 1, 1, 1)


def _activate(raw: Tensor, config: DepthEdgeAlignmentConfig) -> Tensor:
    if config.cam_activation == "sigmoid":
        return raw.sigmoid()
    if config.cam_activation == "none":
        return raw
    if config.cam_activation == "relu_max":
        raw = raw.relu()
        lowest = torch.zeros_like(raw[..., :1, :1])
    else:
        lowest = raw.amin((-2, -1), keepdim=True)
    spread = raw.amax((-2, -1), keepdim=True) - lowest
    if config.detach_range:
        lowest, spread = lowest.detach(), spread.detach()
    return (raw - lowest) / spread.clamp_min(1e-5)


def _check(cam: Tensor, depth_m: Tensor, labels: Tensor) -> None:
    if cam.ndim != 4 or not cam.is_floating_point():
        raise ValueError(f"cam must be a floating tensor (B, K, h, w), got {cam.dtype} {tuple(cam.shape)}")
    if min(cam.shape[-2:]) < 2:
        raise ValueError(f"cam must be at least 2×2 cells, got {tuple(cam.shape)}; lower the output stride")
    if tuple(labels.shape) != tuple(cam.shape[:2]):
        raise ValueError(f"labels must be multi-hot {tuple(cam.shape[:2])} like cam, got {tuple(labels.shape)}")
    if depth_m.ndim not in (3, 4) or len(depth_m) != len(cam) or (depth_m.ndim == 4 and depth_m.shape[1] != 1):
        raise ValueError(
            f"depth_m must be ({len(cam)}, 1, H, W) or ({len(cam)}, H, W) for this cam, got {tuple(depth_m.shape)}"
        )
