# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal render --out data/rendered``: make RGB-D scenes of scanned household objects, labels and true masks included.

They are sample stores: onboarding/{train,val,test}, one object at a time, and tabletop/{train,val,test}, several among
clutter.
The same settings give the same scenes on every machine. A second start goes on where the first one stopped.

    deal render --out small --classes milk,ketchup,plate,cookies --onboarding-scenes 1,1,1 --tabletop-scenes 6,2,2
    deal render --out noisy --noise 1            depth as of a RealSense; 0.5 mild, 2 strong, 4 extreme
    deal render --out here --compare there       is it the same benchmark as the one in folder `there`?
"""

from __future__ import annotations

import argparse
import time

from deal_ros.cli import UsageError
from deal_ros.cli.reporting import add_progress_argument, print_result, progress_reporter
from deal_ros.config import from_mapping, load_yaml
from deal_ros.engine.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``deal render``."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or of an interrupted run")
    parser.add_argument("--config", metavar="FILE.yaml", help="settings by name (see RenderConfig); options below win")
    parser.add_argument("--scenarios", metavar="LIST", help="onboarding,tabletop (default: both)")
    parser.add_argument("--classes", metavar="LIST", help="object names in id order (default: all installed)")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (default: 0)")
    parser.add_argument("--size", metavar="HxW", help="picture size in pixels (default: 240x320)")
    parser.add_argument(
        "--onboarding-scenes", metavar="A,B,C", help="scenes per object and pose for train,val,test (default: 2,1,1)"
    )
    parser.add_argument("--onboarding-frames", type=int, metavar="N", help="frames per scene (default: 12)")
    parser.add_argument(
        "--tabletop-scenes", metavar="A,B,C", help="scenes in all for train,val,test (default: 80,25,25)"
    )
    parser.add_argument("--tabletop-frames", type=int, metavar="N", help="frames per scene (default: 8)")
    parser.add_argument("--noise", type=float, metavar="S", help="strength of RealSense-like depth noise (default: 0)")
    parser.add_argument("--no-shadows", action="store_true", help="light without shadows: faster")
    parser.add_argument("--image-format", choices=("jpg", "png"), help="of colour (default: jpg)")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--compare", metavar="DIR", help="afterwards compare with another rendered data set")
    add_progress_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Render; returns 1 if ``--compare`` finds differences."""
    from deal_ros.datasets.rendered import RenderConfig, expected_frames, render_dataset
    from deal_ros.datasets.rendered_manifest import compare_manifests

    if args.jobs < 0:
        raise UsageError(f"--jobs must be 0 or more, got {args.jobs}")
    config = from_mapping(RenderConfig, _settings(args), "deal render")
    report_progress = progress_reporter(args.progress)
    start, metrics = time.monotonic(), {"frames": float(expected_frames(config, config.scenarios))}

    def on_scene(done: int, total: int) -> None:
        report_progress(Progress("render", done, total, metrics))

    report = render_dataset(args.out, config, jobs=args.jobs, on_scene=on_scene)
    seconds = time.monotonic() - start
    result = {
        "out": str(args.out),
        "stores": {name: str(path) for name, path in report.stores.items()},
        "frames_rendered": report.rendered,
        "frames_found": report.found,
        "seconds": round(seconds, 2),
        "frames_per_second": round(report.rendered / seconds, 2) if report.rendered else None,
    }
    if args.compare:
        result["differences"] = compare_manifests(args.out, args.compare)
    print_result(result, args.progress)
    return 1 if result.get("differences") else 0


def _settings(args: argparse.Namespace) -> dict[str, object]:
    settings: dict[str, object] = load_yaml(args.config) if args.config else {}
    if args.size is not None:
        height, separator, width = args.size.partition("x")
        if not (separator and height.isdigit() and width.isdigit()):
            raise UsageError(f"--size must be HEIGHTxWIDTH, for example 240x320, got {args.size!r}")
        settings |= {"height": int(height), "width": int(width)}
    for name in ("onboarding_scenes", "tabletop_scenes"):
        text = getattr(args, name)
        if text is not None:
            settings[name] = _counts("--" + name.replace("_", "-"), text)
    for name in ("scenarios", "classes"):
        text = getattr(args, name)
        if text is not None:
            settings[name] = [part.strip() for part in text.split(",")]
    for option, name in (
        ("seed", "seed"),
        ("onboarding_frames", "onboarding_frames"),
        ("tabletop_frames", "tabletop_frames"),
        ("noise", "noise_strength"),
        ("image_format", "image_format"),
    ):
        if getattr(args, option) is not None:
            settings[name] = getattr(args, option)
    if args.no_shadows:
        settings["shadows"] = False
    return settings


def _counts(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"{option} must be three counts for train,val,test, for example 2,1,1, got {text!r}")
    return [int(part) for part in parts]
