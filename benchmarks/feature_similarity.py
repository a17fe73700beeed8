# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Feature similarity loss: what does the windowed form save against the dense one, and does it say the same?

    python benchmarks/feature_similarity.py [--quick] [--json FILE]

Forward and backward, batch of 4, two classes per image, σ = 5 cells as published. Beside our two forms stands the
published one, which lets autograd keep every pair.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from common import Report, main, median_ratio, peak_memory_bytes, row, time_calls
from torch import Tensor

from deal_ros.losses import FeatureSimilarityConfig, feature_similarity_loss, max_norm

QUESTION = "FSL windowed or dense"
BATCH, CLASSES = 4, 20


def published(raw: Tensor, rgb: Tensor, labels: Tensor, config: FeatureSimilarityConfig) -> Tensor:
    """The loss as its paper writes it: all pairs, logarithm and tanh, gradients by autograd, all classes."""
    batch, _, height, width = raw.shape
    y = max_norm(raw) * labels[:, :, None, None]
    y = torch.cat([1 - y.amax(1, keepdim=True), y], 1).flatten(2).mT
    x = rgb.flatten(2).mT.contiguous()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([rows.flatten(), columns.flatten()], 1).to(raw)
    gaussian = torch.exp(-0.5 * (torch.cdist(cells, cells) / config.sigma) ** 2) / (2 * math.pi * config.sigma**2)
    delta = torch.cdist(x, x, p=1) / 3
    gate = torch.tanh(config.mu + torch.log((delta + 1e-5) / (1 - delta + 1e-5)))
    squared = (y.square().sum(2, keepdim=True) + y.square().sum(2)[:, None] - 2 * y @ y.mT).clamp_min(0)
    return -(gaussian * 0.5 * squared * gate).sum() / (batch * height * width)


def scene(side: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Blobs as class maps on piecewise constant colours with texture."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(BATCH, CLASSES, side, side, generator=generator)
    raw = torch.nn.functional.avg_pool2d(raw, 5, 1, 2) * 5
    coarse = torch.rand(BATCH, 3, 8, 8, generator=generator)
    rgb = torch.nn.functional.interpolate(coarse, (side, side), mode="nearest")
    rgb = (rgb + 0.03 * torch.randn(rgb.shape, generator=generator)).clamp(0, 1)
    labels = torch.zeros(BATCH, CLASSES)
    labels[:, :2] = 1
    return raw.to(device), rgb.to(device), labels.to(device)


def run(quick: bool) -> Report:
    """Time and memory at several map sizes; the largest for the windowed form alone."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sides = (28,) if quick else (28, 56)
    rows, raw = [], {}
    for side in sides:
        rows_here, raw[str(side)] = _compare(side, device, repeats=3 if quick else 5, last=side == sides[-1])
        rows += rows_here
    small, large = (_windowed_memory(side, device) for side in (24, 48))
    growth = large / small
    raw["windowed_peak_bytes"] = {"24": small, "48": large}
    rows.append(
        row(QUESTION, "growth of windowed peak memory for 4 times the pixels", growth, "×", at_least=1, at_most=4.4)
    )
    return Report(rows, raw)


def _compare(side: int, device: str, repeats: int, last: bool) -> tuple[list[Any], dict[str, Any]]:
    maps, rgb, labels = scene(side, device)
    maps.requires_grad_()
    forms = {
        "windowed": FeatureSimilarityConfig(),
        "dense": FeatureSimilarityConfig(form="dense"),
        "published": FeatureSimilarityConfig(form="dense"),
    }

    def step(name: str) -> tuple[float, Tensor]:
        loss = (published if name == "published" else _ours)(maps, rgb, labels, forms[name])
        return float(loss.detach()), torch.autograd.grad(loss, maps)[0]

    values = {name: step(name) for name in forms}
    series = time_calls({name: lambda n=name: step(n) for name in forms}, warmup=1, repeats=repeats)
    memory = {name: peak_memory_bytes(lambda n=name: step(n), device) for name in forms}
    loss, gradient = values["published"]
    value_error = abs(values["windowed"][0] - loss) / abs(loss)
    gradient_error = float((values["windowed"][1] - gradient).norm() / gradient.norm())
    grid = f"{side}×{side}"
    target = {"at_least": 1.0} if last else {}
    rows = [
        row(QUESTION, f"{grid}: windowed value, relative error", value_error, "", at_most=0.02),
        row(QUESTION, f"{grid}: windowed gradient, relative error", gradient_error, "", at_most=0.02),
        row(QUESTION, f"{grid}: windowed", series["windowed"].median_s * 1e3, "ms"),
        row(
            QUESTION,
            f"{grid}: published form takes … times as long",
            median_ratio(series["published"], series["windowed"], device),
            "×",
            **target,
        ),
        row(
            QUESTION,
            f"{grid}: our dense takes … times as long",
            median_ratio(series["dense"], series["windowed"], device),
            "×",
        ),
        row(QUESTION, f"{grid}: windowed peak memory", memory["windowed"] / 2**20, "MiB"),
        row(
            QUESTION,
            f"{grid}: published form takes … times the memory",
            memory["published"] / memory["windowed"],
            "×",
            **target,
        ),
    ]
    kept = {"timings": {name: values.summary() for name, values in series.items()}, "peak_bytes": memory}
    return rows, kept


def _ours(maps: Tensor, rgb: Tensor, labels: Tensor, config: FeatureSimilarityConfig) -> Tensor:
    return feature_similarity_loss(maps, rgb, labels, config=config)


def _windowed_memory(side: int, device: str) -> int:
    maps, rgb, labels = scene(side, device)
    maps.requires_grad_()
    return peak_memory_bytes(lambda: feature_similarity_loss(maps, rgb, labels).backward(), device)


main(__name__, run)
