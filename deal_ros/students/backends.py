# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How a predictor gets from camera images to masks: on the CPU through torch or onnxruntime, or on a device."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deal_ros.students.base import Student
from deal_ros.students.folding import fold_batch_norm
from deal_ros.students.onnx_graph import to_onnx
from deal_ros.students.pixels import CpuDecoder, Encoder, Size, decode

_log = logging.getLogger(__name__)
MAX_SHAPES = 4
"""Batch and image shapes whose buffers are kept; a camera has one or two."""

Forward = Callable[[Tensor], NDArray[np.float32]]
"""Normalised float32 (B, 3, h, w) → logits float32 (B, K+1, h', w')."""
SizeOf = Callable[[Size], Size]
"""Camera image size → network input size."""


class Backend(Protocol):
    """Masks for a batch of images of one size."""

    name: str
    device: str
    precision: str

    def segment(self, images: NDArray[np.uint8], masks: NDArray[np.uint8], confidences: NDArray[np.uint8]) -> None:
        """uint8 (B, H, W, 3) → uint8 (B, H, W) twice, into the given arrays."""
        ...

    def close(self) -> None:
        """Let go of buffers, graphs and sessions."""
        ...


class CpuBackend:
    """Encode with torch, run ``forward``, decode with OpenCV; buffers are made once per shape.

    Args:
        forward: normalised float32 (B, 3, h, w), contiguous → logits float32 (B, K+1, h', w').
        encoder: makes the :class:`Encoder` of a network size.
        size_of: camera size → network size.
        threshold: confidence below which a pixel becomes 255.
    """

    device = "cpu"

    def __init__(
        self,
        name: str,
        precision: str,
        forward: Forward,
        encoder: Callable[[Size], Encoder],
        size_of: SizeOf,
        threshold: float,
    ) -> None:
        self.name, self.precision = name, precision
        self._forward, self._encoder, self._size_of, self._threshold = forward, encoder, size_of, threshold
        self._shapes: OrderedDict[tuple[int, ...], tuple[Encoder, Tensor, CpuDecoder]] = OrderedDict()

    @torch.inference_mode()
    def segment(self, images: NDArray[np.uint8], masks: NDArray[np.uint8], confidences: NDArray[np.uint8]) -> None:
        """See :class:`Backend`."""
        encoder, inputs, decoder = _cached(self._shapes, images.shape[:3], self._make)
        # A received message's pixels are read-only, which torch does not know.
        writable = np.require(images, requirements=["C", "W"])
        logits = self._forward(encoder(torch.from_numpy(writable), out=inputs))
        for one, mask, confidence in zip(logits, masks, confidences):
            decoder(one, mask, confidence)

    def close(self) -> None:
        """See :class:`Backend`."""
        self._shapes.clear()

    def _make(self, shape: tuple[int, ...]) -> tuple[Encoder, Tensor, CpuDecoder]:
        size = (shape[1], shape[2])
        encoder = self._encoder(self._size_of(size))
        return encoder, torch.empty(shape[0], 3, *encoder.size), CpuDecoder(size, self._threshold)


class DeviceBackend:
    """Everything on one device; only bytes go there and come back.

    On CUDA, images travel from page-locked memory, asynchronously; the whole way from bytes to bytes is captured as one
    CUDA graph per shape. Where capture fails, the same operators run one by one and the log says why.

    Args:
        network: on ``device``, in ``dtype``, its batch norms folded.
        encoder, size_of, threshold: as for :class:`CpuBackend`.
        device: any torch device; graphs and page-locked memory only on CUDA.
        dtype: of the network.
        graph: capture CUDA graphs.
    """

    name = "torch"

    def __init__(
        self,
        network: nn.Module,
        encoder: Callable[[Size], Encoder],
        size_of: SizeOf,
        threshold: float,
        *,
        device: torch.device,
        dtype: torch.dtype,
        graph: bool,
    ) -> None:
        self.device, self.precision = str(device), _PRECISIONS[dtype]
        self._network, self._encoder, self._size_of, self._threshold = network, encoder, size_of, threshold
        self._target, self._dtype, self._cuda = device, dtype, device.type == "cuda"
        self._graph = graph and self._cuda
        self._shapes: OrderedDict[tuple[int, ...], _Slot] = OrderedDict()

    @torch.inference_mode()
    def segment(self, images: NDArray[np.uint8], masks: NDArray[np.uint8], confidences: NDArray[np.uint8]) -> None:
        """See :class:`Backend`."""
        slot = _cached(self._shapes, images.shape[:3], self._make)
        np.copyto(slot.host_images.numpy(), images)
        slot.images.copy_(slot.host_images, non_blocking=self._cuda)
        if slot.graph is None:
            slot.run()
        else:
            slot.graph.replay()
        slot.host_result.copy_(slot.result, non_blocking=self._cuda)
        if self._cuda:
            torch.cuda.current_stream(self._target).synchronize()
        np.copyto(masks, slot.host_result[0].numpy())
        np.copyto(confidences, slot.host_result[1].numpy())

    def close(self) -> None:
        """See :class:`Backend`."""
        self._shapes.clear()
        self._network = nn.Identity()
        if self._cuda:
            torch.cuda.empty_cache()

    def _make(self, shape: tuple[int, ...]) -> _Slot:
        encoder = self._encoder(self._size_of((shape[1], shape[2]))).to(self._target)
        slot = _Slot(shape, self._target, pinned=self._cuda)
        images, result = slot.images, slot.result  # a function that held its slot would keep the memory of both alive

        def run() -> None:
            inputs = encoder(images).to(self._dtype, memory_format=torch.channels_last)
            mask, confidence = decode(self._network(inputs), (shape[1], shape[2]), self._threshold)
            result[0].copy_(mask)
            result[1].copy_(confidence)

        slot.run = run
        if self._graph:
            slot.graph = _capture(run, self._target)
        return slot


