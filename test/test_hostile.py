# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Strangers' files and numbers, each by name; ``test/long/fuzz.py`` draws them by the thousand, also here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deal_ros.config import ConfigError, from_mapping, load_yaml
from deal_ros.datasets import miniature, open_dataset
from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.coco import decode_rle_text, draw_mask
from deal_ros.datasets.image_files import read_array, read_bytes, read_ids, read_rgb
from deal_ros.engine.checkpoint import CheckpointError, load_checkpoint
from deal_ros.engine.label_folder import read_index
from deal_ros.engine.optimization import OptimizationConfig
from deal_ros.engine.recipe import load_recipe
from deal_ros.engine.run_folder import read_metrics, read_result
from deal_ros.images import ImageError, decode_color, decode_depth
from deal_ros.students.bundle import BundleSpec

ROOT = Path(__file__).resolve().parents[1]


def long_form(tmp_path: Path, script: str, *options: str) -> dict:
    """Run a script of test/long as its users do, and return what it wrote."""
    result = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "test" / "long" / script), *options, "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.exists(), done.stderr[-2000:]
    return json.loads(result.read_text())


@pytest.mark.slow
def test_two_thousand_mutated_inputs(tmp_path) -> None:
    result = long_form(tmp_path, "fuzz.py", "--inputs", "2000", "--seed", "3")
    assert [fault for target in result["targets"] for fault in target["faults"]] == []
    assert result["inputs"] >= 1990
    assert result["refused"] > 500


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path) -> None:
    """Collector, importer, trainer and bundle writer; more of each in test_store_faults, test_import, test_bundle."""
    result = long_form(tmp_path, "kill.py", "--rounds", "20")
    assert result["faults"] == []
    assert result["kills"] >= 20


def test_the_watch_of_the_fuzzer_sees_what_it_looks_for(tmp_path) -> None:
    code = (
        "import sys, pathlib, pickle, subprocess; sys.path.insert(0, sys.argv[1])\n"
        "from fuzz import Watch\n"
        "inside = pathlib.Path(sys.argv[2]); watch = Watch(inside); watch.on = True\n"
        "(inside / 'fine').write_text('x'); (inside / 'folder').mkdir(); (inside / 'fine').unlink()\n"
        "assert not watch.seen, watch.seen\n"
        "(inside.parent / 'stranger').write_text('x'); (inside / '..' / 'strange').mkdir()\n"
        "pickle.loads(pickle.dumps(pathlib.Path('a'))); subprocess.run(['true'])\n"
        "kinds = {line.split()[0].split('(')[0] for line in watch.seen}\n"
        "assert {'open', 'os.mkdir', 'pickle.find_class', 'subprocess.Popen'} <= kinds, kinds\n"
    )
    (tmp_path / "inside").mkdir()
    command = [sys.executable, "-c", code, str(ROOT / "test" / "long"), str(tmp_path / "inside")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", [False, True])
def test_an_alias_bomb_costs_nothing(tmp_path, merge) -> None:
    if merge:
        lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    else:
        lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join([*lines, "name: *a11"]))
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="aliases stand for more"):
            load_recipe(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_an_alias_to_itself_is_refused_and_an_ordinary_one_is_not(tmp_path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a [1, *a]")
    with pytest.raises(ConfigError, match="part of"):
        load_yaml(path)
    path.write_text("a: &a [1, 2]\nb: *a\n")
    assert load_yaml(path) == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.mkdir [outside]",
        "a: !!python/name:os.system",
        "!!python/object/new:os.system [touch outside]",
        "a: !!int ''",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: 2001-99-99",
        "a: !!binary é",
        "? [1]\n: 2",
        "[" * 5000,
        "name: 1\x00",
    ],
)
def test_tags_and_rubbish_in_yaml_are_refused(tmp_path, monkeypatch, text) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        load_yaml(path)
    assert [item.name for item in tmp_path.iterdir()] == ["a.yaml"]


def test_numbers_that_no_float_holds_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="fits a float"):
        from_mapping(OptimizationConfig, {"lr": 10**400})
    with pytest.raises(ConfigError, match="too long to show"):
        from_mapping(OptimizationConfig, {"schedule": 1 << 100_000})
    with pytest.raises(ConfigError, match="fits a float"):
        from_mapping(BundleSpec, {"classes": ["a"], "input_size": [64, 64], "mean": [10**400, 0, 0]})
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nsmoke: 5\n")
    with pytest.raises(ConfigError, match=r"smoke: must be a mapping"):
        load_recipe(path, smoke=True)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["lr", "steps", "batch_size", "precision", "schedule", "seed", "weight_decay", "x"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, plain, max_size=4))
