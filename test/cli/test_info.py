# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch

from deal_ros.cli import main
from deal_ros.students import BundleSpec, create_student, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.set_num_threads(1)
    student = create_student("light", 2, weights="none", encoder="mobilenetv3_small_050", channels=16).eval()
    spec = BundleSpec(("milk", "orange juice"), (48, 64), {"commit": "abc123"}, {"miou": 0.625})
    return write_bundle(tmp_path_factory.mktemp("models") / "bundle", student, spec)


def test_a_bundle_in_words(bundle, capsys):
    assert main(["info", str(bundle), "--device", "cpu", "--backend", "torch", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    for part in ("milk, orange juice", "0.625", "abc123", "48x64", "median_ms", "million", "MB", "gflops"):
        assert part in text


def test_a_bundle_for_programs(bundle, capsys):
    arguments = ["info", str(bundle), "--json", "--device", "cpu", "--image-size", "60x80", "--threads", "1"]
    assert main(arguments) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["classes"] == ["milk", "orange juice"]
    assert content["parameters"] > 100_000
    assert content["bytes"] > 4 * content["parameters"]
    # A multiplication and an addition are two operations; a pointwise network of this size stays far below 1 GFLOP.
    assert 0.001 < content["gflops"] < 1
    assert content["latency"]["image_size"] == [60, 80]
    assert 0 < content["latency"]["median_ms"] <= content["latency"]["p95_ms"]
    assert content["latency"]["backend"] in ("torch", "onnxruntime")


def test_latency_can_be_left_out(bundle, capsys):
    assert main(["info", str(bundle), "--json", "--no-latency"]) == 0
    assert "latency" not in json.loads(capsys.readouterr().out)


def test_flops_of_one_convolution():
    from deal_ros.students import Student
    from deal_ros.students.profile import count_flops

    class OneConvolution(Student):
        def __init__(self):
            super().__init__(1)
            self.convolution = torch.nn.Conv2d(3, 2, 3, padding=1, bias=False)

        def forward(self, image, features=None):
            return self.convolution(image)

    assert count_flops(OneConvolution(), (8, 10)) == 2 * 8 * 10 * 2 * 3 * 9


def test_the_installation(capsys):
    assert main(["info", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["versions"]["torch"]
    assert content["versions"]["opencv"]
    assert content["imagenet_weights"]["tf_efficientnet_lite0"] in (True, False)
    assert main(["info"]) == 0


def test_a_store(tmp_path, capsys):
    from deal_ros.datasets.store import SampleStore

    SampleStore.create(tmp_path / "store", ["milk"]).close()
    assert main(["info", str(tmp_path / "store"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["per_class"] == {"milk": 0}


def test_what_is_neither_is_refused(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 2
    assert "must be a model bundle" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "nowhere")]) == 1
    assert "bundle.json: not found" in capsys.readouterr().err
