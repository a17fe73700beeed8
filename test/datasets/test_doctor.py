# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

from deal_ros.datasets import DatasetError, SampleStore
from deal_ros.datasets.doctor import CheckConfig, check
from deal_ros.datasets.miniature import MINIATURES, miniature_sample, write_coco, write_voc
from deal_ros.datasets.registration import EdgeAgreement
from deal_ros.datasets.sheet import sample_sheet

CLASSES = ("milk", "ketchup")
SIZE = (120, 160)


def draw(number, kind=None):
    kind = 1 + number % 2 if kind is None else kind
    return dataclasses.replace(miniature_sample([kind], CLASSES, seed=number, size=SIZE), stamp_ns=1000 + number)


def write(path, samples, classes=CLASSES, sequence="one"):
    with SampleStore.create(path, classes, image_format="png") as store:
        for sample in samples:
            store.append(sample, sequence=sequence)
    return path


def codes(report, severity=None):
    return {f.code for f in report.findings if severity in (None, f.severity)}


@pytest.fixture(scope="module")
def healthy():
    return [draw(number) for number in range(12)]


@pytest.mark.parametrize("layout", ["store", "coco", "bop"])
def test_every_layout_in_good_order_is_healthy(layout, tmp_path):
    report = check(MINIATURES[layout](tmp_path / "data"))
    assert report.healthy, report.to_text()
    assert report.layout == layout
    assert sum(part["samples"] for part in report.parts.values()) > 8
    json.dumps(report.to_mapping(), allow_nan=False)


def test_splits_of_voc_are_looked_at_and_missing_classes_named(tmp_path):
    report = check(write_voc(tmp_path))
    assert set(report.parts) == {"trainaug", "val"}
    assert codes(report, "fault") == {"class-without-samples"}  # 4 of the 20 classes are drawn
    assert codes(report, "note") == {"class-without-samples"}  # val cannot judge what it has not: no fault
    assert "sofa" not in report.findings[0].examples
    assert report.findings[0].count == 16
    alone = check(tmp_path / "VOC2012", options={"split": "val", "depth_kind": "none"})
    assert set(alone.parts) == {""}
    assert "depth-all-zero" in codes(alone, "fault")


def test_damaged_and_missing_files_are_counted_and_the_rest_is_still_checked(tmp_path, healthy):
    path = write(tmp_path / "store", healthy)
    (sorted((path / "rgb").iterdir())[3]).write_bytes(b"\x89PNG\r\n\x1a\n torn")
    (sorted((path / "depth").iterdir())[5]).unlink()
    report = check(path)
    (finding,) = [f for f in report.findings if f.severity == "fault"]
    assert (finding.code, finding.count) == ("unreadable", 2)
    assert "00000003" in finding.examples[0]
    assert report.parts[""]["decoded"] == 12


def test_sizes_that_differ_are_told_from_damage(tmp_path):
    root = write_voc(tmp_path)
    path = root / "depth" / "2007_000001.png"
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[::2, ::2])
    report = check(root, options={"split": "train"})
    (finding,) = [f for f in report.findings if f.code == "size-mismatch"]
    assert finding.count == 1
    assert "2007_000001.png: depth must have the size of its image" in finding.examples[0]


def test_depth_faults(tmp_path, healthy):
    cases = {
        "depth-all-zero": lambda d, i: d * (i != 4),
        "depth-mostly-invalid": lambda d, i: np.where(np.arange(d.shape[1]) < 30, d, 0),
        "depth-unit": lambda d, i: d * 0.01,
        "depth-flat": lambda d, i: np.where(d > 0, 0.8, 0) if i == 2 else d,
    }
    for code, change in cases.items():
        samples = [
            dataclasses.replace(s, depth_m=change(s.depth_m, i).astype(np.float32)) for i, s in enumerate(healthy)
        ]
        report = check(write(tmp_path / code, samples))
        assert code in codes(report, "fault"), report.to_text()
    lenient = CheckConfig(min_valid_depth=0.1)
    assert "depth-mostly-invalid" not in codes(check(tmp_path / "depth-mostly-invalid", lenient))


def moved(depth, x, y):
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(depth, matrix, depth.shape[::-1], flags=cv2.INTER_NEAREST)


def test_depth_beside_colour_is_found_with_its_shift(tmp_path, healthy):
    samples = [dataclasses.replace(s, depth_m=moved(s.depth_m, 9, -5)) for s in healthy]
    report = check(write(tmp_path / "store", samples))
    (finding,) = [f for f in report.findings if f.severity == "fault"]
    assert finding.code == "depth-misregistered"
    assert "moved by (-9, +5) pixels" in finding.message
    assert "align_depth.enable:=true" in finding.message
    shift = report.parts[""]["registration"]["shift_px"]
    np.testing.assert_allclose(shift, [-9, 5], atol=1)


