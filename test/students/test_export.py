# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deal_ros.students import BundleSpec, Predictor, PredictorConfig, Student, create_student
from deal_ros.students.export import ExportConfig, export, run_exported
from deal_ros.students.onnx_graph import to_onnx

CLASSES = ("red", "green", "blue")
SPEC = BundleSpec(CLASSES, (48, 64), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
ARCHITECTURES = {
    "light": {"encoder": "mobilenetv3_small_050", "channels": 16},
    "mask_transformer": {"encoder": "deit_tiny_patch16_224", "layers": 1},
}


class ColorStudent(Student):
    """Names the strongest colour, on a grid of every fourth pixel; sure of itself, so that masks can be compared."""

    mean, std = SPEC.mean, SPEC.std

    def __init__(self):
        super().__init__(3)
        self.gain = torch.nn.Parameter(torch.tensor(30.0))

    def forward(self, image, features=None):
        return F.avg_pool2d(F.pad(image, (0, 0, 0, 0, 1, 0)), 4) * self.gain


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def _picture(size):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.ascontiguousarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))


def _expected(student, image):
    config = PredictorConfig(backend="torch", device="cpu", input_size=SPEC.input_size)
    return Predictor.from_student(student, SPEC, config).predict(image)


@pytest.mark.parametrize("size", [(96, 128), (480, 640), (90, 160), (30, 50)])
def test_onnx_takes_any_image_and_gives_the_same_mask(tmp_path, size):
    pytest.importorskip("onnxruntime")
    student, image = ColorStudent().eval(), _picture(size)
    mask, confidence = run_exported(export(student, SPEC, tmp_path / "model.onnx"), image)
    expected = _expected(student, image)
    assert mask.dtype == confidence.dtype == np.uint8
    assert mask.shape == size
    assert len(np.unique(mask)) >= 3
    assert (mask == expected.mask).mean() >= 0.999
    assert (np.abs(confidence.astype(int) - expected.confidence) <= 3).mean() >= 0.99


def test_torch_program_gives_the_same_mask(tmp_path):
    student, image = ColorStudent().eval(), _picture((96, 128))
    out = export(student, SPEC, tmp_path / "model.pt2", ExportConfig(format="pt2"))
    mask, _ = run_exported(out, image)
    assert (mask == _expected(student, image).mask).mean() >= 0.999


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_exports(tmp_path, name):
    """Untrained, so undecided nearly everywhere: not a grey level of difference is allowed on the way in."""
    pytest.importorskip("onnxruntime")
    student = create_student(name, 3, weights="none", **ARCHITECTURES[name]).eval()
    image = _picture(SPEC.input_size)
    spec = replace(SPEC, mean=student.mean, std=student.std)
    mask, _ = run_exported(export(student, spec, tmp_path / "model.onnx"), image)
    assert (mask == _expected(student, image).mask).mean() >= 0.99


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(48, 64), (80, 48)])
def test_logits_in_onnxruntime_equal_torch(name, size):
    pytest.importorskip("onnxruntime")
    from deal_ros.students.backends import OnnxForward

    student = create_student(name, 3, weights="none", **ARCHITECTURES[name]).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = student(images)
    found = torch.from_numpy(OnnxForward(student, ["CPUExecutionProvider"], 1)(images))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(student.fixed_to(size)(images), expected, atol=1e-5, rtol=1e-5)


def test_threshold_is_inside(tmp_path):
    pytest.importorskip("onnxruntime")
    config = ExportConfig(confidence_threshold=0.9)
    mask, confidence = run_exported(
        export(ColorStudent().eval(), SPEC, tmp_path / "a.onnx", config), _picture((96, 128))
    )
    assert (mask == 255).any()
    np.testing.assert_array_equal(mask == 255, confidence < round(0.9 * 255))


def test_file_says_what_it_is(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(export(ColorStudent().eval(), SPEC, tmp_path / "a.onnx")))
    stored = session.get_modelmeta().custom_metadata_map
    assert json.loads(stored["classes"]) == list(CLASSES)
    assert stored["version"] == SPEC.version
    assert json.loads(stored["input_size"]) == [48, 64]
    [image], outputs = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[2]) == ("image", "tensor(uint8)", 3)
    assert [output.name for output in outputs] == ["mask", "confidence"]


def test_long_metadata_keeps_the_file_valid(tmp_path):
    onnx = pytest.importorskip("onnx")
    content = to_onnx(torch.nn.Identity(), torch.zeros(2), ["x"], ["y"], {}, {"a": "x" * 100_000, "b": "ü"})
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    assert [(entry.key, len(entry.value)) for entry in model.metadata_props] == [("a", 100_000), ("b", 1)]


def test_failed_export_leaves_the_old_file(tmp_path):
    class Untraceable(ColorStudent):
        def forward(self, image, features=None):
            raise RuntimeError("no")

    (tmp_path / "a.onnx").write_text("old")
    with pytest.raises(RuntimeError):
        export(Untraceable().eval(), SPEC, tmp_path / "a.onnx")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    "arguments", [{"input_size": (1, 1)}, {"image_size": (9, 99999)}, {"confidence_threshold": -1}]
)
def test_impossible_configurations_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        ExportConfig(**arguments)
