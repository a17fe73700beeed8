# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One warm object that turns camera images into masks, as fast as the machine allows and alike in every mode."""

from __future__ import annotations

import copy
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from deal_ros.students.backends import (
    Backend,
    CpuBackend,
    DeviceBackend,
    OnnxForward,
    prepare_network,
    torch_forward,
)
from deal_ros.students.base import Student
from deal_ros.students.bundle import BundleSpec, read_bundle
from deal_ros.students.pixels import Encoder, Size, network_size

_log = logging.getLogger(__name__)
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MIN_AGREEMENT = 0.999
"""Share of pixels that must have the same class in every mode as in eager fp32."""


@dataclass(frozen=True)
class PredictorConfig:
    """How a student is run.

    Args:
        backend: ``torch``, ``onnxruntime`` (CPU by default), or ``auto``: onnxruntime on the CPU where it is installed
            and gives the same masks; torch otherwise.
        device: a torch device such as ``cpu``, ``cuda``, ``cuda:1``; ``auto`` takes CUDA where there is one.
        precision: ``fp32``, ``fp16``, ``bf16``; ``auto`` is fp16 on CUDA, fp32 elsewhere.
        input_size: height and width for the network; ``None`` follows the bundle, see ``network_size``.
        confidence_threshold: pixels below it, in [0, 1], become 255 (unlabelled). 0 keeps all.
        batch_size: most images that go through the network at once in :meth:`Predictor.predict_batch`.
        threads: CPU threads; 0 leaves torch's number. Torch's number is set for the whole process.
        channels_last: memory layout in torch.
        compile: use ``torch.compile``; falls back, with a warning, where there is no compiler.
        cuda_graph: capture CUDA graphs.
        providers: onnxruntime's execution providers, for example ``TensorrtExecutionProvider`` first.
        on_out_of_memory: of the device: ``reduce`` halves the batch and gives up at one image, ``cpu`` then goes on on
            the CPU, ``raise`` gives up at once.
    """

    backend: Literal["auto", "torch", "onnxruntime"] = "auto"
    device: str = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    input_size: tuple[int, int] | None = None
    confidence_threshold: float = 0.0
    batch_size: int = 8
    threads: int = 0
    channels_last: bool = True
    compile: bool = False
    cuda_graph: bool = True
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    on_out_of_memory: Literal["raise", "reduce", "cpu"] = "cpu"

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        if not 0 <= self.confidence_threshold <= 1:
            raise ValueError(f"confidence_threshold must be in 0..1, got {self.confidence_threshold}")
        if self.input_size is not None and not all(32 <= side <= 4096 for side in self.input_size):
            raise ValueError(f"input_size must be 32..4096 pixels each, got {self.input_size}")
        if self.batch_size < 1 or self.threads < 0:
            raise ValueError(f"batch_size must be >= 1 and threads >= 0, got {self.batch_size} and {self.threads}")
        if self.backend == "onnxruntime" and self.precision not in ("auto", "fp32"):
            raise ValueError(f"precision must be fp32 with onnxruntime, got {self.precision}")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is where in one image.

    Args:
        mask: uint8 (H, W), class ids; 0 background, 255 below the confidence threshold.
        confidence: uint8 (H, W), probability of that class times 255.
    """

    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


class Predictor:
    """A student, ready to run. Safe to call from several threads; calls run one after the other.

    Args:
        bundle: folder of a model bundle.
        config: see :class:`PredictorConfig`.

    Raises:
        BundleError: if the bundle cannot be read.
        ValueError: if the device, backend or provider is not there.
    """

    def __init__(self, bundle: str | Path, config: PredictorConfig = PredictorConfig()) -> None:
        student, spec = read_bundle(bundle)
        self._start(student, spec, config)

    @classmethod
    def from_student(cls, student: Student, spec: BundleSpec, config: PredictorConfig = PredictorConfig()) -> Predictor:
        """Make a predictor of a student in memory; normalisation is the student's. The student is left as it is."""
        predictor = cls.__new__(cls)
        predictor._start(copy.deepcopy(student), replace(spec, mean=student.mean, std=student.std), config)
        return predictor

    def _start(self, student: Student, spec: BundleSpec, config: PredictorConfig) -> None:
        self.config, self.spec, self._student, self._lock = config, spec, student.cpu().eval(), threading.Lock()
        self.note = ""
        self._batch_size = config.batch_size
        if config.threads:
            torch.set_num_threads(config.threads)
        device = _device(config.device)
        if config.backend == "auto" and device.type == "cpu":
            self._backend = self._best_on_cpu()
        elif config.backend == "onnxruntime":
            self._backend = self._onnxruntime()
        else:
            self._backend = self._or_cpu(lambda: self._torch(device))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names: ``classes[i]`` has id ``i + 1``."""
        return self.spec.classes

    @property
    def version(self) -> str:
        """Return the bundle's twelve hexadecimal digits."""
        return self.spec.version

    @property
    def backend(self) -> str:
        """``torch`` or ``onnxruntime``, as chosen."""
        return self._backend.name

    @property
    def device(self) -> str:
        """Where the network runs now."""
        return self._backend.device

    def describe(self) -> dict[str, Any]:
        """Mode, for diagnostics: backend, device, precision, batch size, note of a fall-back."""
        mode = {"backend": self.backend, "device": self.device, "precision": self._backend.precision}
        return {**mode, "version": self.version, "batch_size": self._batch_size, "note": self.note}

    def warm_up(self, size: Size, batch: int = 1) -> float:
        """Make all buffers, graphs and sessions for images of this height and width; returns seconds of one batch."""
        images = np.zeros((batch, *size, 3), np.uint8)
        for _ in range(3):
            start = time.perf_counter()
            self.predict_batch(images)
        return time.perf_counter() - start

    def predict(self, rgb: NDArray[np.uint8], out: Prediction | None = None) -> Prediction:
        """Segment one image.

        Args:
            rgb: uint8 (H, W, 3), RGB; any strides.
            out: arrays of this size to write into, so that nothing is allocated; ``None`` makes new ones.

        Raises:
            ValueError: if ``rgb`` has another shape or dtype.
            MemoryError: if the device is full and ``on_out_of_memory`` allows no fall-back.
        """
        if rgb.ndim != 3:
            raise ValueError(f"rgb must be uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
        if out is None:
            out = Prediction(np.empty(rgb.shape[:2], np.uint8), np.empty(rgb.shape[:2], np.uint8))
        self._segment(rgb[None], out.mask[None], out.confidence[None])
        return out

    def predict_batch(self, images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> list[Prediction]:
        """Segment images of one size, ``batch_size`` at a time.

        Args:
            images: uint8 (B, H, W, 3), or a list of (H, W, 3).

        Raises:
            ValueError: if they differ in size or are not uint8 RGB.
            MemoryError: as :meth:`predict`.
        """
        if len(images) == 0:
            return []
        if len({np.shape(image) for image in images}) != 1:
            raise ValueError(f"images of a batch must have one size, got {sorted({np.shape(i) for i in images})}")
        stack = images if isinstance(images, np.ndarray) else np.stack(images)
        masks, confidences = np.empty(stack.shape[:3], np.uint8), np.empty(stack.shape[:3], np.uint8)
        self._segment(stack, masks, confidences)
        return [Prediction(mask, confidence) for mask, confidence in zip(masks, confidences)]

    def close(self) -> None:
        """Let go of device memory. The predictor cannot be used afterwards."""
        with self._lock:
            self._backend.close()
            self._backend = _Closed()

    def _segment(self, images: NDArray[np.uint8], masks: NDArray[np.uint8], confidences: NDArray[np.uint8]) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise ValueError(f"rgb must be uint8 (H, W, 3), RGB, got {images.dtype} {images.shape[1:]}")
        images = np.ascontiguousarray(images)
        with self._lock:
            begin = 0
            while begin < len(images):
                step = slice(begin, begin + self._batch_size)
                try:
                    self._backend.segment(images[step], masks[step], confidences[step])
                    begin += self._batch_size
                except torch.OutOfMemoryError as error:
                    self._make_room(min(self._batch_size, len(images) - begin), error)

    def _make_room(self, batch: int, error: Exception) -> None:
        device = self.device
        if self.config.on_out_of_memory != "raise" and batch > 1:
            self._batch_size = batch // 2
            self._say(f"{device} is out of memory: going on with {self._batch_size} images at a time")
        elif self.config.on_out_of_memory == "cpu":
            self._backend.close()
            self._backend = self._best_on_cpu()
            self._say(f"{device} is out of memory: going on on the CPU")
        else:
            raise MemoryError(
                f"{device} is out of memory for {batch} images; use a smaller input_size or batch_size,"
                " or on_out_of_memory='cpu'"
            ) from error

    def _say(self, note: str) -> None:
        self.note = note
        _log.warning(note)

    def _or_cpu(self, make: Callable[[], Backend]) -> Backend:
        try:
            return make()
        except torch.OutOfMemoryError as error:
            if self.config.on_out_of_memory != "cpu":
                raise MemoryError(f"no memory for the student on {self.config.device}: {error}") from error
            self._say("the device is out of memory for the student: running on the CPU")
            return self._best_on_cpu()

    def _encoder(self, size: Size) -> Encoder:
        return Encoder(size, self.spec.mean, self.spec.std)

    def _size_of(self, image: Size) -> Size:
        return self.config.input_size or network_size(image, self.spec.input_size)

    def _torch(self, device: torch.device, precision: str = "") -> Backend:
        precision = precision or self.config.precision
        if precision == "auto":
            precision = "fp16" if device.type == "cuda" else "fp32"
        if device.type == "cpu" and precision == "fp16":
            raise ValueError("precision must be fp32 or bf16 on the CPU, got fp16")
        dtype, last = _DTYPES[precision], self.config.channels_last
        network = prepare_network(self._student, self.spec.input_size, device=device, dtype=dtype, channels_last=last)
        run = self._compiled(network, device, dtype) if self.config.compile else network
        rest = self._encoder, self._size_of, self.config.confidence_threshold
        if device.type == "cpu":
            return CpuBackend("torch", precision, torch_forward(run, dtype, last), *rest)
        return DeviceBackend(run, *rest, device=device, dtype=dtype, graph=self.config.cuda_graph)

    def _compiled(self, network: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
        compiled = torch.compile(network)
        try:
            with torch.inference_mode():
                compiled(torch.zeros(1, 3, *self.spec.input_size, device=device, dtype=dtype))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no C++ compiler, no triton, an operator it does not know
            self._say(f"torch.compile failed, running without: {str(error).splitlines()[0]}")
            return network
        return compiled  # type: ignore[return-value]

    def _onnxruntime(self) -> Backend:
        if importlib.util.find_spec("onnxruntime") is None:
            raise ValueError("backend 'onnxruntime' is not installed; run: pip install onnxruntime, or use 'torch'")
        cpu = torch.device("cpu")
        network = prepare_network(
            self._student, self.spec.input_size, device=cpu, dtype=torch.float32, channels_last=False
        )
        forward = OnnxForward(network, self.config.providers, self.config.threads)
        rest = self._encoder, self._size_of, self.config.confidence_threshold
        return CpuBackend("onnxruntime", "fp32", forward, *rest)

    def _best_on_cpu(self) -> Backend:
        """Onnxruntime where it is there and right; it took a quarter of torch's time for the light student."""
        if self.config.precision == "bf16" or self.config.compile:
            return self._torch(torch.device("cpu"))
        reference = self._torch(torch.device("cpu"), "fp32")
        if importlib.util.find_spec("onnxruntime") is None:
            return reference
        try:
            runtime = self._onnxruntime()
            agreement = mask_agreement(runtime, reference, self.spec.input_size)
        except Exception as error:  # an operator that it lacks, or a build that does not fit this machine
            self._say(f"onnxruntime cannot run this student, using torch: {str(error).splitlines()[0]}")
            return reference
        if agreement < MIN_AGREEMENT:
            self._say(f"onnxruntime gives other masks ({100 * agreement:.2f} % of pixels agree), using torch")
            return reference
        return runtime


def mask_agreement(backend: Backend, reference: Backend, size: Size) -> float:
    """Share of equal mask pixels on a synthetic image, smooth and coloured."""
    coarse = np.random.default_rng(0).integers(0, 256, (1, 3, 9, 12)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear", align_corners=False)
    image = np.ascontiguousarray(smooth.permute(0, 2, 3, 1).to(torch.uint8).numpy())
    masks = [np.empty((1, *size), np.uint8) for _ in range(2)]
    for one, mask in zip((backend, reference), masks):
        one.segment(image, mask, np.empty((1, *size), np.uint8))
    return float((masks[0] == masks[1]).mean())


class _Closed:
    name = device = precision = "closed"

    def segment(self, images: NDArray[np.uint8], masks: NDArray[np.uint8], confidences: NDArray[np.uint8]) -> None:
        raise ValueError("predictor must be open, got a closed one; make a new one")

    def close(self) -> None:
        """Nothing is left to do."""


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be there, got {name!r}: {error}; use 'auto' or 'cpu'") from error
    return device