def test_depth_of_other_pictures_is_found(tmp_path, healthy):
    samples = [dataclasses.replace(s, depth_m=healthy[(i + 5) % 12].depth_m) for i, s in enumerate(healthy)]
    report = check(write(tmp_path / "store", samples))
    assert codes(report, "fault") & {"depth-not-registered", "depth-misregistered"}


def test_agreement_of_a_single_hand_made_edge():
    agreement = EdgeAgreement()
    assert agreement.result() is None
    rgb = np.full((240, 320, 3), 90, np.uint8)
    rgb[60:180, 100:220] = 200
    depth = np.full((240, 320), 1.0, np.float32)
    depth[64:184, 106:226] = 0.7  # the square again, 6 right and 4 down
    agreement.add(rgb, depth)
    result = agreement.result()
    assert result.samples == 1
    assert result.shift == (-6.0, -4.0)
    assert result.at_best > result.at_zero
    agreement.add(rgb, np.ones((240, 320), np.float32))  # no edge: says nothing
    assert agreement.result().samples == 1


def test_real_depth_shifts_are_measured():
    data = pytest.importorskip("skimage.data")
    try:
        left, _, disparity = data.stereo_motorcycle()
    except (OSError, ValueError, ImportError) as error:
        pytest.skip(f"scikit-image's stereo pair is not on this machine: {error}")
    known = np.isfinite(disparity) & (disparity > 0)
    # Middlebury 2014 at quarter size: z = f b / (d + doffs), f in pixels and b in metres
    depth = np.where(known, 994.978 * 0.193001 / np.where(known, disparity + 31.086, 1), 0).astype(np.float32)
    shifts = []
    for x, y in ((0, 0), (16, -6), (-30, 0)):
        agreement = EdgeAgreement()
        agreement.add(left, moved(depth, x, y))
        result = agreement.result()
        assert result.at_best > 6
        shifts.append(np.add(result.shift, (x, y)))
    np.testing.assert_allclose(shifts, np.zeros((3, 2)), atol=4)  # of 741 pixels


def test_holes_at_edges_do_not_hide_them(healthy):
    agreement = EdgeAgreement()
    for sample in healthy:
        steps = cv2.dilate(sample.depth_m, np.ones((3, 3))) - cv2.erode(sample.depth_m, np.ones((3, 3))) > 0.03
        agreement.add(sample.rgb, np.where(cv2.dilate(steps.astype(np.uint8), np.ones((5, 5))) > 0, 0, sample.depth_m))
    result = agreement.result()
    assert result.samples == 12
    assert result.at_zero > 6


def test_label_faults(tmp_path, healthy):
    report = check(write(tmp_path / "missing", healthy, classes=("milk", "ketchup", "plate")))
    (finding,) = [f for f in report.findings if f.severity == "fault"]
    assert (finding.code, finding.examples) == ("class-without-samples", ("plate",))
    always = check(write(tmp_path / "always", [draw(number, kind=1) for number in range(12)], classes=("milk",)))
    assert [(f.code, f.examples) for f in always.findings if f.severity == "fault"] == [("class-everywhere", ("milk",))]
    without = dataclasses.replace(draw(20, kind=2), labels=frozenset(), mask=None)
    scene = write(tmp_path / "scene", [*(draw(number, kind=1) for number in range(12)), without], classes=("milk",))
    assert "class-everywhere" not in codes(check(scene))
    nobody = [dataclasses.replace(s, labels=None, mask=None) for s in healthy]
    assert "no-labels" in codes(check(write(tmp_path / "none", nobody)), "fault")
    assert "unlabelled" in codes(check(write(tmp_path / "some", [*healthy, nobody[0]])), "note")
    wrong = [dataclasses.replace(s, labels=frozenset({"milk"})) for s in healthy]
    assert "mask-without-label" in codes(check(write(tmp_path / "wrong", wrong)), "fault")
    beyond = [dataclasses.replace(s, mask=np.where(s.mask == 2, 7, s.mask).astype(np.uint8)) for s in healthy]
    assert "mask-unknown-id" in codes(check(write(tmp_path / "beyond", beyond)), "fault")
    rare = [draw(i, kind=1) for i in range(100, 142)] + [draw(1, kind=2), draw(3, kind=2)]
    rare = [dataclasses.replace(s, stamp_ns=i + 1) for i, s in enumerate(rare)]
    assert "class-imbalance" in codes(check(write(tmp_path / "rare", rare)), "note")


def test_stamps_that_do_not_advance(tmp_path, healthy):
    samples = [*healthy[:6], dataclasses.replace(healthy[6], stamp_ns=healthy[2].stamp_ns), *healthy[7:]]
    report = check(write(tmp_path / "store", samples))
    (finding,) = [f for f in report.findings if f.severity == "fault"]
    assert (finding.code, finding.count) == ("stamp-order", 1)