def test_any_mapping_is_a_config_or_an_error(values) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(from_mapping(OptimizationConfig, values), OptimizationConfig)


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "pixel"), [("rgb8", 3), ("16UC1", 2), ("bayer_rggb8", 1)])
def test_a_hundred_megapixels_are_refused_before_they_are_touched(encoding, pixel) -> None:
    pages = np.zeros(10_000 * 10_000 * pixel, np.uint8)  # never touched, therefore never in memory
    message = SimpleNamespace(
        height=10_000, width=10_000, step=10_000 * pixel, encoding=encoding, is_bigendian=0, data=pages
    )
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="at most 67108864 pixels, got 10000 x 10000"):
            (decode_depth if encoding == "16UC1" else decode_color)(message)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_promises_67_megapixels_in_a_few_bytes_costs_next_to_nothing(tmp_path) -> None:
    """Each kind of image by each way in, in a process of its own: what its resident memory grows by."""
    command = [sys.executable, str(ROOT / "test" / "support" / "image_promises.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == 38
    assert [name for name, (_, answer) in found.items() if answer == "taken"] == []
    assert {name: megabytes for name, (megabytes, _) in found.items() if megabytes > 8} == {}
    assert sum(megabytes for megabytes, _ in found.values()) < 16


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32) | st.sampled_from([-0.0, 1e-45, 3e38]), min_size=6, max_size=6))
def test_no_depth_leaves_the_decoder_but_finite_metres(values) -> None:
    raw = np.array(values, np.float32).reshape(2, 3)
    message = SimpleNamespace(
        height=2, width=3, step=12, encoding="32FC1", is_bigendian=0, data=raw.astype("<f4").tobytes()
    )
    depth = decode_depth(message)
    usable = np.isfinite(raw) & (raw > 0)
    np.testing.assert_array_equal(depth, np.where(usable, raw, 0))


# --- data set folders -------------------------------------------------------------------------------------------------


def test_a_mask_that_is_a_program_is_not_started(tmp_path) -> None:
    """Pillow hands EPS to Ghostscript; the name says PNG."""
    path = tmp_path / "mask.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n%%EOF\n")
    with pytest.raises(DatasetError, match="must be PNG or JPEG"):
        read_ids(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_what_is_no_file_does_not_hang(tmp_path, kind) -> None:
    path = tmp_path / "a.png"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    for read in (read_bytes, read_ids, read_array):
        with pytest.raises(DatasetError, match="plain file"):
            read(path)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])  # none, LZW, Deflate, PackBits
def test_a_photograph_may_be_a_tiff(tmp_path, compression) -> None:
    path = tmp_path / "a.tif"
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    for size, noise in (((30, 40), 256), ((30, 40), 1), ((2000, 3000), 1)):  # the largest as flat as can be
        for channels in (1, 3):
            picture = np.random.default_rng(0).integers(0, noise, (*size, channels)).astype(np.uint8)
            assert cv2.imwrite(str(path), picture, options)
            np.testing.assert_array_equal(read_rgb(path), np.broadcast_to(picture[..., ::-1], (*size, 3)))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.bmp", np.uint8, "must be PNG or JPEG"),
        ("a.webp", np.uint8, "must be PNG or JPEG"),
        ("a.tif", np.uint16, "8-bit grey or RGB"),
    ],
)
def test_a_photograph_of_another_kind_is_refused(tmp_path, name, kind, message) -> None:
    assert cv2.imwrite(str(tmp_path / name), np.zeros((8, 8), kind))
    with pytest.raises(DatasetError, match=message):
        read_rgb(tmp_path / name)


