# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Every fast path against the plain one: eager fp32, operator by operator."""

import functools
import gc
import logging
import threading
import weakref

import cv2
import numpy as np
import psutil
import pytest
import torch
from torch.nn import functional as F

from deal_ros.students import (
    BundleSpec,
    Prediction,
    Predictor,
    PredictorConfig,
    create_student,
    write_bundle,
)
from deal_ros.students.backends import DeviceBackend, prepare_network, tuned_convolutions
from deal_ros.students.folding import fold_batch_norm
from deal_ros.students.pixels import CpuDecoder, Encoder, candidates, decode, network_size

CLASSES = ("red", "green", "blue")
SPEC = BundleSpec(CLASSES, (48, 64))
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _picture(seed, height=96, width=128):
    """Dark noise with a few coloured ellipses, and what they are."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(3):
        label = int(rng.integers(1, 4))
        center = tuple(int(v) for v in rng.integers((10, 10), (width - 10, height - 10)))
        axes = tuple(int(v) for v in rng.integers(8, 25, 2))
        color = [20, 20, 20]
        color[label - 1] = 220
        cv2.ellipse(rgb, center, axes, float(rng.integers(180)), 0, 360, color, -1)
        cv2.ellipse(mask, center, axes, float(rng.integers(180)), 0, 360, label, -1)
        mask[(rgb[..., label - 1] > 150)] = label
    return rgb, mask


@pytest.fixture(scope="module")
def student():
    """A light student that has learnt its three colours."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    student = create_student("light", 3, weights="none", encoder="mobilenetv3_small_050", channels=32, dropout=0.0)
    student.train()
    optimizer = torch.optim.AdamW(student.parameter_groups(5e-3, 1e-4))
    for step in range(60):
        pictures = [_picture(8 * step + i) for i in range(8)]
        rgb = torch.from_numpy(np.stack([p[0] for p in pictures])).permute(0, 3, 1, 2)
        image = F.interpolate(student.normalize(rgb), size=(48, 64), mode="bilinear", antialias=True)
        logits = F.interpolate(student(image), size=(96, 128), mode="bilinear")
        loss = F.cross_entropy(logits, torch.from_numpy(np.stack([p[1] for p in pictures])).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student.eval()


def _eager(student, rgb, size=(48, 64)):
    """What the documentation says, with nothing but torch."""
    with torch.no_grad():
        image = Encoder(size, student.mean, student.std)(torch.from_numpy(rgb.copy())[None])
        logits = student(image)
        full = F.interpolate(logits, size=rgb.shape[:2], mode="bilinear", align_corners=False)
        mask = full.argmax(1, keepdim=True)
        probability = F.interpolate(logits.softmax(1), size=rgb.shape[:2], mode="bilinear", align_corners=False)
        return mask[0, 0].numpy().astype(np.uint8), probability.gather(1, mask)[0, 0].numpy()


MODES = {
    "torch": {"backend": "torch"},
    "torch, not channels last": {"backend": "torch", "channels_last": False},
    "bf16": {"backend": "torch", "precision": "bf16"},
    "onnxruntime": {"backend": "onnxruntime"},
    "auto": {},
}


def _predictor(student, **arguments):
    if arguments.get("backend") == "onnxruntime":
        pytest.importorskip("onnxruntime")
    return Predictor.from_student(student, SPEC, PredictorConfig(device="cpu", **arguments))


def _check(predictor, student):
    found = [predictor.predict(_picture(seed)[0]) for seed in range(900, 908)]
    expected = [_eager(student, _picture(seed)[0]) for seed in range(900, 908)]
    agreement = np.mean([(p.mask == mask).mean() for p, (mask, _) in zip(found, expected)])
    assert agreement >= 0.999
    # Where two classes are equal, either may win, with its own confidence: the last permille is left out.
    differences = [np.abs(p.confidence / 255 - confidence) for p, (_, confidence) in zip(found, expected)]
    return np.quantile(differences, 0.999)


def test_the_student_has_learnt_something(student):
    rgb, mask = _picture(901)
    assert (_eager(student, rgb)[0] == mask).mean() > 0.9
    assert len(np.unique(_eager(student, rgb)[0])) > 1


@pytest.mark.parametrize("mode", MODES)
def test_same_masks_as_eager_fp32(student, mode):
    difference = _check(_predictor(student, **MODES[mode]), student)
    assert difference < (0.1 if mode == "bf16" else 0.01)


def test_device_path_gives_the_same_masks(student):
    """The path for GPUs, its operators run on the CPU."""
    cpu = torch.device("cpu")
    network = prepare_network(student, (48, 64), device=cpu, dtype=torch.float32, channels_last=True)
    backend = DeviceBackend(
        network,
        lambda size: Encoder(size, student.mean, student.std),
        lambda size: (48, 64),
        0.0,
        device=cpu,
        dtype=torch.float32,
        graph=True,
    )
    predictor = _predictor(student, backend="torch")
    predictor._backend = backend
    assert _check(predictor, student) < 0.01
    slots = [weakref.ref(slot) for slot in backend._shapes.values()]
    assert slots
    gc.disable()
    try:
        backend.close()
        assert not any(slot() for slot in slots), "its memory waits for the garbage collector"
    finally:
        gc.enable()


def test_graphs_are_captured_with_cudnn_and_what_is_set_stays():
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        with tuned_convolutions():
            assert torch.backends.cudnn.enabled
            assert torch.backends.cudnn.benchmark
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.benchmark


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("graph", [True, False])
def test_same_masks_on_cuda(student, precision, graph):
    config = PredictorConfig(backend="torch", device="cuda", precision=precision, cuda_graph=graph)
    predictor = Predictor.from_student(student, SPEC, config)
    _check(predictor, student)
    if graph:
        assert all(slot.graph is not None for slot in predictor._backend._shapes.values())


def test_compiled_student_gives_the_same_masks(student, monkeypatch):
    """The graph is captured as always; generating code for it would take a minute and is left to the benchmark."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    predictor = _predictor(student, backend="torch", compile=True)
    assert predictor.describe()["note"] == ""
    _check(predictor, student)


def test_compile_without_a_compiler_says_so(student, monkeypatch, caplog):
    def broken(network):
        def fail(_):
            raise RuntimeError("no C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    predictor = _predictor(student, backend="torch", compile=True)
    assert "no C++ compiler" in predictor.describe()["note"]
    _check(predictor, student)


def test_a_bundle_is_run_as_it_was_written(student, tmp_path):
    predictor = Predictor(write_bundle(tmp_path / "bundle", student, SPEC), PredictorConfig(device="cpu"))
    assert predictor.classes == CLASSES
    assert len(predictor.version) == 12
    assert predictor.warm_up((96, 128)) > 0
    _check(predictor, student)


def test_batch_equals_single_images(student):
    predictor = _predictor(student, batch_size=3)
    pictures = [_picture(seed)[0] for seed in range(7)]
    for together, rgb in zip(predictor.predict_batch(pictures), pictures):
        alone = predictor.predict(rgb)
        assert (together.mask == alone.mask).mean() >= 0.999
    assert predictor.predict_batch([]) == []


def test_views_read_only_and_given_arrays(student):
    predictor, rgb = _predictor(student), _picture(3)[0]
    expected = predictor.predict(rgb)
    frozen = np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)
    wide = np.zeros((96, 200, 3), np.uint8)
    wide[:, 30:158] = rgb
    out = Prediction(np.empty((96, 128), np.uint8), np.empty((96, 128), np.uint8))
    for image in (frozen, wide[:, 30:158], np.ascontiguousarray(rgb[..., ::-1])[..., ::-1]):
        assert predictor.predict(image, out=out) is out
        np.testing.assert_array_equal(out.mask, expected.mask)
        np.testing.assert_array_equal(out.confidence, expected.confidence)


def test_image_size_may_change_in_mid_stream(student):
    predictor = _predictor(student)
    for size in ((96, 128), (48, 64), (90, 160), (33, 57), (480, 640), (96, 128)):
        prediction = predictor.predict(cv2.resize(_picture(5)[0], size[::-1]))
        assert prediction.mask.shape == prediction.confidence.shape == size
    assert len(predictor._backend._shapes) <= 4


def test_uncertain_pixels_become_255(student):
    rgb = _picture(4)[0]
    plain, strict = _predictor(student).predict(rgb), _predictor(student, confidence_threshold=0.8).predict(rgb)
    uncertain = plain.confidence < round(0.8 * 255)
    assert uncertain.any()
    np.testing.assert_array_equal(strict.mask[uncertain], 255)
    np.testing.assert_array_equal(strict.mask[~uncertain], plain.mask[~uncertain])
    logits = torch.randn(1, 4, 6, 8)
    mask, confidence = decode(logits, (12, 16), 0.5)
    assert ((mask == 255) == (confidence < 128)).all()


def test_memory_stays_where_it_is_after_warm_up(student):
    process, predictor, rgb = psutil.Process(), _predictor(student), _picture(6, 240, 320)[0]
    out = predictor.predict(rgb)
    for _ in range(20):
        predictor.predict(rgb, out=out)
    before = process.memory_info().rss
    for _ in range(300):
        predictor.predict(rgb, out=out)
    assert process.memory_info().rss - before < 4e6


def test_threads_take_turns(student):
    predictor, rgb = _predictor(student), _picture(6)[0]
    expected, wrong = predictor.predict(rgb).mask, []

    def work():
        wrong.extend(not np.array_equal(predictor.predict(rgb).mask, expected) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(wrong) == 30
    assert not any(wrong)


def test_a_model_may_be_loaded_while_another_one_runs(student):
    """As in a hot swap. Exporting is global state in torch, which must not leak into the running predictor."""
    predictor, rgb = _predictor(student), _picture(7)[0]
    expected, failed = predictor.predict(rgb).mask, []

    def load():
        try:
            for _ in range(2):
                _predictor(student, backend="auto").warm_up((96, 128))
        except Exception as error:
            failed.append(error)

    loader = threading.Thread(target=load)
    loader.start()
    rounds = 0
    while loader.is_alive() or rounds < 5:
        rounds += 1
        np.testing.assert_array_equal(predictor.predict(rgb).mask, expected)
    loader.join()
    assert not failed


class _FullDevice:
    """A device that holds ``room`` images."""

    name, device, precision = "torch", "cuda:0", "fp16"

    def __init__(self, room, inner):
        self.room, self.inner, self.closed = room, inner, False

    def segment(self, images, masks, confidences):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.inner.segment(images, masks, confidences)

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("policy", "room"), [("reduce", 2), ("cpu", 2), ("cpu", 0)])
def test_full_device_falls_back_and_says_so(student, caplog, policy, room):
    predictor = _predictor(student, batch_size=7, on_out_of_memory=policy)
    pictures = [_picture(seed)[0] for seed in range(7)]
    expected = predictor.predict_batch(pictures)
    full = _FullDevice(room, predictor._backend)
    predictor._backend = full
    with caplog.at_level(logging.WARNING):
        found = predictor.predict_batch(pictures)
    for a, b in zip(found, expected):
        assert (a.mask == b.mask).mean() >= 0.999
    assert "out of memory" in caplog.text
    assert "out of memory" in predictor.describe()["note"]
    assert (predictor.device == "cpu") == full.closed == (room == 0)


@pytest.mark.parametrize("policy", ["raise", "reduce"])
def test_full_device_without_a_way_out(student, policy):
    predictor = _predictor(student, on_out_of_memory=policy)
    predictor._backend = _FullDevice(0, None)
    with pytest.raises(MemoryError, match="smaller input_size or batch_size"):
        predictor.predict(_picture(0)[0])


def test_runtime_that_disagrees_is_not_used(student, monkeypatch, caplog):
    pytest.importorskip("onnxruntime")
    from deal_ros.students import predictor as module

    monkeypatch.setattr(module, "mask_agreement", lambda *_: 0.5)
    predictor = _predictor(student)
    assert predictor.backend == "torch"
    assert "50.00 %" in caplog.text


def test_without_onnxruntime_torch_is_used(student, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert _predictor(student).backend == "torch"
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        Predictor.from_student(student, SPEC, PredictorConfig(device="cpu", backend="onnxruntime"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:99"}, "device must be there"),
        ({"device": "toaster"}, "device must be there"),
        ({"device": "cpu", "backend": "torch", "precision": "fp16"}, "fp32 or bf16 on the CPU"),
        ({"device": "cpu", "backend": "onnxruntime", "providers": ("Abacus",)}, "got Abacus"),
    ],
)
def test_what_is_not_there_is_named(student, arguments, message):
    with pytest.raises(ValueError, match=message):
        Predictor.from_student(student, SPEC, PredictorConfig(**arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {"confidence_threshold": 2.0},
        {"input_size": (8, 8)},
        {"batch_size": 0},
        {"backend": "onnxruntime", "precision": "bf16"},
    ],
)
def test_impossible_configurations_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        PredictorConfig(**arguments)


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_images_are_refused(student, rgb):
    predictor = _predictor(student, backend="torch")
    with pytest.raises(ValueError, match="rgb must be uint8"):
        predictor.predict(rgb)
    predictor.predict(_picture(0)[0])


def test_closed_predictor_says_so(student):
    predictor = _predictor(student, backend="torch")
    predictor.close()
    predictor.close()
    with pytest.raises(ValueError, match="closed"):
        predictor.predict(_picture(0)[0])


GRIDS = [(15, (12, 16), (96, 128)), (81, (9, 7), (50, 33)), (3, (1, 5), (4, 9))]


@pytest.mark.parametrize(("classes", "grid", "size"), GRIDS)
@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_cpu_decoder_equals_decode(classes, grid, size, spread):
    torch.manual_seed(classes)
    logits = spread * torch.randn(1, classes, *grid)
    mask, confidence = (array[0].numpy() for array in decode(logits, size, 0.3))
    found = np.empty(size, np.uint8), np.empty(size, np.uint8)
    CpuDecoder(size, 0.3)(logits[0].numpy(), *found)
    assert (found[0] == mask).mean() >= 0.995  # the threshold may fall between two rounded confidences
    assert np.abs(found[1].astype(int) - confidence).max() <= 2
    CpuDecoder(size)(logits[0].numpy(), *found)
    assert (found[0] == decode(logits, size)[0][0].numpy()).mean() >= 0.9999


@pytest.mark.parametrize("seed", range(8))
def test_no_class_that_wins_is_left_out(seed):
    torch.manual_seed(seed)
    logits = F.interpolate(3 * torch.randn(1, 40, 4, 5), size=(12, 16), mode="bilinear")
    logits[:, 10:30] -= 10
    winners = set(np.unique(decode(logits, (120, 160))[0].numpy()))
    kept = set(candidates(logits[0].numpy()))
    assert winners <= kept
    assert len(kept) < 40


def test_folding_keeps_the_function(student):
    example = torch.randn(1, 3, 48, 64)
    folded = fold_batch_norm(student, example)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in student.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(example), student(example), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [((480, 640), (240, 320)), ((240, 320), (240, 320)), ((720, 1280), (208, 368)), ((1000, 100), (880, 80))],
)
def test_network_size_follows_the_camera(image, expected):
    size = network_size(image, (240, 320))
    assert size == expected
    assert size[0] * size[1] == pytest.approx(240 * 320, rel=0.12)
