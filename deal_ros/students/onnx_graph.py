# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Torch module → ONNX bytes. The tracing exporter of torch is used: it needs no further package."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

OPSET = 18
"""First operator set with antialiased resizing."""


def to_onnx(
    module: nn.Module,
    example: Tensor,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Trace ``module`` on ``example``.

    Args:
        module: in evaluation mode, on the CPU.
        example: its one input.
        inputs: names of the inputs in the graph.
        outputs: names of the outputs in the graph.
        dynamic: by name, axis → symbol, for the axes whose length may change.
        metadata: texts stored in the file, for example the class names.

    Returns:
        An ONNX model (opset 18).
    """
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The tracer warns of every Python number; shapes are meant to be fixed.
        torch.onnx.export(
            module,
            (example,),
            buffer,  # type: ignore[arg-type]  # The tracing exporter takes it.
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in dynamic.items()},
        )
    return buffer.getvalue() + b"".join(_metadata_entry(k, v) for k, v in (metadata or {}).items())


def _metadata_entry(key: str, value: str) -> bytes:
    """One ``ModelProto.metadata_props`` (field 14). Protocol buffers merge by concatenation, so it is just appended."""
    entry = _field(1, key.encode()) + _field(2, value.encode())
    return _field(14, entry)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