@pytest.mark.parametrize("shape", [(10**7, 10**7), (10**12,), (-1, 5)])
def test_an_array_of_absurd_shape_is_refused(tmp_path, shape) -> None:
    path = tmp_path / "a.npy"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(DatasetError):
        read_array(path)


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_a_link_in_place_of_the_cache_is_not_written_through(tmp_path, monkeypatch, layout) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, victim = tmp_path / "data", tmp_path / "victim"
    base = miniature.write_voc(root, per_split=1) if layout == "voc" else miniature.write_coco(root, per_split=1)
    victim.mkdir()
    (base / ".deal_ros").symlink_to(victim)
    assert len(open_dataset(root)) == 1
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_in_any_encoding(tmp_path, encoding) -> None:
    base = miniature.write_voc(tmp_path, per_split=1)
    path = next((base / "Annotations").glob("*.xml"))
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "cat">]><a><object><name>&b;</name>'
    path.write_bytes(f"{text}</object></a>".encode(encoding))
    with pytest.raises(DatasetError, match="document type"):
        open_dataset(tmp_path)
    path.write_text('<?xml version="1.0" encoding="martian"?><a/>')
    with pytest.raises(DatasetError, match="not XML"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "polygon", [[1e300, 0, 0, 1e9, 5, 5], [0, 0, 1e8, 0, 1e8, 1e8], [[1], [2, 3]], ["x"] * 6, [10**400] * 6, [None] * 6]
)
def test_far_and_foreign_polygons_are_refused(polygon) -> None:
    with pytest.raises(DatasetError, match="a polygon must be"):
        draw_mask([{"class": 1, "area": 1, "segmentation": [polygon]}], (8, 9), "here")


def test_numbers_without_end_in_rle_are_refused() -> None:
    with pytest.raises(DatasetError, match="too long a number"):
        decode_rle_text("o" * 1_000_000)


@pytest.mark.parametrize("value", [float("inf"), 10**400, "x", None, []])
@pytest.mark.parametrize("where", [("images", "height"), ("annotations", "area"), ("annotations", "category_id")])
def test_odd_values_in_coco_are_named(tmp_path, where, value) -> None:
    root = miniature.write_coco(tmp_path, per_split=1)
    path = root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    content[where[0]][0][where[1]] = value
    path.write_text(json.dumps(content))
    try:
        open_dataset(root)[0]
    except DatasetError as error:
        assert "COCO" in str(error) or "annotated" in str(error)  # noqa: PT017
    else:
        assert where == ("annotations", "area")
        assert value == float("inf")


@pytest.mark.parametrize(
    "damage", ["{", '{"classes": ["a"], "labels": [[9]]}', '{"classes": ["person"], "labels": [[1]]}']
)
def test_a_foreign_index_in_a_coco_folder_is_checked(tmp_path, damage) -> None:
    root = miniature.write_coco(tmp_path, per_split=1)
    open_dataset(root)
    (index,) = (root / ".deal_ros").iterdir()
    index.write_text(damage + "\n" + json.dumps({"file": "../../../etc/x.png", "height": 1, "width": 1, "objects": []}))
    with pytest.raises(DatasetError, match="remove the file"):
        open_dataset(root)[0]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("scene_gt.json", '{"x": []}'),
        ("scene_gt.json", '{"-1": []}'),
        ("scene_gt.json", '{"0": [], "00": []}'),
        ("scene_gt.json", '{"0": [{"obj_id": Infinity}]}'),
        ("scene_camera.json", json.dumps({str(i): {"cam_K": ["x"] * 9, "depth_scale": 1} for i in range(9)})),
        ("scene_camera.json", json.dumps({str(i): {"cam_K": [[1]] * 9, "depth_scale": 1} for i in range(9)})),
    ],
)
def test_odd_values_in_bop_are_named(tmp_path, file, content) -> None:
    root = miniature.write_hope(tmp_path, objects=1, frames=1)
    (root / "onboarding_static" / "obj_000001_down" / file).write_text(content)
    with pytest.raises(DatasetError, match=file):
        open_dataset(root)[0]


# --- run folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", "\ud800"])
def test_rubbish_in_run_folders_is_named(tmp_path, text) -> None:
    data = text.encode("utf-8", "surrogatepass")
    for name in ("labels.json", "result.json", "metrics.jsonl", "last.safetensors"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=r"labels\.json"):
        read_index(tmp_path)
    with pytest.raises(CheckpointError, match=r"result\.json"):
        read_result(tmp_path)
    with pytest.raises(CheckpointError, match=r"last\.safetensors"):
        load_checkpoint(tmp_path / "last.safetensors")
    assert read_metrics(tmp_path) == []
