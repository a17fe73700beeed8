# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a student costs: parameters, operations, and the time it takes on this machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from deal_ros.students.base import Student
from deal_ros.students.pixels import Size
from deal_ros.students.predictor import Predictor


@dataclass(frozen=True)
class Latency:
    """Milliseconds per image, from image in memory to mask in memory.

    Args:
        median_ms: of ``repeats`` calls.
        p95_ms: slowest but five percent.
        repeats: number of calls.
    """

    median_ms: float
    p95_ms: float
    repeats: int


def count_parameters(student: Student) -> int:
    """Count the weights."""
    return sum(parameter.numel() for parameter in student.parameters())


def count_flops(student: Student, size: Size) -> int:
    """Floating-point operations of one image of this height and width; a multiplication and an addition are two.

    Convolutions and matrix products are counted, as ``torch.utils.flop_counter`` does; the rest is small beside them.
    """
    image = torch.zeros(1, 3, *size, device=next(student.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student.eval()(image)
    return int(counter.get_total_flops())


def measure_latency(predictor: Predictor, size: Size, seconds: float = 2.0) -> Latency:
    """Time single images of this height and width for about ``seconds``, after a warm-up."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    predictor.warm_up(size)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 1000):
        start = time.perf_counter()
        predictor.predict(image)
        times.append(1e3 * (time.perf_counter() - start))
    return Latency(statistics.median(times), float(np.percentile(times, 95)), len(times))
