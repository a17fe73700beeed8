# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``fuzz.py`` feeds: for each parser a valid input, ways to damage it, and the errors that it may answer with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

WEIRD: tuple[Any, ...] = (
    *(None, True, "", 0, -1, 1, 255, 256, 2**31, 2**63, -(2**63), 10**400, 1e308, float("nan"), float("inf"), 0.5),
    *("../../outside", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "background", [], {}, [[]], {"": {}}, [1, 2, 3]),
)
TOKENS = (
    *(
        b"\0",
        b"\xff" * 4,
        b"{",
        b"}",
        b"[" * 2000,
        b'"',
        b"\n",
        b"\\u0000",
        b"NaN",
        b"Infinity",
        b"-1",
        b"1e999",
        b"../",
    ),
    *(b"!!python/object/apply:os.system ['touch outside']", b"!!int ''", b"!!bool x", b"!!timestamp x", b"&a ", b"*a"),
    *(b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<object>", b"&b;", b"\x80\x04", b"PK\x03\x04", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
)


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes, tokens, pieces moved, ends cut."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # Headers are at the front: half of the changes hit the first half kilobyte.
        at = rng.randrange(min(len(out), 512) if rng.random() < 0.5 and out else len(out) + 1)
        kind = rng.randrange(8)
        if kind <= 2 and at < len(out):
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 3:
            out[at:at] = rng.choice(TOKENS)
        elif kind == 4:
            del out[at : at + rng.randint(1, 64)]
        elif kind == 5:
            out[at:at] = out[at : at + rng.randint(1, 256)]
        elif kind == 6:
            token = rng.choice(TOKENS)
            out[at : at + len(token)] = token
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def damage_tree(value: Any, rng: random.Random) -> Any:
    """Replace, drop or repeat one value somewhere in a JSON-like tree."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(WEIRD)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    copy = dict(value) if isinstance(value, dict) else list(value)
    what = rng.random()
    if what < 0.1:
        del copy[key]
    elif what < 0.2 and isinstance(copy, dict):
        copy[rng.choice(("", "../x", "-1", "x" * 300, "NaN", str(key) + "x"))] = copy[key]
    elif what < 0.2:
        copy.append(copy[key])
    else:
        copy[key] = damage_tree(copy[key], rng)
    return copy


class Target:
    """A parser under test. ``share``: of all inputs. ``errors``: what it may raise."""

    share = 1.0
    errors: tuple[type[BaseException], ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def make(self, rng: random.Random, *, damaged: bool) -> Any:
        raise NotImplementedError

    def run(self, item: Any) -> None:
        raise NotImplementedError


class Messages(Target):
    """Image messages of every transport → pixels, with the sizes and numbers that are promised."""

    share = 45.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from image_messages import compressed_depth_message, compressed_message, raw_message

        from deal_ros.images import ImageError

        self.errors = (ImageError,)
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8)
        raw = rng.integers(0, 65536, (7, 9)).astype(np.uint16)
        metres = rng.uniform(-1, 9, (7, 9)).astype(np.float32)
        metres[0, :4] = [np.nan, np.inf, -np.inf, 0]
        self.messages = [
            raw_message(rgb, "rgb8", padding=2),
            *(raw_message(rgb[..., 0], kind) for kind in ("mono8", "bayer_rggb8")),
            raw_message(rgb[..., :2], "yuv422"),
            raw_message(rgb.astype(np.uint16), "rgb16", big_endian=True),
            raw_message(raw, "16UC1", big_endian=True),
            raw_message(metres, "32FC1", padding=4),
            *(compressed_message(rgb, kind) for kind in ("png", "jpg")),
            *(compressed_depth_message(raw, transport=kind) for kind in ("png", "rvl")),
            compressed_depth_message(raw, "32FC1", "rvl", (10100.0, -1009.0)),
        ]
        self.encodings = [vars(m)["encoding"] for m in self.messages if hasattr(m, "encoding")]

    def make(self, rng: random.Random, *, damaged: bool) -> Any:
        message = SimpleNamespace(**vars(rng.choice(self.messages)))
        if damaged and rng.random() < 0.7:
            message.data = damage(message.data, rng)
        if damaged and rng.random() < 0.5:
            name = rng.choice([key for key in vars(message) if key != "data"])
            if name in ("encoding", "format"):
                value = rng.choice(
                    [*self.encodings, "", "\0", "nv12", "bayer_x16", "yuv", "32FC1; compressedDepth rvl"]
                )
            else:
                value = rng.choice((0, 1, -1, 3, 1 << 15, 10_000, 2**31, 2**32 - 1, 2**63, rng.randrange(100)))
            setattr(message, name, value)
        return message

    def run(self, item: Any) -> None:
        from deal_ros.images import decode_color, decode_depth, encoded_size

        errors = []
        for decode in (decode_color, decode_depth, lambda m: encoded_size(m.data)):
            try:
                image = decode(item)
            except self.errors as error:
                errors.append(error)
            else:
                if decode is decode_color:
                    assert image.dtype == np.uint8
                    assert image.ndim == 3
                elif decode is decode_depth:
                    assert image.dtype == np.float32
                    assert image.ndim == 2
                    assert (np.isfinite(image) & (image >= 0)).all()
        if len(errors) == 3:
            raise errors[0]


class Labels(Target):
    """Texts of the ``labels`` topic."""

    share = 25.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from deal_ros.labels import LabelError

        self.errors = (LabelError,)

    def make(self, rng: random.Random, *, damaged: bool) -> Any:
        text = rng.choice(("milk, ketchup", "milk", "", "nothing", "orange juice,butter", "a.b-c_d"))
        if not damaged:
            return text
        if rng.random() < 0.02:
            return text * rng.choice((1000, 200_000))
        hostile = "milk,./\\ \0\n\t\x1b\u202e\u0130\U0001f600é-_" + chr(rng.randrange(0xD800))
        alphabet = "milk, -" if rng.random() < 0.4 else hostile
        at = rng.randrange(len(text) + 1)
        return text[:at] + "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 80))) + text[at:]

    def run(self, item: Any) -> None:
        from deal_ros.labels import parse_labels

        for name in parse_labels(item) or ():
            assert 0 < len(name) <= 64
            assert (self.folder / f"{name}.png").parent == self.folder
            assert name.isprintable()
            assert name.isascii()


class Stamps(Target):
    """Streams with zero stamps, stamps from the future, clocks set back: every message is accounted for."""

    share = 5.0

    def make(self, rng: random.Random, *, damaged: bool) -> Any:
        from deal_ros.pairing import PairingConfig

        config = PairingConfig(rng.choice((0, 20, 5000)), rng.choice((2, 30)), min_period_ms=rng.choice((0, 33)))
        now, items = 10**18, []
        for _ in range(60):
            now += rng.choice((0, 1, 16_000_000, 33_000_000))
            odd = rng.random() < 0.3 and damaged
            stamp = rng.choice((0, -5, 2**63, now + 10**18, now - 10**10, 1, now)) if odd else now
            items.append((rng.randrange(2), stamp))
        return config, items

    def run(self, item: Any) -> None:
        from deal_ros.pairing import StampPairer

        config, items = item
        pairer = StampPairer(config)
        pairs = [pair for stream, stamp in items for pair in pairer.add(stream, stamp, stamp)]
        counts = pairer.statistics()
        assert all(abs(pair.offset_ns) <= config.slop_ms * 1e6 and pair.rgb > 0 < pair.depth for pair in pairs)
        for name in ("rgb", "depth"):
            assert counts.waiting[name] <= config.queue_size
            known = counts.paired + counts.waiting[name] + sum(counts.dropped[name].values())
            assert counts.received[name] == known


class Yaml(Target):
    """Recipes as files, changed as text and as trees."""

    share = 5.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import yaml

        from deal_ros.config import ConfigError, load_yaml

        self.errors = (ConfigError,)
        root = Path(__file__).resolve().parents[2] / "config" / "recipes"
        self.trees = [load_yaml(root / name) for name in ("robot.yaml", "voc_seam.yaml", "demo_quick.yaml")]
        self.texts = [yaml.safe_dump(tree) for tree in self.trees]
        self.path, self.dump = folder / "recipe.yaml", yaml.safe_dump

    def make(self, rng: random.Random, *, damaged: bool) -> Any:
        number = rng.randrange(len(self.trees))
        if not damaged:
            return self.texts[number].encode()
        if rng.random() < 0.5:
            with contextlib.suppress(ValueError, UnicodeError):  # what YAML cannot write
                return self.dump(damage_tree(self.trees[number], rng)).encode("utf-8", "surrogatepass")
        if rng.random() < 0.05:
            width, depth = rng.choice(((2, 40), (10, 9), (1, 300)))
            lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
            return "\n".join([*lines, f"name: *a{depth - 1}"]).encode()
        return damage(self.texts[number].encode(), rng)

    def run(self, item: Any) -> None:
        from deal_ros.engine.recipe import Recipe, load_recipe

        self.path.write_bytes(item)
        assert isinstance(load_recipe(self.path, smoke=True), Recipe)


class Files(Target):
    """A folder of which one file is damaged per input, then put right again."""

    build: Callable[[Path], Any]
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from deal_ros.datasets.base import DatasetError
        from deal_ros.labels import LabelError

        self.errors = (DatasetError, LabelError)
        self.root = folder / "data"
        type(self).build(self.root)
        paths = [p for p in self.root.rglob("*") if p.is_file() and p.name != "lock" and p.stat().st_size]
        self.whole = {path: path.read_bytes() for path in sorted(paths)}

    def make(self, rng: random.Random, *, damaged: bool) -> Any:
        # By kind first: there are many more images than tables.
        kinds = sorted({path.suffix for path in self.whole})
        kind = rng.choice(kinds)
        path = rng.choice([p for p in self.whole if p.suffix == kind])
        data = self.whole[path]
        if not damaged:
            return path, data
        if kind == ".json" and rng.random() < 0.6:
            with contextlib.suppress(ValueError):
                return path, json.dumps(damage_tree(json.loads(data), rng)).encode("utf-8", "replace")
        return path, damage(data, rng)

    def run(self, item: Any) -> None:
        path, data = item
        path.write_bytes(data)
        try:
            self.read()
        finally:
            path.write_bytes(self.whole[path])
            shutil.rmtree(self.root / ".deal_ros", ignore_errors=True)
            for cache in self.root.glob("*/.deal_ros"):
                shutil.rmtree(cache)

    def read(self) -> None:
        from deal_ros.datasets import open_dataset

        dataset = open_dataset(self.root, **self.options)
        errors = []
        for index in range(min(len(dataset), 8)):
            try:
                sample = dataset[index]
                assert sample.labels is None or sample.labels <= set(dataset.classes)
                assert (np.isfinite(sample.depth_m) & (sample.depth_m >= 0)).all()
                assert Path(dataset.sample_id(index)).name == dataset.sample_id(index)
            except self.errors as error:
                errors.append(error)
        if errors:
            raise errors[0]


def _miniature(kind: str, **options: Any) -> Callable[[Path], Any]:
    def build(root: Path) -> None:
        from deal_ros.datasets import miniature

        getattr(miniature, f"write_{kind}")(root, **options)

    return build


class Voc(Files):
    share, build = 2.0, staticmethod(_miniature("voc", per_split=2))


class Coco(Files):
    share, build, options = 2.0, staticmethod(_miniature("coco", per_split=2)), {"split": "train2014"}


class Bop(Files):
    share, build = 2.0, staticmethod(_miniature("hope", objects=1, frames=1))


class Store(Files):
    share, build = 4.0, staticmethod(_miniature("store", per_class=2))


class Bundle(Files):
    """Model bundles; half of the damage is signed again, as a forger would."""

    share = 2.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from deal_ros.students import BundleError

        self.errors = (BundleError,)

    @staticmethod
    def build(root: Path) -> None:
        import torch

        from deal_ros.students import BundleSpec, create_student, write_bundle

        torch.set_num_threads(1)
        student = create_student("light", 2, weights="none", encoder="test_efficientnet", channels=8).eval()
        write_bundle(root, student, BundleSpec(("milk", "ketchup"), (64, 96)))

    def make(self, rng: random.Random, *, damaged: bool) -> Any:
        path, data = super().make(rng, damaged=damaged)
        if not damaged or rng.random() < 0.5:
            return path, data, None
        spec = json.loads(self.whole[self.root / "bundle.json"])
        if path.suffix == ".json":
            spec = damage_tree(spec, rng)
        else:
            spec["weights_sha256"] = hashlib.sha256(data).hexdigest()
        if isinstance(spec, dict):
            spec.pop("sha256", None)
            text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            spec["sha256"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        return path, data, json.dumps(spec).encode()

    def run(self, item: Any) -> None:
        path, data, spec = item
        where = self.root / "bundle.json"
        try:
            if spec is not None:
                where.write_bytes(spec)
            super().run((path, data) if path != where or spec is None else (path, spec))
        finally:
            where.write_bytes(self.whole[where])

    def read(self) -> None:
        from deal_ros.students import read_bundle

        student, spec = read_bundle(self.root)
        assert student.num_classes == len(spec.classes)


class Bags(Files):
    """Recordings in both storages, opened and read to their end."""

    share = 4.0

    @staticmethod
    def build(root: Path) -> None:
        from bag_writing import recording, write_bag

        root.mkdir()
        for storage in ("mcap", "sqlite3"):
            write_bag(root / storage, recording(2), storage)

    def run(self, item: Any) -> None:
        path, data = item
        path.write_bytes(data)
        try:
            from deal_ros.datasets.bag_reader import Bag

            bag = Bag(path.parent)
            count = sum(1 for _ in bag.messages())
            assert count < 10_000
            bag.topics()
        finally:
            path.write_bytes(self.whole[path])


class Checkpoints(Files):
    """Run folders: checkpoints, results and indices of label maps."""

    share = 4.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from deal_ros.engine.checkpoint import CheckpointError

        self.errors = (*self.errors, CheckpointError)

    @staticmethod
    def build(root: Path) -> None:
        import torch

        from deal_ros.engine.checkpoint import save_checkpoint
        from deal_ros.engine.label_folder import write_index, write_map
        from deal_ros.engine.run_folder import RunFolder

        folder = RunFolder(root, {"stage": "x"})
        folder.log({"step": 1, "loss": 0.5})
        folder.finish({"stage": "x"})
        save_checkpoint(root / "last.safetensors", {"network": {"w": torch.ones(9)}}, {"step": 3})
        write_map(root / "a.png", np.eye(8, dtype=np.uint8))
        write_index(root, {"classes": ["milk"]})

    def read(self) -> None:
        from deal_ros.engine.checkpoint import load_checkpoint
        from deal_ros.engine.label_folder import LabelFolder
        from deal_ros.engine.run_folder import read_metrics, read_result

        read_metrics(self.root)
        read_result(self.root)
        load_checkpoint(self.root / "last.safetensors")
        assert LabelFolder(self.root, ["milk"]).read("a").max() <= 255


TARGETS: dict[str, type[Target]] = {
    cls.__name__.lower(): cls
    for cls in (Messages, Labels, Stamps, Yaml, Voc, Coco, Bop, Store, Bundle, Bags, Checkpoints)
}
