# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from deal_ros.students import BundleError, BundleSpec, create_student, placement, read_bundle, read_spec, write_bundle
from deal_ros.students.bundle import _deserialize

CLASSES = ("milk", "orange juice", "ketchup")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _student():
    torch.manual_seed(0)
    return create_student("light", 3, weights="none", encoder="mobilenetv3_small_050", channels=16).eval()


def _spec(**more):
    training = {"commit": "abc", "path": Path("x"), "loss": float("nan")}
    return BundleSpec(CLASSES, (64, 96), **{"training": training, "metrics": {"miou": np.float32(0.5)}, **more})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("models") / "first", _student(), _spec())


@pytest.fixture
def copy(bundle, tmp_path):
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def _rewrite(folder, change):
    """A forger who knows the format: changes the content and signs it again."""
    content = json.loads((folder / "bundle.json").read_text())
    content.pop("sha256")
    content = change(content) or content
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["sha256"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(content))


def _resign_weights(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    _rewrite(folder, lambda content: content.update(weights_sha256=digest))


def test_what_is_written_is_read(bundle):
    student, spec = read_bundle(bundle)
    image = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(student(image), _student()(image), rtol=0, atol=0)
    assert not student.training
    assert spec.classes == CLASSES
    assert spec.input_size == (64, 96)
    assert spec.mean == student.mean
    assert spec.training == {"commit": "abc", "path": "x", "loss": None}
    assert spec.metrics == {"miou": 0.5}
    assert len(spec.colors) == 3
    assert read_spec(bundle) == spec


def test_folder_holds_two_plain_files(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == ["bundle.json", "model.safetensors"]
    assert [path.name for path in bundle.parent.iterdir()] == ["first"]


def test_version_changes_with_weights_and_with_names(bundle, tmp_path):
    other = _student()
    other.classify.bias.data += 1
    versions = {
        read_spec(bundle).version,
        read_spec(write_bundle(tmp_path / "a", other, _spec())).version,
        read_spec(write_bundle(tmp_path / "b", _student(), BundleSpec(("a", "b", "c"), (64, 96)))).version,
    }
    assert len(versions) == 3
    assert all(len(version) == 12 for version in versions)
    assert read_spec(write_bundle(tmp_path / "c", _student(), _spec())).version == read_spec(bundle).version


def test_existing_bundle_is_kept_unless_told(copy):
    before = read_spec(copy).version
    with pytest.raises(BundleError, match="already exists"):
        write_bundle(copy, _student(), _spec())
    write_bundle(copy, _student(), _spec(metrics={"miou": 0.7}), overwrite=True)
    assert read_spec(copy).version != before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_bad_students_are_not_written(tmp_path):
    student = _student()
    with pytest.raises(BundleError, match="3 classes, got 1"):
        write_bundle(tmp_path / "a", student, BundleSpec(("milk",), (64, 96)))
    student.classify.bias.data[0] = float("nan")
    with pytest.raises(BundleError, match=r"classify\.bias must be finite"):
        write_bundle(tmp_path / "a", student, _spec())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_the_old_bundle(copy, monkeypatch, call):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "rename")), refuse)
    with pytest.raises(BundleError, match="No space left"):
        write_bundle(copy, _student(), _spec(metrics={"miou": 0.9}), overwrite=True)
    monkeypatch.undo()
    assert read_bundle(copy)[1].metrics == {"miou": 0.5}
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_writer_killed_between_renames_is_mended_by_the_next(copy):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(process.stdout)
    copy.rename(copy.parent / f".copy.{dead}.old")
    (copy.parent / f".copy.{dead}.partial").mkdir()
    with pytest.raises(BundleError, match="already exists"):
        write_bundle(copy, _student(), _spec())
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    read_bundle(copy)


WRITER = """
import runpy, sys
from pathlib import Path

module, source, target = runpy.run_path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
files = {path.name: path.read_bytes() for path in source.iterdir()}
print("ready", flush=True)
while True:
    module["sweep"](target)
    module["place_folder"](target, files)
"""


def test_killed_writers_leave_no_half_bundle(bundle, tmp_path):
    target, whole = tmp_path / "bundle", 0
    expected = read_spec(bundle).version
    command = [sys.executable, "-c", WRITER, placement.__file__, str(bundle), str(target)]
    for attempt in range(20):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.002 + 0.0037 * attempt)
            writer.send_signal(signal.SIGKILL)
        # Only the whole folder may be away, between two renames; its predecessor then lies beside it.
        if target.exists():
            assert read_bundle(target)[1].version == expected
            whole += 1
        else:
            assert not whole or list(tmp_path.glob(".bundle.*.old"))
    assert whole
    placement.sweep(target)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    read_bundle(target)


def test_missing_files_and_folder(copy, tmp_path):
    with pytest.raises(BundleError, match=r"bundle\.json: not found"):
        read_bundle(tmp_path / "nowhere")
    (copy / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors: not found"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors"])
