# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A bundle as one file for other runtimes: camera image in, mask and confidence out, everything between inside."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deal_ros.students.base import Student
from deal_ros.students.bundle import BundleSpec, read_bundle
from deal_ros.students.folding import fold_batch_norm
from deal_ros.students.onnx_graph import to_onnx
from deal_ros.students.pixels import Encoder, Size, decode

FORMATS = ("onnx", "pt2")
MIN_AGREEMENT = 0.95
"""Below this an export is wrong. Trained students reach 0.999 on camera images; the synthetic test image is none."""


@dataclass(frozen=True)
class ExportConfig:
    """What is exported.

    Args:
        format: ``onnx`` (any image size), or ``pt2``: a ``torch.export`` program for one image size.
        input_size: height and width inside the network; ``None`` takes the bundle's.
        image_size: height and width of the camera image, for ``pt2``; ``None`` takes twice the network's.
        confidence_threshold: pixels below it, in [0, 1], become 255.
    """

    format: Literal["onnx", "pt2"] = "onnx"
    input_size: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    confidence_threshold: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        for name in ("input_size", "image_size"):
            size = getattr(self, name)
            if size is not None and not all(32 <= side <= 8192 for side in size):
                raise ValueError(f"{name} must be 32..8192 pixels each, got {size}")
        if not 0 <= self.confidence_threshold <= 1:
            raise ValueError(f"confidence_threshold must be in 0..1, got {self.confidence_threshold}")


class Deployed(nn.Module):
    """A student with what comes before and after it.

    Args:
        student: the student; a copy with folded batch norms is kept.
        spec: normalisation.
        size: height and width inside the network.
        threshold: as in :func:`deal_ros.students.pixels.decode`.
    """

    def __init__(self, student: Student, spec: BundleSpec, size: Size, threshold: float) -> None:
        super().__init__()
        self.encoder = Encoder(size, spec.mean, spec.std)
        self.network = fold_batch_norm(student.fixed_to(size), torch.zeros(1, 3, *size)).requires_grad_(False)
        self.threshold = threshold

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image uint8 (H, W, 3), RGB → mask uint8 (H, W) and confidence uint8 (H, W)."""
        logits = self.network(self.encoder(image[None]))
        mask, confidence = decode(logits, (image.shape[0], image.shape[1]), self.threshold)
        return mask[0], confidence[0]


def export(student: Student, spec: BundleSpec, out: str | Path, config: ExportConfig = ExportConfig()) -> Path:
    """Write one file with input ``image`` uint8 (H, W, 3), RGB, and outputs ``mask`` and ``confidence`` uint8 (H, W).

    Class names, version and sizes are stored in the file: ONNX metadata, or ``extra_files`` of the torch program.

    Args:
        student: in evaluation mode, on the CPU.
        spec: of its bundle.
        out: file to write; replaced as a whole.
        config: see :class:`ExportConfig`.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the student cannot be exported in this format.
    """
    out = Path(out)
    size = config.input_size or spec.input_size
    deployed = Deployed(student.eval(), spec, size, config.confidence_threshold).eval()
    image_size = config.image_size or (2 * size[0], 2 * size[1])
    example = torch.zeros(*image_size, 3, dtype=torch.uint8)
    metadata = {
        "classes": json.dumps(list(spec.classes), ensure_ascii=False),
        "colors": json.dumps(spec.colors),
        "version": spec.version,
        "input_size": json.dumps(size),
        "producer": "deal_ros",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial{out.suffix}")
    try:
        if config.format == "onnx":
            axes = {0: "height", 1: "width"}
            dynamic = {"image": axes, "mask": axes, "confidence": axes}
            partial.write_bytes(to_onnx(deployed, example, ["image"], ["mask", "confidence"], dynamic, metadata))
        else:
            _write_program(deployed, example, partial, metadata)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def run_exported(path: str | Path, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Run an exported file on one image uint8 (H, W, 3), with onnxruntime or torch; returns mask and confidence.

    Raises:
        ImportError: if onnxruntime is needed and not installed.
    """
    if Path(path).suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        mask, confidence = session.run(["mask", "confidence"], {"image": image})
        return mask, confidence
    program: Any = torch.export.load(str(path))
    mask, confidence = program.module()(torch.from_numpy(image))
    return mask.numpy(), confidence.numpy()


def mask_agreement(student: Student, spec: BundleSpec, path: str | Path, config: ExportConfig) -> float:
    """Share of mask pixels on a synthetic image that are equal in the exported file and in eager torch.

    Raises:
        ImportError: if onnxruntime is needed and not installed.
    """
    image = _synthetic_image(spec, config)
    mask, _ = run_exported(path, image)
    return float((mask == _eager_mask(student, spec, config, image)).mean())


def half_agreement(student: Student, spec: BundleSpec, folder: str | Path) -> float:
    """Share of mask pixels on a synthetic image that a bundle written in half precision has in common with its origin.

    Raises:
        BundleError: as :func:`~deal_ros.students.bundle.read_bundle`.
    """
    config = ExportConfig()
    image = _synthetic_image(spec, config)
    half, _ = read_bundle(folder)
    masks = [_eager_mask(network, spec, config, image) for network in (student, half)]
    return float((masks[0] == masks[1]).mean())


def _synthetic_image(spec: BundleSpec, config: ExportConfig) -> NDArray[np.uint8]:
    size = config.input_size or spec.input_size
    height, width = config.image_size or (2 * size[0], 2 * size[1])
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@torch.no_grad()
def _eager_mask(
    student: Student, spec: BundleSpec, config: ExportConfig, image: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    encode = Encoder(config.input_size or spec.input_size, spec.mean, spec.std)
    logits = student.eval()(encode(torch.from_numpy(image)[None]))
    mask, _ = decode(logits, (image.shape[0], image.shape[1]), config.confidence_threshold)
    return mask[0].numpy()


def _write_program(deployed: nn.Module, example: Tensor, path: Path, metadata: dict[str, str]) -> None:
    with torch.no_grad():
        try:
            program = torch.export.export(deployed, (example,))
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"the student cannot be exported by torch.export: {str(error).splitlines()[0]}") from error
    torch.export.save(program, str(path), extra_files=dict(metadata))
