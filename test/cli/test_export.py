# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch

from deal_ros.cli import main
from deal_ros.students import BundleSpec, create_student, read_bundle, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = create_student("light", 2, weights="none", encoder="mobilenetv3_small_050", channels=16).eval()
    return write_bundle(tmp_path_factory.mktemp("models") / "v1.2", student, BundleSpec(("milk", "cookies"), (48, 64)))


def test_onnx_file_runs_and_agrees(bundle, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "deep" / "model.onnx"
    assert main(["export", str(bundle), "--format", "onnx", "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["agreement"] >= 0.95
    assert result["bytes"] == out.stat().st_size
    session = onnxruntime.InferenceSession(str(out))
    mask, _ = session.run(None, {"image": np.zeros((70, 90, 3), np.uint8)})
    assert mask.shape == (70, 90)
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]


def test_half_is_a_bundle_again_of_half_the_size(bundle, tmp_path, capsys):
    out = tmp_path / "half"
    assert main(["export", str(bundle), "--format", "half", "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["agreement"] >= 0.95
    half, spec = read_bundle(out)
    whole, _ = read_bundle(bundle)
    assert spec.classes == ("milk", "cookies")
    assert result["version"] == spec.version != read_bundle(bundle)[1].version
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (bundle, out)]
    assert sizes[1] < 0.6 * sizes[0]
    for name, weight in half.state_dict().items():
        assert weight.dtype == whole.state_dict()[name].dtype
        torch.testing.assert_close(weight, whole.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_format_follows_the_ending_and_default_name_keeps_dots(bundle, tmp_path, capsys):
    assert main(["export", str(bundle), "--out", str(tmp_path / "a.pt2"), "--image-size", "60x80"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "pt2"
    assert main(["export", str(bundle), "--no-check"]) == 0
    assert (bundle.parent / "v1.2.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx", "--out", "a.pt2"], "must end in .onnx"),
        (["--threshold", "2"], "confidence_threshold must be"),
        (["--input-size", "48"], "must be HEIGHTxWIDTH"),
        (["--input-size", "4x4"], "input_size must be"),
        (["--format", "half", "--threshold", "0.5"], "half has none"),
    ],
)
def test_wrong_use(bundle, arguments, message, capsys):
    assert main(["export", str(bundle), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_missing_bundle(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nowhere")]) == 1
    assert "not found" in capsys.readouterr().err
