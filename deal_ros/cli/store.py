# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal store info samples``: look into a sample store, join stores, make others from it, repair it.

    deal store info samples
    deal store merge out/shard-* --out all
    deal store split all --parts train=0.8,val=0.2 --out split       (never cuts through a recording)
    deal store filter all --classes milk --sequences 'kitchen*' --out milk
    deal store relabel all --rename 'milk bottle=milk,rubbish=' --out clean     (an empty name drops a class)
    deal store export all --out tars                                 (tar files in WebDataset's layout)
    deal store undo samples --count 5
    deal store repair samples

New stores share the files of the old ones through hard links where the disk allows it: nothing is encoded again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deal_ros.cli.reporting import print_json
from deal_ros.datasets import store_tools
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import StoreError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of ``deal store`` and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str, out: str = "", many: bool = False) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=summary, description=summary)
        sub.add_argument("stores" if many else "store", metavar="STORE", nargs="+" if many else None)
        if out:
            sub.add_argument("--out", required=True, metavar="DIR", help=out)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        return sub

    action("info", "say what is in a store")
    action("merge", "join stores into one; samples that are there already are passed over", "store to make", many=True)
    split = action("split", "distribute recordings over new stores", "folder for the new stores")
    split.add_argument("--parts", required=True, metavar="train=0.8,val=0.2", help="shares of the samples by name")
    split.add_argument("--seed", type=int, default=0, metavar="N", help="another one, another distribution")
    choose = action("filter", "make a store of some of the samples", "store to make")
    choose.add_argument("--classes", default="", metavar="NAME[,NAME]", help="with one of these in view")
    choose.add_argument("--sequences", default="", metavar="PATTERN[,PATTERN]", help="of these recordings: 'kitchen*'")
    choose.add_argument("--labelled", action="store_true", help="with labels only")
    relabel = action("relabel", "rename, join or drop classes", "store to make")
    relabel.add_argument("--rename", required=True, metavar="OLD=NEW[,OLD=]", help="an empty new name drops a class")
    export = action("export", "write tar files in WebDataset's layout", "folder to make")
    export.add_argument("--samples-per-file", type=int, default=10_000, metavar="N", help="default: %(default)s")
    undo = action("undo", "remove the newest samples")
    undo.add_argument("--count", type=int, default=1, metavar="N", help="how many; default: %(default)s")
    repair = action("repair", "set aside files without a line and lines without files, in the folder removed")
    repair.add_argument("--decode", action="store_true", help="also drop samples whose images are damaged")


def run(args: argparse.Namespace) -> int:
    """Do it; 1 where ``repair`` had to drop samples."""
    result = _ACTIONS[args.action](args)
    if args.json:
        print_json(result)
    else:
        for name, value in result.items():
            print(f"{name.replace('_', ' ')}: {_text(value)}")
    return 1 if result.get("dropped") or result.get("broken_lines") else 0


def _info(args: argparse.Namespace) -> dict[str, Any]:
    with SampleStore.open(args.store) as store:
        return store_tools.describe(store)


def _merge(args: argparse.Namespace) -> dict[str, Any]:
    with _Bar("merge") as bar:
        added = store_tools.merge_stores(args.stores, args.out, report=bar)
    return {"store": args.out, "added": added}


def _split(args: argparse.Namespace) -> dict[str, Any]:
    try:
        parts = {name: float(share) for name, share in store_tools.parse_pairs(args.parts, "--parts").items()}
    except ValueError as error:
        raise StoreError(f"--parts must be like train=0.8,val=0.2, got {args.parts!r}") from error
    with SampleStore.open(args.store) as store, _Bar("split") as bar:
        chosen = store_tools.split_sequences(store, parts, args.seed)
        for name, indices in chosen.items():
            with _new(store, Path(args.out) / name) as target:
                store_tools.copy_samples(store, target, indices, report=bar)
    return {str(Path(args.out) / name): len(indices) for name, indices in chosen.items()}


def _filter(args: argparse.Namespace) -> dict[str, Any]:
    with SampleStore.open(args.store) as store, _Bar("filter") as bar:
        labelled = True if args.labelled else None
        indices = store_tools.select(
            store, classes=_list(args.classes), sequences=_list(args.sequences), labelled=labelled
        )
        with _new(store, args.out) as target:
            added = store_tools.copy_samples(store, target, indices, report=bar)
    return {"store": args.out, "samples": added, "of": len(store)}


def _relabel(args: argparse.Namespace) -> dict[str, Any]:
    rename = store_tools.parse_pairs(args.rename, "--rename")
    with SampleStore.open(args.store) as store, _Bar("relabel") as bar:
        names = list(dict.fromkeys(rename.get(name, name) for name in store.classes))
        with _new(store, args.out, [name for name in names if name]) as target:
            store_tools.copy_samples(store, target, rename=rename, report=bar)
            return {"store": args.out, "samples": len(target), "classes": target.counts()}


def _export(args: argparse.Namespace) -> dict[str, Any]:
    with SampleStore.open(args.store) as store, _Bar("export") as bar:
        files = store_tools.export_tar(store, args.out, samples_per_file=args.samples_per_file, report=bar)
        return {"samples": len(store), "files": [str(path) for path in files]}


def _undo(args: argparse.Namespace) -> dict[str, Any]:
    with SampleStore.open(args.store, writable=True) as store:
        return {"removed": store.undo(args.count), "samples": len(store)}


def _repair(args: argparse.Namespace) -> dict[str, Any]:
    with _Bar("repair") as bar:
        report = store_tools.repair(args.store, decode=args.decode, report=bar)
    return {"orphans": list(report.orphans), "dropped": list(report.dropped), "broken_lines": list(report.broken_lines)}


_ACTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "info": _info,
    "merge": _merge,
    "split": _split,
    "filter": _filter,
    "relabel": _relabel,
    "export": _export,
    "undo": _undo,
    "repair": _repair,
}


def _new(source: SampleStore, path: str | Path, classes: list[str] | None = None) -> SampleStore:
    return SampleStore.create(
        path,
        source.classes if classes is None else classes,
        image_format=source.image_format,
        depth_unit_m=source.depth_unit_m,
    )


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    if isinstance(value, list):
        return "".join(f"\n  {item}" for item in value) or "none"
    return str(value)


class _Bar:
    """A bar on stderr, made at the first report."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None or self._bar.total != total:
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(desc=self._name, total=total, file=sys.stderr)
        self._bar.update(done - self._bar.n)
