# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Model bundle: a folder with a student's weights and all that is needed to run it. No pickle, nothing is executed.

``model.safetensors`` holds the weights, ``bundle.json`` the architecture, its arguments, the class names and colours,
the input size, the normalisation, how the student was trained and how good it is. Either is covered by a sha256. A
bundle is written beside its place, synced, and renamed: whatever happens, a folder of that name is a whole bundle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deal_ros.config import from_mapping, to_mapping
from deal_ros.labels import check_classes, palette
from deal_ros.students.base import Student
from deal_ros.students.create import create_student
from deal_ros.students.placement import place_folder, sweep

FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
SPEC_FILE = "bundle.json"
MAX_SPEC_BYTES = 4_000_000
MAX_WEIGHTS_BYTES = 4_000_000_000


class BundleError(ValueError):
    """A bundle that cannot be read or written; the message names what was expected, what was found and the remedy."""


@dataclass(frozen=True)
class BundleSpec:
    """What is known of a student beside its weights. Fields marked * are filled in by :func:`write_bundle`.

    Args:
        classes: K names in id order: ``classes[i]`` has id ``i + 1`` in masks.
        input_size: height and width that the student was trained on, in pixels, 32..4096 each.
        training: how and on what it was trained: plain values by name.
        metrics: figures by name, measured before it was written; ``None`` where there is none.
        architecture: * key of ``STUDENTS``.
        arguments: * the architecture's config.
        mean, std: * RGB normalisation for images in [0, 1].
        colors: * RGB 0..255 per class.
        weights_sha256: * of the weights file, in hexadecimal.
        format_version: of this layout.
    """

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    training: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    architecture: str = ""
    arguments: dict = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    colors: tuple[tuple[int, int, int], ...] = ()
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse what no segmenter could use."""
        check_classes(self.classes)
        if len(self.input_size) != 2 or not all(32 <= side <= 4096 for side in self.input_size):
            raise ValueError(f"input_size must be (height, width) of 32..4096 pixels each, got {self.input_size}")
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ValueError(f"mean and std must be finite and std above 0, got {self.mean} and {self.std}")
        if self.colors and len(self.colors) != len(self.classes):
            raise ValueError(f"colors must have one entry per class, {len(self.classes)}, got {len(self.colors)}")
        if not all(0 <= value <= 255 for color in self.colors for value in color):
            raise ValueError("colors must be in 0..255")

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that differ whenever the weights or anything else in the bundle does."""
        return _digest(_canonical(to_mapping(self)))[:12]


def write_bundle(
    folder: str | Path, student: Student, spec: BundleSpec, *, overwrite: bool = False, half: bool = False
) -> Path:
    """Write a bundle so that it is there whole or not at all.

    Args:
        folder: where it shall be; its parents are made.
        student: on any device.
        spec: classes, input size, training and metrics; the rest is taken from the student.
        overwrite: replace a bundle that is there. The old one goes only when the new one is complete.
        half: store weights as float16, in half the space; otherwise as float32. They are float32 again when read.

    Returns:
        The folder.

    Raises:
        BundleError: if the folder exists and ``overwrite`` is false, the classes do not fit the student, a weight is
            not finite, or the disk refuses.
    """
    folder = Path(folder)
    if len(spec.classes) != student.num_classes:
        raise BundleError(f"{folder}: spec must name {student.num_classes} classes, got {len(spec.classes)}")
    sweep(folder)
    if folder.exists() and not overwrite:
        raise BundleError(f"{folder}: already exists; remove it, choose another name, or pass overwrite=True")
    weights = _serialize(student, folder, torch.float16 if half else torch.float32)
    colors = spec.colors or tuple(tuple(c) for c in palette(len(spec.classes))[1 : len(spec.classes) + 1].tolist())
    spec = dataclasses.replace(
        spec,
        architecture=student.name,
        arguments=to_mapping(student.config),
        mean=student.mean,
        std=student.std,
        colors=colors,
        weights_sha256=_digest(weights),
        training=_plain(spec.training),
        metrics=_plain(spec.metrics),
    )
    content = to_mapping(spec)
    text = json.dumps(
        {**content, "sha256": _digest(_canonical(content))}, indent=2, ensure_ascii=False, allow_nan=False
    )
    try:
        place_folder(folder, {WEIGHTS_FILE: weights, SPEC_FILE: text.encode()})
    except OSError as error:
        raise BundleError(f"{folder}: could not be written: {error}; free the disk or choose another folder") from error
    return folder