def test_links_out_of_the_folder_are_not_followed(copy, tmp_path, name):
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="no link"):
        read_bundle(copy)


@pytest.mark.timeout(20)
def test_pipes_and_folders_in_place_of_files_do_not_hang(copy):
    (copy / "model.safetensors").unlink()
    os.mkfifo(copy / "model.safetensors")
    with pytest.raises(BundleError, match="plain file"):
        read_bundle(copy)
    (copy / "bundle.json").unlink()
    (copy / "bundle.json").mkdir()
    with pytest.raises(BundleError):
        read_bundle(copy)


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_never_loaded(copy, tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    path = copy / "model.safetensors"
    path.write_bytes(pickle.dumps(_Bomb())) if writer == "pickle" else torch.save({"a": _Bomb()}, path)
    _resign_weights(copy)
    with pytest.raises(BundleError, match="got a pickle, which is never loaded"):
        read_bundle(copy)
    assert not (tmp_path / "exploded").exists()


def test_damaged_weights_are_noticed(copy):
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="sha256 must be"):
        read_bundle(copy)


def test_an_edited_name_is_noticed(copy):
    path = copy / "bundle.json"
    path.write_text(path.read_text().replace("milk", "silk"))
    with pytest.raises(BundleError, match="changed after writing"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=2), "format_version must be 1"),
        (lambda c: c.update(classes=["../../etc", "b", "c"]), "class name must be"),
        (lambda c: c.update(classes=["a", "a", "c"]), "must differ"),
        (lambda c: c.update(classes=["a", "b"], colors=[]), "weights do not fit"),
        (lambda c: c.update(classes=[f"c{i}" for i in range(300)]), "at most 254"),
        (lambda c: c.update(input_size=[10**9, 10**9]), "input_size must be"),
        (lambda c: c.update(input_size="big"), "must be a list"),
        (lambda c: c.update(std=[0, 1, 1]), "std above 0"),
        (lambda c: c.update(colors=[[0, 0, 300]] * 3), r"0\.\.255"),
        (lambda c: c.update(architecture="os.system"), "student must be one of"),
        (lambda c: c["arguments"].update(channels=10**9), r"channels must be in 8\.\.1024"),
        (lambda c: c["arguments"].update(encoder="hf-hub:someone/evil"), "timm"),
        (lambda c: c["arguments"].update(encoder="vit_giant_patch14_224"), "cannot be built"),
        (lambda c: c["arguments"].update(channels=24), "weights do not fit the architecture"),
        (lambda c: c["arguments"].update(weights="/etc/passwd"), "arguments must be those of the architecture"),
        (lambda c: c["arguments"].update(surprise=1), "unknown key 'surprise'"),
        (lambda c: c.update(surprise=1), "unknown key 'surprise'"),
    ],
)
def test_forged_specs_are_refused(copy, change, message):
    _rewrite(copy, lambda content: change(content))
    with pytest.raises(BundleError, match=message):
        read_bundle(copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"format_version": NaN}', "[" * 100_000, "\ud800", "1" * 9999]
)
def test_rubbish_for_a_spec(copy, text):
    (copy / "bundle.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError):
        read_bundle(copy)


def test_absurd_and_foreign_tensors(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    for change, message in (
        ({"classify.bias": torch.zeros(7)}, r"classify\.bias must be torch\.float32 \(4,\), got torch\.float32 \(7,\)"),
        ({"classify.bias": torch.zeros(4, dtype=torch.float64)}, "got torch.float64"),
        ({"classify.bias": torch.full((4,), float("inf"))}, "must be finite"),
        ({"extra": torch.zeros(1)}, "extra is not part of it"),
    ):
        save_file({**tensors, **change}, path)
        _resign_weights(copy)
        with pytest.raises(BundleError, match=message):
            read_bundle(copy)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    _resign_weights(copy)
    with pytest.raises(BundleError, match="must be safetensors"):
        read_bundle(copy)


def test_header_length_that_looks_like_a_pickle_is_no_pickle(tmp_path):
    """A header of 128 + 256·n bytes starts with the byte 0x80, as a pickle does."""
    for length in range(0, 256, 8):
        content = save({"a": torch.zeros(1)}, {"pad": "x" * length})
        assert "a" in _deserialize(content, tmp_path)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_bundles_are_refused_or_right(bundle, tmp_path, data):
    folder = tmp_path / "mutant"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    path = folder / data.draw(st.sampled_from(["bundle.json", "model.safetensors"]))
    content = bytearray(path.read_bytes())
    # Half of the mutations hit the first kilobyte, where the headers are.
    end = data.draw(st.sampled_from([min(1000, len(content)), len(content)]))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, end - 1))
        content[position % len(content)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    if path.name == "model.safetensors" and data.draw(st.booleans()):
        _resign_weights(folder)
    try:
        student, spec = read_bundle(folder)
    except BundleError:
        return
    assert spec.classes == CLASSES
    assert student.num_classes == 3
