# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What does DEAL cost: beside a CAM training step, and beside its own textbook form?

    python benchmarks/deal_cost.py [--quick] [--json FILE]

1. One optimiser step of a generic CAM (EfficientNet-Lite0, output stride 16, all of it trained) on 240×320 images, by
   the training objective as the engine runs it: gradient-ratio weighting, statistics and collapse guard included.
2. The loss alone, forward and backward, for 80 classes of which 3 are in view, maps 64×64: ours (published averaging)
   against the equation as printed, with its logarithm and tanh, over all classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import Report, Series, main, median_ratio, peak_memory_bytes, row, time_calls
from torch import Tensor
from torch.nn import functional as F

from deal_ros.cams import create_cam_network
from deal_ros.engine.distributed import Ranks
from deal_ros.engine.objective import CamLossConfig, CamObjective
from deal_ros.losses import RECOMMENDED, DepthEdgeAlignmentConfig, depth_edge_alignment_loss

QUESTION = "DEAL's cost"
PUBLISHED = DepthEdgeAlignmentConfig()


def scene(batch: int, height: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    """Images and depth: a box on a slanted table, 1 % of the readings missing."""
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)
    y = torch.arange(float(height)).view(1, 1, -1, 1)
    depth = (1 / (0.8 + 0.5 * y / height)).expand(batch, 1, height, width).clone()
    depth[:, :, height // 4 : height // 2, width // 3 : 2 * width // 3] *= 0.85
    depth[torch.rand(depth.shape, generator=generator) < 0.01] = 0
    return rgb.to(device), depth.to(device)


def textbook_loss(cam: Tensor, depth_m: Tensor, labels: Tensor) -> Tensor:
    """DEAL as printed: all K classes normalised, filtered by a convolution, through logarithm and tanh, then masked."""
    batch, classes, height, width = cam.shape
    depth = F.interpolate(1 / depth_m.clamp_min(0.1), (height, width), mode="bicubic", align_corners=False)
    d = _textbook_sobel(_unit(depth)).clamp(1e-5, 1 - 1e-5)
    a = _textbook_sobel(_unit(cam).reshape(-1, 1, height, width)).view(batch, classes, height, width)
    a = a.clamp(1e-5, 1 - 1e-5)
    gate = torch.tanh(2.5 + torch.log(a / (1 - a))) * torch.tanh(2.5 + torch.log(d / (1 - d)))
    present = labels[:, :, None, None]
    return -((gate * present).sum(1) / labels.sum(1)[:, None, None]).mean()


def _unit(maps: Tensor) -> Tensor:
    lowest, highest = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - lowest) / (highest - lowest + 1e-5)


def _textbook_sobel(maps: Tensor) -> Tensor:
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=maps.device) / 8
    gradient = F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    return (gradient.square().sum(1, keepdim=True) + 1e-12).sqrt()


def training_step(terms: str, batch: int, device: str) -> Callable[[], None]:
    """One optimiser step of the engine's objective with the given loss terms."""
    torch.manual_seed(0)
    network = create_cam_network("timm", 14, backbone="tf_efficientnet_lite0", weights="none").to(device).train()
    objective = CamObjective(network, CamLossConfig(terms=terms), Ranks(0, 1, torch.device(device)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    rgb, depth = scene(batch, 240, 320, device)
    labels = torch.zeros(batch, 14, device=device)
    labels[torch.arange(batch), torch.arange(batch) % 14] = 1
    labels[:, 3] = 1
    steps = iter(range(10**9))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss, _, _ = objective(next(steps), True, rgb, depth, labels)
        loss.backward()
        optimizer.step()

    return step


def run(quick: bool) -> Report:
    """Both comparisons on the device at hand."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, raw = _beside_a_training_step(2 if quick else 16, 5 if quick else 9, device)
    more, raw["textbook"] = _beside_the_textbook(4 if quick else 16, 5 if quick else 25, device)
    return Report(rows + more, raw)


def _beside_a_training_step(batch: int, repeats: int, device: str) -> tuple[list[Any], dict[str, Any]]:
    steps = {terms: training_step(terms, batch, device) for terms in ("none", "deal")}
    series = time_calls(steps, warmup=2, repeats=repeats)
    added = 100 * (median_ratio(series["deal"], series["none"], device) - 1)
    alone = _loss_alone(batch, device, repeats)
    clock = "cpu_s" if device == "cpu" else "wall_s"
    share = 100 * statistics.median(getattr(alone, clock)) / statistics.median(getattr(series["none"], clock))
    memory = {terms: peak_memory_bytes(step, device) for terms, step in steps.items()}
    rows = [
        row(QUESTION, f"CAM training step without DEAL, batch {batch}", series["none"].median_s * 1e3, "ms"),
        row(QUESTION, "DEAL adds to it, steps compared in pairs", added, "%", at_most=3),
        row(QUESTION, "DEAL alone, forward and backward, as a share of it", share, "%", at_most=3),
        row(QUESTION, "DEAL adds to its peak memory", 100 * (memory["deal"] / memory["none"] - 1), "%", at_most=3),
    ]
    timings = {name: values.summary() for name, values in (series | {"loss_alone": alone}).items()}
    return rows, {"training_step": {"batch": batch, "timings": timings, "peak_bytes": memory}}


def _loss_alone(batch: int, device: str, repeats: int) -> Series:
    """One forward and backward pass of the recommended form on 15×20 maps."""
    cam = torch.randn(batch, 14, 15, 20, device=device, requires_grad=True)
    _, depth = scene(batch, 240, 320, device)
    labels = torch.zeros(batch, 14, device=device)
    labels[:, :2] = 1

    def step() -> None:
        torch.autograd.grad(depth_edge_alignment_loss(cam, depth, labels, config=RECOMMENDED), cam)

    return time_calls({"loss": step}, repeats=repeats)["loss"]


def _beside_the_textbook(batch: int, repeats: int, device: str) -> tuple[list[Any], dict[str, Any]]:
    cam = torch.randn(batch, 80, 64, 64, device=device, requires_grad=True)
    _, depth = scene(batch, 240, 320, device)
    labels = torch.zeros(batch, 80, device=device)
    labels[:, 5], labels[:, 17], labels[:, 60] = 1, 1, 1

    def ours() -> Tensor:
        return torch.autograd.grad(depth_edge_alignment_loss(cam, depth, labels, config=PUBLISHED), cam)[0]

    def textbook() -> Tensor:
        return torch.autograd.grad(textbook_loss(cam, depth, labels), cam)[0]

    calls = {"ours": ours, "textbook": textbook}
    series = time_calls(calls, repeats=repeats)
    memory = {name: peak_memory_bytes(call, device) for name, call in calls.items()}
    faster = median_ratio(series["textbook"], series["ours"], device)
    leaner = memory["textbook"] / memory["ours"]
    rows = [
        row(QUESTION, "DEAL alone, K = 80, 3 in view, 64×64 maps", series["ours"].median_s * 1e3, "ms"),
        row(QUESTION, "the textbook form takes … times as long", faster, "×", at_least=3),
        row(QUESTION, "the textbook form takes … times the peak memory", leaner, "×", at_least=3),
    ]
    timings = {name: values.summary() for name, values in series.items()}
    gradient_bytes = cam.numel() * cam.element_size()  # which both must return
    return rows, {"batch": batch, "timings": timings, "peak_bytes": memory, "gradient_bytes": gradient_bytes}


main(__name__, run)
