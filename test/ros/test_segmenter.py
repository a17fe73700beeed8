# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The segmenter as a process, over real DDS, with real (tiny) bundles."""

import json
import shutil
import time

import cv2
import numpy as np
import pytest
import torch
from ros_graph import BEST_EFFORT, LATCHED, Camera, counted
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String
from torch import nn

from deal_ros.ros import convert
from deal_ros.students import BundleSpec, create_student, write_bundle

CLASSES = ("milk", "ketchup", "butter")


def constant_bundle(folder, class_id, classes=CLASSES):
    """A bundle of the real architecture whose last layer always says ``class_id``: its masks tell who made them."""
    torch.manual_seed(0)
    student = create_student("light", len(classes), weights="none", encoder="mobilenetv3_small_050", channels=16).eval()
    last = [m for m in student.modules() if isinstance(m, nn.Conv2d) and m.out_channels == len(classes) + 1][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[class_id] = 6.0
    return write_bundle(folder, student, BundleSpec(classes=classes, input_size=(64, 96)))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for class_id in (1, 2, 3):
        constant_bundle(folder / f"always_{class_id}", class_id)
    return folder


def start(graph, bundles, model="always_1", **parameters):
    options = {"models_folder": str(bundles), "device": "cpu", "backend": "torch", "threads": 1, **parameters}
    return graph.start("segmenter", model=str(bundles / model) if model else "", **options)


def ids(message):
    return set(np.unique(np.frombuffer(message.data, np.uint8)).tolist())


def test_masks_carry_the_images_header_and_every_frame_is_accounted_for(graph, bundles):
    node = start(graph, bundles)
    masks, _ = graph.record(Image, "segmentation/mask")
    confidences, _ = graph.record(Image, "segmentation/confidence")
    camera = Camera(graph, size=(48, 96), qos=BEST_EFFORT).run(rate_hz=15)
    graph.wait(lambda: len(masks) > 20 and len(confidences) > 5, "masks")
    camera.stop()
    time.sleep(1.5)
    assert set(counted(masks)) <= set(camera.stamps)
    assert max(counted(masks).values()) == 1
    assert (masks[0].height, masks[0].width, masks[0].encoding, masks[0].step) == (48, 96, "mono8", 96)
    assert masks[0].header.frame_id == "camera_optical"
    assert ids(masks[0]) == {1}
    assert min(confidences[0].data) > 200
    values = graph.status(node)["values"]
    dropped = sum(int(part.split(": ")[1]) for part in values["frames dropped"].split(", "))
    assert int(values["frames received"]) == int(values["frames masked"]) + dropped
    assert int(values["frames masked"]) >= len(masks)
    assert float(values["latency p95 ms"]) < 1000
    assert values["classes"] == "milk, ketchup, butter"
    assert {"latency p50 ms", "inference p50 ms", "inference p95 ms", "GPU memory MB", "model version"} <= set(values)


def test_swaps_under_load_between_two_frames_and_refuses_what_is_broken(graph, bundles, tmp_path):
    bundles = shutil.copytree(bundles, tmp_path / "models")  # they are changed below
    node = start(graph, bundles)
    torn = bundles / "torn"
    shutil.copytree(bundles / "always_3", torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    outside = constant_bundle(tmp_path / "outside", 3)
    (bundles / "link").symlink_to(outside)
    masks, _ = graph.record(Image, "segmentation/mask")
    model = graph.latched("model")
    camera = Camera(graph, size=(48, 96)).run(rate_hz=30)
    graph.wait(lambda: len(masks) > 10, "masks")
    first = graph.status(node)["values"]["model version"]

    refusals = {
        str(torn): "refused",
        str(outside): "leads out of",
        str(bundles / "link"): "leads out of",
        "../../etc": "leads out of",
        "missing": "refused",
        "bad\nname": "printable",
        "x" * 100_000: "printable",
    }
    for path, reason in refusals.items():
        seen = len(node.text())
        model.publish(String(data=path))
        graph.wait(lambda reason=reason, seen=seen: reason in node.text()[seen:], f"{path[:50]} refused")
    assert ids(masks[-1]) == {1}
    graph.wait(lambda: "refused" in graph.status(node)["message"], "the reason in diagnostics")
    assert graph.status(node)["level"] == 1

    model.publish(String(data="always_2"))
    graph.wait(lambda: ids(masks[-1]) == {2}, "masks of the new model")
    graph.wait(lambda: graph.status(node)["values"]["model version"] != first, "its version in diagnostics")
    frames = len(masks) + 15
    graph.wait(lambda: len(masks) > frames, "masks go on")
    camera.stop()
    assert [sorted(ids(m)) for m in masks] == sorted(sorted(ids(m)) for m in masks)  # 1…1 2…2: no mixed, none back
    stamps = [m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in masks]
    assert stamps == sorted(stamps)
    # A rewritten bundle is taken up by ~/reload.
    shutil.rmtree(bundles / "always_2")
    constant_bundle(bundles / "always_2", 3)
    assert graph.trigger("segmenter/reload").success
    camera.run(rate_hz=10)
    graph.wait(lambda: ids(masks[-1]) == {3}, "masks of the reloaded model")
    camera.stop()
    assert node.process.poll() is None


def test_pictures_and_cloud_are_made_while_somebody_listens(graph, bundles):
    start(graph, bundles)
    camera = Camera(graph, size=(48, 96)).run(rate_hz=15)
    color, _ = graph.record(Image, "segmentation/color")
    overlay, _ = graph.record(Image, "segmentation/overlay")
    masks, _ = graph.record(Image, "segmentation/mask")
    clouds, _ = graph.record(PointCloud2, "segmentation/points", BEST_EFFORT)
    graph.wait(lambda: color and overlay and clouds, "colour, overlay and points")
    camera.stop()
    assert color[0].encoding == overlay[0].encoding == "rgb8"
    assert len(color[0].data) == 48 * 96 * 3
    cloud = clouds[0]
    assert (cloud.height, cloud.width, cloud.is_dense) == (48, 96, False)
    kind = np.dtype(
        {
            "names": ["x", "y", "z", "label"],
            "formats": ["<f4", "<f4", "<f4", "u1"],
            "offsets": [0, 4, 8, 16],
            "itemsize": 20,
        }
    )
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb", "label", "confidence"]
    points = np.frombuffer(cloud.data, kind).reshape(48, 96)
    assert points["z"][0, 0] == pytest.approx(0.5)
    assert points["x"][0, 50] == pytest.approx((50 - 0) / 50 * 0.5)  # the test camera has cx = 0 and f = 50
    assert set(np.unique(points["label"])) == {1}
    assert counted(clouds).keys() <= set(camera.stamps)
    graph.wait(lambda: counted(overlay).keys() <= counted(masks).keys(), "the mask of each picture")
    assert max(counted(overlay).values()) == max(counted(clouds).values()) == 1


def test_frames_that_are_all_refused_are_no_silence(graph, bundles):
    node = start(graph, bundles)
    camera = Camera(graph, size=(48, 96))
    masks, _ = graph.record(Image, "segmentation/mask")
    foreign = Image(height=48, width=96, encoding="nv24", step=96, data=bytes(3 * 48 * 96))

    def refused():
        foreign.header = convert.make_header(time.time_ns(), "camera_optical")
        camera.send(rgb=foreign)
        time.sleep(0.05)
        return "got 'nv24'" in graph.status(node)["message"]

    graph.wait(refused, "the reason in the diagnostics")
    assert graph.status(node)["level"] == 1
    camera.run(rate_hz=10)
    graph.wait(lambda: masks and graph.status(node)["message"] == "fine", "a good frame mends it")


def test_a_cloud_that_nobody_gets_is_explained(graph, bundles):
    node = start(graph, bundles, input_timeout_s=1.0)
    camera = Camera(graph, size=(48, 96))
    graph.node.destroy_publisher(camera.info)
    camera.info = graph.node.create_publisher(CameraInfo, "elsewhere", 1)
    graph.record(PointCloud2, "segmentation/points", BEST_EFFORT)
    camera.run(rate_hz=10)
    graph.wait(lambda: "no points: they need a calibrated camera's info" in graph.status(node)["message"], "no info")
    assert "rgb/camera_info: 0.0 Hz, no publisher" in graph.status(node)["message"]
    camera.destroy()
    camera = Camera(graph, size=(48, 96)).run(rate_hz=10, offset_ns=50_000_000)
    graph.wait(lambda: "no points: no depth within slop_ms" in graph.status(node)["message"], "no depth of that time")
    camera.destroy()
    camera = Camera(graph, size=(48, 96)).run(rate_hz=10, info_size=(48, 48))
    graph.wait(lambda: "is of 48 x 48 pixels, colour has 96 x 48" in graph.status(node)["message"], "another size")
    camera.destroy()
    camera = Camera(graph, size=(48, 96)).run(rate_hz=10)
    graph.wait(lambda: graph.status(node)["message"] == "fine", "a cloud")


def test_frames_count_as_offered_only_while_a_model_could_segment_them(graph, bundles):
    """Else the trainer would halt the very training that makes the first model, see min_inference_rate_hz."""
    node = start(graph, bundles, model="")
    Camera(graph, size=(48, 96)).run(rate_hz=10)
    values = graph.wait(
        lambda: (v := graph.status(node)["values"]) and int(v.get("frames received", 0)) > 20 and v, "frames"
    )
    assert values["frames per second"] == "0"
    graph.latched("model").publish(String(data="always_2"))
    graph.wait(lambda: float(graph.status(node)["values"]["frames per second"]) > 5, "a model")
    assert graph.enable("segmenter/enable", False).success
    graph.wait(lambda: graph.status(node)["values"]["frames per second"] == "0", "a halt")


def test_encodings_sizes_and_broken_images_in_mid_stream(graph, bundles):
    node = start(graph, bundles, rgb_transport="compressed")
    compressed = graph.node.create_publisher(CompressedImage, "rgb/image/compressed", BEST_EFFORT)
    masks, _ = graph.record(Image, "segmentation/mask")
    graph.wait(lambda: compressed.get_subscription_count(), "subscription")
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)

    def send(data, kind="jpeg"):
        header = convert.make_header(time.time_ns(), "camera")
        compressed.publish(CompressedImage(header=header, format=f"rgb8; {kind} compressed bgr8", data=data))

    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    for data, size in ((jpeg, (60, 80)), (cv2.imencode(".png", picture[:40])[1].tobytes(), (40, 80))):
        masks.clear()

        def arrived(data=data):
            send(data)
            time.sleep(0.1)
            return masks

        graph.wait(arrived, "a mask")
        assert (masks[-1].height, masks[-1].width) == size
    for data in (b"", b"nonsense", jpeg[:50], jpeg[: len(jpeg) // 2], bytes(100)):
        send(data)
        time.sleep(0.1)
    masks.clear()
    graph.wait(arrived, "a mask after the broken ones")
    graph.wait(lambda: "bad_image" in graph.status(node)["values"]["frames dropped"], "broken images are counted")


def test_uncertain_pixels_become_255_and_parameters_are_refused_with_the_reason(graph, bundles):
    node = start(graph, bundles)
    masks, _ = graph.record(Image, "segmentation/mask")
    camera = Camera(graph, size=(48, 96)).run(rate_hz=15)
    graph.wait(lambda: masks, "masks")
    results = graph.set(
        node, min_confidence=1.0, smoothing=1.5, device="cuda", autostart=False, slop_ms="soon", output_depth=3
    )
    assert results["min_confidence"].successful
    assert {name for name, result in results.items() if not result.successful} == set(results) - {"min_confidence"}
    assert "0.95" in results["smoothing"].reason
    assert "deactivate and clean up first" in results["device"].reason
    assert "read-only" in results["autostart"].reason or "restart" in results["autostart"].reason
    graph.wait(lambda: ids(masks[-1]) == {255}, "unlabelled masks")
    assert graph.set(node, min_confidence=0.0, smoothing=0.5)["smoothing"].successful
    graph.wait(lambda: ids(masks[-1]) == {1}, "masks again")
    assert graph.enable("segmenter/enable", False).success
    camera.stop()


def test_twice_round_the_lifecycle_without_a_leak_then_ends_in_time(graph, bundles):
    node = start(graph, bundles)
    masks, _ = graph.record(Image, "segmentation/mask")
    camera = Camera(graph, size=(48, 96)).run(rate_hz=15)
    figures = []
    for _ in range(3):
        masks.clear()
        graph.wait(lambda: len(masks) > 3, "masks")
        at = time.monotonic()
        graph.wait(lambda at=at: graph.status(node).get("at", 0) > at + 1.0, "fresh diagnostics")
        figures.append({key: float(graph.status(node)["values"][key]) for key in ("threads", "descriptors")})
        assert graph.change_state(node, "deactivate")
        assert graph.state(node) == "inactive"
        masks.clear()
        assert graph.change_state(node, "cleanup")
        time.sleep(0.3)
        assert not masks
        assert graph.change_state(node, "configure")
        assert graph.change_state(node, "activate")
    assert figures[2]["threads"] <= figures[0]["threads"]
    assert figures[2]["descriptors"] <= figures[0]["descriptors"] + 1
    camera.stop()
    code, seconds = node.stop()
    assert code == 0, node.text()
    assert seconds < 2.0


def test_a_missing_model_is_named_and_the_node_waits_to_be_configured(graph, bundles):
    node = start_unready = graph.start("segmenter", wait="unconfigured", model=str(bundles / "nothing"))
    graph.wait(lambda: "nothing" in graph.status(node)["message"], "the path in diagnostics")
    assert "Traceback" in start_unready.text()
    assert graph.set(node, model=str(bundles / "always_1"))["model"].successful
    assert graph.change_state(node, "configure")
    assert graph.change_state(node, "activate")
    assert graph.state(node) == "active"


@pytest.mark.parametrize(
    ("trained", "model", "expected"),
    [
        (None, "", 3),  # nothing trained yet: the fallback
        ("always_2", "", 2),  # after a restart, what was learnt
        ("always_2", "always_1", 1),  # what is named goes before it
        ("broken", "", 3),
    ],
)
def test_the_first_model_is_the_named_one_else_the_last_trained_else_the_fallback(
    graph, bundles, tmp_path, trained, model, expected
):
    folder = tmp_path / "models"
    shutil.copytree(bundles, folder)
    if trained:
        (folder / "broken").mkdir()
        (folder / "trainer.json").write_text(json.dumps({"bundle": str(folder / trained), "state": "done"}))
    node = start(graph, folder, model, fallback_model=str(folder / "always_3"))
    masks, _ = graph.record(Image, "segmentation/mask")
    camera = Camera(graph, size=(48, 96)).run(rate_hz=5)
    graph.wait(lambda: masks, "a mask")
    camera.stop()
    assert ids(masks[0]) == {expected}, node.text()
    assert ("cannot be used" in node.text()) == (trained == "broken")


def test_two_robots_in_two_namespaces_do_not_meet(graph, bundles):
    robots = [f"{graph.namespace}/{name}" for name in ("one", "two")]
    nodes = []
    for robot, model in zip(robots, ("always_1", "always_3")):
        options = {"model": str(bundles / model), "device": "cpu", "backend": "torch", "threads": 1}
        nodes.append(graph.start("segmenter", namespace=robot, wait="", **options))
    for node in nodes:
        graph.wait_state(node, "active")
    masks = [graph.record(Image, f"{robot}/segmentation/mask")[0] for robot in robots]
    cameras = [Camera(graph, (48, 96), BEST_EFFORT, f"{robot}/rgb/image", f"{robot}/depth/image") for robot in robots]
    for camera in cameras:
        camera.run(rate_hz=10)
    graph.wait(lambda: all(len(m) > 3 for m in masks), "masks of both")
    assert [ids(m[-1]) for m in masks] == [{1}, {3}]
    for node, camera in zip(nodes, cameras):
        camera.stop()
        code, seconds = node.stop(15)
        assert code == 0
        assert seconds < 2.0


def test_label_info_names_the_ids_for_late_joiners_and_changes_with_the_model(graph, bundles):
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (not on PyPI)")
    start(graph, bundles)
    camera = Camera(graph, size=(48, 96)).run(rate_hz=10)
    masks, _ = graph.record(Image, "segmentation/mask")
    graph.wait(lambda: masks, "masks")
    infos, _ = graph.record(vision.LabelInfo, "segmentation/label_info", LATCHED)
    graph.wait(lambda: infos, "label info after the fact")
    names = {entry.class_id: entry.class_name for entry in infos[-1].class_map}
    assert names == {0: "background", 1: "milk", 2: "ketchup", 3: "butter", 255: "unlabelled"}
    constant_bundle(bundles / "two", 1, classes=("cup", "plate"))
    graph.latched("model").publish(String(data="two"))
    graph.wait(lambda: len(infos) > 1, "label info of the new model")
    assert [entry.class_name for entry in infos[-1].class_map][1:3] == ["cup", "plate"]
    camera.stop()
