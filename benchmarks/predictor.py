# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Predictor: how much does it add to the bare forward pass, and what does a user gain over plain eager torch?

    python benchmarks/predictor.py [--quick] [--json FILE]

The light student (EfficientNet-Lite0, 15 classes with background, network input 240×320). "Plain torch" is what
examples do: resize with OpenCV, normalise, eager fp32 model, enlarge the logits, softmax, maximum. Masks are compared
with a student that has learnt coloured shapes, for an untrained one is undecided everywhere. Ratios are of wall time,
pair by pair.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from common import Report, Row, Series, main, row, time_calls
from torch.nn import functional as F

from deal_ros.students import BundleSpec, Prediction, Predictor, PredictorConfig, Student, create_student
from deal_ros.students.pixels import Encoder

QUESTION = "predictor"
CLASSES = tuple(f"class {i}" for i in range(14))
NETWORK = (240, 320)
CAMERA = (480, 640)
SPEC = BundleSpec(CLASSES, NETWORK)


def picture(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ellipses of three colours (classes 1 to 3) on dark noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    rgb = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(4):
        label = int(rng.integers(1, 4))
        center = tuple(int(v) for v in rng.integers((0, 0), (width, height)))
        axes = tuple(int(v) for v in rng.integers(height // 12, height // 4, 2))
        color = [30, 30, 30]
        color[label - 1] = 220
        angle = float(rng.integers(180))
        cv2.ellipse(rgb, center, axes, angle, 0, 360, color, -1)
        cv2.ellipse(mask, center, axes, angle, 0, 360, label, -1)
    return rgb, mask


def taught_student(steps: int) -> Student:
    """The light student after some steps on :func:`picture`, its encoder frozen."""
    torch.manual_seed(0)
    student = create_student("light", len(CLASSES), frozen_stages=5).train()
    optimizer = torch.optim.AdamW(student.parameter_groups(3e-3, 1e-4))
    for step in range(steps):
        pictures = [picture(4 * step + i, (120, 160)) for i in range(4)]
        image = student.normalize(torch.from_numpy(np.stack([p[0] for p in pictures])).permute(0, 3, 1, 2))
        logits = F.interpolate(student(image), size=(120, 160), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, torch.from_numpy(np.stack([p[1] for p in pictures])).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student.eval()


def plain(student: Student, device: str = "cpu") -> Callable[[np.ndarray], Prediction]:
    """Eager fp32 torch, as examples write it."""
    student = student.to(device)
    mean = torch.tensor(student.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(student.std, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def predict(rgb: np.ndarray) -> Prediction:
        small = cv2.resize(rgb, NETWORK[::-1], interpolation=cv2.INTER_AREA)
        image = torch.from_numpy(small).to(device).permute(2, 0, 1)[None].float() / 255
        logits = student((image - mean) / std)
        logits = F.interpolate(logits, size=rgb.shape[:2], mode="bilinear", align_corners=False)
        confidence, mask = logits.softmax(1).max(1)
        return Prediction(mask[0].byte().cpu().numpy(), (confidence[0] * 255).byte().cpu().numpy())

    return predict


def agreement(predictor: Predictor, student: Student, count: int) -> float:
    """Share of mask pixels equal to eager fp32's, on pictures of the camera's size."""
    encoder, equal = Encoder(NETWORK, student.mean, student.std), []
    for seed in range(10_000, 10_000 + count):
        rgb, _ = picture(seed, CAMERA)
        with torch.no_grad():
            logits = student(encoder(torch.from_numpy(rgb)[None]))
            expected = F.interpolate(logits, size=CAMERA, mode="bilinear", align_corners=False).argmax(1)[0].numpy()
        equal.append((predictor.predict(rgb).mask == expected).mean())
    return float(np.mean(equal))


def run(quick: bool) -> Report:
    """CPU always; CUDA where there is a device."""
    student = taught_student(60)
    rows, raw = on_cpu(student, quick)
    gpu_rows, gpu_raw = on_cuda(student, quick)
    return Report(rows + gpu_rows, {**raw, **gpu_raw})


def on_cpu(student: Student, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """Two threads: the robot's two cores."""
    torch.set_num_threads(2)
    repeats, count = (10, 3) if quick else (60, 20)
    modes = {"torch": PredictorConfig(backend="torch", device="cpu"), "bf16": None, "onnxruntime": None}
    modes["bf16"] = PredictorConfig(backend="torch", device="cpu", precision="bf16")
    try:
        import onnxruntime  # noqa: F401

        modes["onnxruntime"] = PredictorConfig(backend="onnxruntime", device="cpu")
    except ImportError:
        pass
    predictors = {name: Predictor.from_student(student, SPEC, c) for name, c in modes.items() if c is not None}
    for predictor in predictors.values():
        predictor.warm_up(CAMERA)
        predictor.warm_up(NETWORK)
    rgb, small = picture(1, CAMERA)[0], picture(1, NETWORK)[0]
    best = predictors.get("onnxruntime", predictors["torch"])
    eager = plain(student)
    image = torch.zeros(1, 3, *NETWORK)

    def forward(name: str) -> Callable[[], Any]:
        run_network = predictors[name]._backend._forward  # type: ignore[attr-defined]

        @torch.inference_mode()
        def call() -> Any:
            return run_network(image)

        return call

    calls: dict[str, Callable[[], Any]] = {"plain": lambda: eager(rgb)}
    for name, predictor in predictors.items():
        calls[f"forward {name}"] = forward(name)
        calls[f"predict {name}"] = lambda p=predictor: p.predict(rgb)
    calls["predict small"] = lambda: best.predict(small)
    times = time_calls(calls, repeats=repeats)
    chosen = "onnxruntime" if "onnxruntime" in predictors else "torch"
    forward_ms = 1e3 * times[f"forward {chosen}"].median_s
    predict_ms = 1e3 * times[f"predict {chosen}"].median_s
    rows = [
        row(QUESTION, f"bare forward 240×320, {chosen}", forward_ms, "ms", at_most=15),
        row(QUESTION, "frames per second, 320×240 image", 1 / times["predict small"].median_s, "Hz", at_least=60),
        row(QUESTION, f"640×480 image to mask, {chosen}", predict_ms, "ms"),
        row(QUESTION, "… beyond 1.15 × the bare forward", predict_ms - 1.15 * forward_ms, "ms", at_most=5),
    ]
    ratio = _wall_ratio(times["plain"], times[f"predict {chosen}"])
    rows.append(row(QUESTION, "plain torch takes … times as long", ratio, "×", at_least=2))
    if chosen == "onnxruntime":
        ratio = _wall_ratio(times["forward torch"], times["forward onnxruntime"])
        rows.append(row(QUESTION, "torch's forward takes … times onnxruntime's", ratio, "×"))
    else:
        rows.append(row(QUESTION, "torch's forward takes … times onnxruntime's", None, "×"))
    for name, predictor in predictors.items():
        same = agreement(predictor, student, count)
        rows.append(row(QUESTION, f"mask pixels as eager fp32, {name}", 100 * same, "%", at_least=99.9))
    return rows, {"cpu": {name: series.summary() for name, series in times.items()}}


CUDA_MODES = {
    "eager fp32": PredictorConfig(
        backend="torch", device="cuda", precision="fp32", channels_last=False, cuda_graph=False
    ),
    "fp16": PredictorConfig(backend="torch", device="cuda", precision="fp16", channels_last=False, cuda_graph=False),
    "fp16, channels last": PredictorConfig(backend="torch", device="cuda", precision="fp16", cuda_graph=False),
    "fp16, compiled": PredictorConfig(backend="torch", device="cuda", precision="fp16", cuda_graph=False, compile=True),
    "fp16, CUDA graph": PredictorConfig(backend="torch", device="cuda", precision="fp16"),
}


def on_cuda(student: Student, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """Every mode at batch 1 and 16; "not measured" without a device."""
    speedup = "CUDA graph fp16: plain torch takes … times as long, batch 1"
    kernels = "CUDA graph, image to mask, over its kernels, batch 1"
    if not torch.cuda.is_available():
        names = [f"{mode}, batch {batch}" for batch in (1, 16) for mode in CUDA_MODES]
        rows = [row(QUESTION, f"CUDA, {name}", None, "ms") for name in names]
        bounds = row(QUESTION, speedup, None, "×", at_least=3), row(QUESTION, kernels, None, "×", at_most=1.2)
        return [*rows, *bounds], {}
    predictors = {
        name: Predictor.from_student(student, SPEC, config)
        for name, config in CUDA_MODES.items()
        if not (quick and config.compile)
    }
    rows, raw = [], {}
    for batch in (1, 16):
        images = np.stack([picture(seed, CAMERA)[0] for seed in range(batch)])
        for predictor in predictors.values():
            predictor._batch_size = batch
            predictor.warm_up(CAMERA, batch)
        eager = plain(student, "cuda")
        calls: dict[str, Callable[[], Any]] = {
            name: functools.partial(predictor.predict_batch, images) for name, predictor in predictors.items()
        }
        calls["plain"] = functools.partial(_each, eager, images)
        times = time_calls(calls, repeats=10 if quick else 100)
        raw[f"cuda batch {batch}"] = {name: series.summary() for name, series in times.items()}
        rows += [row(QUESTION, f"CUDA, {n}, batch {batch}", 1e3 * t.median_s, "ms") for n, t in times.items()]
        if batch == 1:
            ratio = _wall_ratio(times["plain"], times["fp16, CUDA graph"])
            rows.append(row(QUESTION, speedup, ratio, "×", at_least=3))
            kernel = _kernel_seconds(predictors["fp16, CUDA graph"])
            rows.append(row(QUESTION, kernels, times["fp16, CUDA graph"].median_s / kernel, "×", at_most=1.2))
    student.cpu()
    for name, predictor in predictors.items():
        same = agreement(predictor, student, 3 if quick else 20)
        rows.append(row(QUESTION, f"mask pixels as eager fp32, CUDA {name}", 100 * same, "%", at_least=99.9))
    return rows, raw


def _each(predict: Callable[[np.ndarray], Prediction], images: np.ndarray) -> list[Prediction]:
    return [predict(rgb) for rgb in images]


def _wall_ratio(over: Series, under: Series) -> float:
    """Not of processor time: onnxruntime's threads wait busily, and work on a GPU costs none."""
    return statistics.median(a / b for a, b in zip(over.wall_s, under.wall_s, strict=True))


def _kernel_seconds(predictor: Predictor, rounds: int = 50) -> float:
    """Time of one replay of the captured graph on the device, by its own clock, without copies to and from it."""
    slot = predictor._backend._shapes[(1, *CAMERA)]  # type: ignore[attr-defined]
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(rounds):
        slot.graph.replay() if slot.graph is not None else slot.run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / rounds


main(__name__, run)
