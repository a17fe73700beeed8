# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal info runs/student/bundle``: describe a model bundle, a sample store or this installation.

Of a bundle: classes, size, operations, latency measured on this machine now, how it was trained, how good it is. Of a
store: classes and samples. Without PATH: this installation, its devices and what is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from deal_ros.cli import UsageError
from deal_ros.cli.export import size
from deal_ros.cli.options import add_device_argument
from deal_ros.cli.reporting import print_json
from deal_ros.installed import bundle_folder

PARTS = ("torch", "timm", "numpy", "onnxruntime", "safetensors", "rosbags", "mujoco", "rclpy", "pydensecrf2")
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "path",
        nargs="?",
        type=bundle_folder,
        metavar="PATH",
        help="bundle (tabletop: ours) or store; default: this installation",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--image-size", type=size, metavar="HxW", help="of the camera; default: twice the network's")
    parser.add_argument("--backend", choices=("auto", "torch", "onnxruntime"), default="auto", help="for the latency")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads for the latency; default: torch's number")
    parser.add_argument("--no-latency", action="store_true", help="do not run the student")
    add_device_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Describe."""
    if args.path is None:
        content = installation()
    elif (args.path / "store.json").is_file():
        content = store(args.path)
    elif (args.path / "bundle.json").exists() or not args.path.exists():
        content = bundle(args)
    else:
        raise UsageError(f"{args.path}: must be a model bundle (bundle.json) or a sample store (store.json)")
    if args.json:
        print_json(content)
    else:
        print("\n".join(_lines(content)), flush=True)
    return 0


def bundle(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a bundle says of itself, and what is measured here."""
    from deal_ros.students import Predictor, PredictorConfig, read_bundle
    from deal_ros.students.bundle import WEIGHTS_FILE
    from deal_ros.students.profile import count_flops, count_parameters, measure_latency

    student, spec = read_bundle(args.path)
    content: dict[str, Any] = {
        "bundle": str(args.path),
        "version": spec.version,
        "architecture": spec.architecture,
        "arguments": spec.arguments,
        "classes": list(spec.classes),
        "input_size": list(spec.input_size),
        "parameters": count_parameters(student),
        "bytes": (args.path / WEIGHTS_FILE).stat().st_size,
        "gflops": count_flops(student, spec.input_size) / 1e9,
        "metrics": spec.metrics,
        "training": spec.training,
    }
    if not args.no_latency:
        image = args.image_size or (2 * spec.input_size[0], 2 * spec.input_size[1])
        predictor = Predictor(
            args.path, PredictorConfig(backend=args.backend, device=args.device, threads=args.threads)
        )
        latency = measure_latency(predictor, image)
        content["latency"] = {**vars(latency), "image_size": list(image), **_machine(), **predictor.describe()}
        predictor.close()
    return content


def store(path: Path) -> dict[str, Any]:
    """Classes and samples of a store."""
    from deal_ros.datasets.store import SampleStore

    opened = SampleStore.open(path)
    try:
        return {
            "store": str(path),
            "classes": list(opened.classes),
            "samples": len(opened),
            "per_class": opened.counts(),
        }
    finally:
        opened.close()


def installation() -> dict[str, Any]:
    """Versions, devices and packaged weights."""
    import torch

    from deal_ros import __version__
    from deal_ros.backbones import PACKAGED_WEIGHTS

    versions = {name: _version(name) for name in PARTS}
    versions["opencv"] = next((found for found in map(_version, OPENCV) if found), None)
    content = {"deal_ros": __version__, "python": platform.python_version(), **_machine()}
    content["versions"] = versions
    content["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        content["onnxruntime_providers"] = onnxruntime.get_available_providers()
    content["imagenet_weights"] = {name: weights.path() is not None for name, weights in PACKAGED_WEIGHTS.items()}
    return content


def _machine() -> dict[str, Any]:
    import torch

    return {"machine": f"{platform.system()} {platform.machine()}", "torch_threads": torch.get_num_threads()}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _lines(content: dict[str, Any], indent: str = "") -> list[str]:
    """Names in one column, values in the next; nested ones below, further in."""
    width = max((len(name) for name in content), default=0) + 2
    lines = []
    for name, value in content.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:<{width}}{_text(name, value)}")
    return lines


def _text(name: str, value: Any) -> str:
    if value is None or value == {} or value == []:
        return "-"
    if name.endswith("_size") and isinstance(value, list):
        return "x".join(map(str, value))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name == "bytes":
        return f"{value / 1e6:.1f} MB"
    if name == "parameters":
        return f"{value / 1e6:.2f} million"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
