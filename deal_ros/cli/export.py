# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal export runs/student/bundle --format onnx --out model.onnx``: write a bundle as one file for other runtimes.

Its input is the camera image, uint8 (H, W, 3) RGB of any size; its outputs are the mask (class ids, 0 background, 255
below --threshold) and the confidence (0..255), both uint8 (H, W). Resizing, normalisation and decoding are inside;
class names and version are in the file's metadata.

Formats: onnx (opset 18: onnxruntime, TensorRT, OpenVINO), pt2 (torch.export, one image size, see --image-size), and
half: a bundle again, with weights in half precision and half the size, as it is best passed on.
The result is run once and compared with the bundle; stdout says how many pixels agree.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Literal

from deal_ros.cli import UsageError
from deal_ros.cli.reporting import print_json, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a model bundle")
    parser.add_argument("--format", choices=("onnx", "pt2", "half"), help="default: by the ending of --out, else onnx")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: BUNDLE.onnx beside the bundle")
    parser.add_argument("--input-size", type=size, metavar="HxW", help="inside the network; default: the bundle's")
    parser.add_argument("--image-size", type=size, metavar="HxW", help="of the camera, for pt2; default: twice that")
    parser.add_argument("--threshold", type=float, default=0.0, help="confidence below which a pixel becomes 255")
    parser.add_argument("--no-check", action="store_true", help="do not run the file afterwards")
    parser.add_argument("--json", action="store_true", help="print the result on one line")


def size(text: str) -> tuple[int, int]:
    """``480x640`` → (480, 640): height first, as everywhere in this package."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH, for example 480x640, got {text!r}")
    return int(height), int(width)


def run(args: argparse.Namespace) -> int:
    """Export and compare."""
    from deal_ros.students import read_bundle
    from deal_ros.students.export import FORMATS, ExportConfig, export, mask_agreement

    if args.format == "half":
        return _finish(_half(args), args)
    ending = args.out.suffix.lstrip(".") if args.out else ""
    chosen: Literal["onnx", "pt2"] = args.format or ("pt2" if ending == "pt2" else "onnx")
    if ending in FORMATS and ending != chosen:
        raise UsageError(f"--out must end in .{chosen} for --format {chosen}, got {args.out.name!r}")
    folder = args.bundle.resolve()
    out = args.out or folder.with_name(f"{folder.name}.{chosen}")
    try:
        config = ExportConfig(chosen, args.input_size, args.image_size, args.threshold)
    except ValueError as error:
        raise UsageError(str(error)) from error
    student, spec = read_bundle(args.bundle)
    export(student, spec, out, config)
    result = {"file": str(out), "format": chosen, "bytes": out.stat().st_size, "version": spec.version}
    result["agreement"] = None
    if not args.no_check:
        try:
            result["agreement"] = mask_agreement(student, spec, out, config)
        except ImportError:
            print("deal export: onnxruntime is not installed, so the file was not run", file=sys.stderr)
    return _finish(result, args)


def _half(args: argparse.Namespace) -> dict[str, Any]:
    """Write the bundle again with half the weights' bits."""
    from deal_ros.students import read_bundle, write_bundle
    from deal_ros.students.bundle import read_spec
    from deal_ros.students.export import half_agreement

    if args.input_size or args.image_size or args.threshold:
        raise UsageError("--input-size, --image-size and --threshold are for onnx and pt2; --format half has none")
    folder = args.bundle.resolve()
    out = args.out or folder.with_name(f"{folder.name}-half")
    student, spec = read_bundle(args.bundle)
    write_bundle(out, student, spec, half=True)
    size_of = sum(path.stat().st_size for path in out.iterdir())
    result = {"file": str(out), "format": "half", "bytes": size_of, "version": read_spec(out).version}
    return {**result, "agreement": None if args.no_check else half_agreement(student, spec, out)}


def _finish(result: dict[str, Any], args: argparse.Namespace) -> int:
    from deal_ros.students.export import MIN_AGREEMENT

    print_json(result) if args.json else print_result(result, "text")
    return 0 if result["agreement"] is None or result["agreement"] >= MIN_AGREEMENT else 1