def test_near_duplicates_are_mentioned(tmp_path, healthy):
    rng = np.random.default_rng(0)
    doubles = [
        dataclasses.replace(
            s,
            rgb=np.clip(s.rgb + rng.normal(0, 3, s.rgb.shape), 0, 255).astype(np.uint8),
            stamp_ns=s.stamp_ns + 5000,
        )
        for s in healthy[:6]
    ]
    report = check(write(tmp_path / "store", [*healthy, *doubles]))
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.count) == ("near-duplicates", "note", 6)
    assert report.healthy


def test_leakage_between_splits(tmp_path, healthy):
    folder = tmp_path / "kitchen"
    write(folder / "train", healthy, sequence="monday")
    write(folder / "val", [draw(i) for i in range(50, 60)], sequence="tuesday")
    report = check(folder)
    assert set(report.parts) == {"train", "val"}
    assert report.healthy, report.to_text()
    leak = [dataclasses.replace(s, stamp_ns=s.stamp_ns + 100) for s in healthy[:3]]
    write(folder / "test", [*leak, *(draw(i) for i in range(70, 78))], sequence="monday")
    report = check(folder)
    found = {f.code: f for f in report.findings if f.severity == "fault" and f.part == "test / train"}
    assert found["leakage-sequence"].examples == ("monday",)
    assert found["leakage-picture"].count == 3
    separate = check([folder / "train", folder / "test"])
    assert {"leakage-sequence", "leakage-picture"} <= codes(separate, "fault")


def test_a_bag_is_checked_as_it_would_be_imported(tmp_path):
    pytest.importorskip("rosbags")
    from bag_writing import DEPTH_TOPIC, LABELS_TOPIC, RGB_TOPIC, SECOND, START, image, text, write_bag
    from image_messages import raw_message

    def messages(depth_lag_ns, label):
        if label:
            yield LABELS_TOPIC, START, text(label)
        for number in range(12):
            sample = draw(number, kind=1)
            stamp = START + (number + 1) * SECOND
            yield RGB_TOPIC, stamp, image(raw_message(sample.rgb, "rgb8"), stamp)
            depth = np.round(sample.depth_m * 1000).astype(np.uint16)
            yield DEPTH_TOPIC, stamp + 1, image(raw_message(depth, "16UC1"), stamp + depth_lag_ns)

    report = check(write_bag(tmp_path / "good", messages(2_000_000, "milk")))
    assert report.layout == "bag"
    assert report.healthy, report.to_text()
    assert report.parts[""]["classes"]["milk"] > 5
    late = check(write_bag(tmp_path / "late", messages(200_000_000, "milk")))
    assert codes(late, "fault") == {"stamp-mismatch", "bag-empty"}
    unlabelled = check(write_bag(tmp_path / "unlabelled", messages(0, None)))
    assert "bag-unlabelled" in codes(unlabelled, "note")
    torn = write_bag(tmp_path / "torn", messages(0, "milk"))
    file = next(torn.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    halved = write_bag(tmp_path / "halved", messages(0, "milk"), "sqlite3")
    file_of_halved = next(halved.glob("*.db3"))
    file_of_halved.write_bytes(file_of_halved.read_bytes()[: file_of_halved.stat().st_size // 2])
    assert "bag-damaged" in codes(check(halved), "fault")
    (finding,) = check(torn).findings  # its only chunk is torn, so that not even its topics are known
    assert (finding.code, finding.severity) == ("bag-unreadable", "fault")
    assert "no colour image topic found" in finding.message


def test_only_so_many_samples_are_decoded_but_all_labels_counted(tmp_path, healthy):
    report = check(write(tmp_path / "store", healthy), CheckConfig(max_samples=5))
    assert report.parts[""]["decoded"] == 5
    assert report.parts[""]["samples"] == sum(report.parts[""]["classes"].values()) == 12


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no data set that is known"):
        check(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        check(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="nothing to check"):
        check([])
    with pytest.raises(ValueError, match="max_samples must be >= 0"):
        CheckConfig(max_samples=-1)
    with pytest.raises(ValueError, match="nearest_m must be in"):
        CheckConfig(nearest_m=2, farthest_m=1)


def test_a_broken_layout_is_an_error_with_its_file(tmp_path):
    root = write_coco(tmp_path / "coco")
    shutil.rmtree(root / "images" / "val2014")
    with pytest.raises(DatasetError, match="images/val2014: images are missing"):
        check(root)


def test_the_sheet_shows_samples_of_any_size(tmp_path, healthy):
    kept = []
    check(write(tmp_path / "store", healthy), keep=kept)
    assert len(kept) == 8
    other = miniature_sample([1], CLASSES, seed=5, size=(90, 60))
    sheet = sample_sheet([*kept, ("other", dataclasses.replace(other, mask=None, labels=None))], tile_width=80)
    assert sheet.shape == (22 + 9 * 60, 4 * 80, 3)
    assert sheet.dtype == np.uint8