def read_spec(folder: str | Path) -> BundleSpec:
    """Read and check ``bundle.json`` alone.

    Raises:
        BundleError: as :func:`read_bundle`.
    """
    path = Path(folder) / SPEC_FILE
    text = _read_file(path, MAX_SPEC_BYTES)
    try:
        content = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: must be JSON in UTF-8: {error}; export the bundle again") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: must hold an object, got {type(content).__name__}; export the bundle again")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version must be {FORMAT_VERSION}, got {version!r:.40};"
            " use the deal_ros that wrote it, or train the student again"
        )
    said = content.pop("sha256", None)
    try:
        found = _digest(_canonical(content))
    except RecursionError as error:
        raise BundleError(f"{path}: is nested too deeply; export the bundle again") from error
    if said != found:
        raise BundleError(f"{path}: sha256 must be {said!r:.80}, got {found!r}: changed after writing; copy it again")
    try:
        return from_mapping(BundleSpec, content, SPEC_FILE)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from error


def read_bundle(folder: str | Path) -> tuple[Student, BundleSpec]:
    """Read and check a bundle; trusts nothing in it.

    Returns:
        The student, in evaluation mode on the CPU, and its spec.

    Raises:
        BundleError: if a file is missing, a link, too large, changed, of another format or a pickle; if a class name is
            not usable; or if the weights do not fit the architecture. Nothing large is allocated before all that holds.
    """
    folder = Path(folder)
    spec = read_spec(folder)
    path = folder / WEIGHTS_FILE
    weights = _read_file(path, MAX_WEIGHTS_BYTES)
    digest = _digest(weights)
    if digest != spec.weights_sha256:
        raise BundleError(f"{path}: sha256 must be {spec.weights_sha256}, got {digest}: damaged; copy it again")
    tensors = _deserialize(weights, path)
    _check_fit(_build(spec, folder, "meta"), tensors, path)
    student = _build(spec, folder, "cpu")
    student.load_state_dict(tensors)  # float16 becomes float32 here
    return student.eval(), spec


def _serialize(student: Student, folder: Path, dtype: torch.dtype) -> bytes:
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for name, value in student.state_dict().items():
        value = value.detach().cpu()
        tensors[name] = (value.to(dtype) if value.is_floating_point() else value).contiguous().clone()
        if not torch.isfinite(tensors[name]).all():
            raise BundleError(
                f"{folder}: weight {name} must be finite in {dtype}; the training diverged, lower its learning rate"
            )
    return save(tensors)


def _deserialize(weights: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if weights[8:9] != b"{":  # Eight bytes of length, then a JSON header.
        kind = "a pickle, which is never loaded" if weights[:1] == b"\x80" or weights[:2] == b"PK" else "other data"
        raise BundleError(f"{path}: must be safetensors, got {kind}; export the bundle again")
    try:
        tensors = load(weights)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BundleError(f"{path}: must be safetensors: {error}; export the bundle again") from error
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BundleError(f"{path}: weight {name[:80]} must be finite; train the student again")
    return tensors


def _build(spec: BundleSpec, folder: Path, device: str) -> Student:
    try:
        with torch.device(device):
            return create_student(spec.architecture, len(spec.classes), weights="none", **_arguments(spec.arguments))
    except Exception as error:  # timm raises many kinds for sizes that cannot be
        raise BundleError(f"{folder / SPEC_FILE}: the student cannot be built: {error}") from error


def _arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    reserved = {"name", "num_classes", "weights"} & set(arguments)
    if reserved:
        raise ValueError(f"arguments must be those of the architecture, got {', '.join(sorted(reserved))}")
    return dict(arguments)


def _check_fit(skeleton: Student, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = skeleton.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in tensors]
    faults += [f"{name[:80]} is not part of it" for name in tensors if name not in wanted]
    for name in wanted.keys() & tensors.keys():
        expected, found = wanted[name], tensors[name]
        dtypes = {expected.dtype, torch.float16} if expected.is_floating_point() else {expected.dtype}
        if expected.shape != found.shape or found.dtype not in dtypes:
            faults.append(
                f"{name} must be {expected.dtype} {tuple(expected.shape)}, got {found.dtype} {tuple(found.shape)}"
            )
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise BundleError(f"{path}: weights do not fit the architecture: {'; '.join(sorted(faults)[:3])}{more}")


def _read_file(path: Path, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes, following no link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BundleError(f"{path}: not found; a bundle is a folder with {SPEC_FILE} and {WEIGHTS_FILE}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: must be a plain, readable file and no link: {error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: must be a plain file, got mode {stat.filemode(status.st_mode)}")
        if status.st_size > limit:
            raise BundleError(f"{path}: must have at most {limit} bytes, got {status.st_size}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)  # not the limit: Python reserves what is asked for
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    """JSON-ready copy: paths as text, NumPy and torch scalars as numbers, NaN and Inf as ``None``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"numbers must be finite, got {name}")


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