class _Slot:
    """Buffers of one shape, and the graph that works on them."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, pinned: bool) -> None:
        self.host_images = torch.empty(*shape, 3, dtype=torch.uint8, pin_memory=pinned)
        self.images = torch.zeros(*shape, 3, dtype=torch.uint8, device=device)
        self.host_result = torch.empty(2, *shape, dtype=torch.uint8, pin_memory=pinned)
        self.result = torch.empty(2, *shape, dtype=torch.uint8, device=device)
        self.run: Callable[[], None]
        self.graph: Any = None


def tuned_convolutions() -> AbstractContextManager[None]:
    """CuDNN measures its algorithms and takes the fastest; whatever else is set stays as it is."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled, benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32
    )


def _capture(run: Callable[[], None], device: torch.device) -> Any:
    """Capture ``run`` as a CUDA graph after three warm-up rounds on a side stream; ``None`` where that fails."""
    try:
        with torch.cuda.device(device), tuned_convolutions():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    run()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Thread-local: another predictor may run while this one is being loaded.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                run()
        return graph
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _log.warning("CUDA graph could not be captured, running without: %s", error)
        return None


def torch_forward(network: nn.Module, dtype: torch.dtype, channels_last: bool) -> Forward:
    """Forward pass on the CPU in torch."""
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def forward(inputs: Tensor) -> NDArray[np.float32]:
        return network(inputs.to(dtype, memory_format=layout)).float().contiguous().numpy()

    return forward


class OnnxForward:
    """Forward pass in onnxruntime; one session per network size, so that its memory plan is fixed.

    Args:
        network: a student in evaluation mode, on the CPU.
        providers: execution providers in order of preference.
        threads: worker threads; 0 takes torch's number.

    Raises:
        ValueError: if onnxruntime lacks a provider.
    """

    def __init__(self, network: Student, providers: Sequence[str], threads: int) -> None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        missing = [provider for provider in providers if provider not in available]
        if missing:
            raise ValueError(
                f"onnxruntime {onnxruntime.__version__} has {', '.join(available)}, got {', '.join(missing)};"
                " install the onnxruntime build that has it, or leave it out of providers"
            )
        self._runtime, self._network, self._providers = onnxruntime, network, list(providers)
        self._threads = threads or torch.get_num_threads()
        self._sessions: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, inputs: Tensor) -> NDArray[np.float32]:
        """Normalised float32 (B, 3, h, w) → logits float32 (B, K+1, h', w'), overwritten by the next call."""
        session, binding, outputs = _cached(self._sessions, tuple(inputs.shape[2:]), self._make)
        if len(outputs) < len(inputs):
            outputs = np.empty((len(inputs), *outputs.shape[1:]), np.float32)
            self._sessions[tuple(inputs.shape[2:])] = session, binding, outputs
        # One by one: batches are no faster on a CPU, and some graphs are fixed to the batch they were traced with.
        for one, output in zip(inputs.contiguous(), outputs):
            binding.bind_input("image", "cpu", 0, np.float32, (1, *one.shape), one.data_ptr())
            binding.bind_output("logits", "cpu", 0, np.float32, (1, *output.shape), output.ctypes.data)
            session.run_with_iobinding(binding)
        return outputs[: len(inputs)]

    def _make(self, size: tuple[int, ...]) -> Any:
        network = self._network.fixed_to((size[0], size[1]))
        content = to_onnx(network, torch.zeros(1, 3, *size), ["image"], ["logits"], {})
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Threads wait busily within a run, which is fast, and not after it, which would starve the robot's other work.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = self._runtime.InferenceSession(content, options, providers=self._providers)
        outputs = session.run(None, {"image": np.zeros((1, 3, *size), np.float32)})[0]
        return session, session.io_binding(), outputs


def prepare_network(
    student: Student, size: Size, *, device: torch.device, dtype: torch.dtype, channels_last: bool
) -> Student:
    """Make a frozen copy for inference: batch norms folded, moved, converted."""
    network = fold_batch_norm(student, torch.zeros(1, 3, *size)).requires_grad_(False)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return network.to(device=device, dtype=dtype).to(memory_format=layout)  # type: ignore[call-overload]


_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def _cached(store: OrderedDict, key: tuple[int, ...], make: Callable[[tuple[int, ...]], Any]) -> Any:
    """Least recently used entries go first, so that changing image sizes cannot fill the memory."""
    if key not in store:
        while len(store) >= MAX_SHAPES:
            store.popitem(last=False)
        store[key] = make(key)
    store.move_to_end(key)
    return store[key]
