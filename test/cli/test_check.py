# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json

import cv2
import pytest

from deal_ros.cli import main
from deal_ros.datasets.miniature import write_store, write_voc


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("check") / "store")


def test_a_healthy_store_ends_with_0_and_a_sheet(store, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["check", str(store), "--sheet", str(sheet), "--progress", "none"]) == 0
    out = capsys.readouterr().out
    assert "16 samples, 2 of 2 classes" in out
    assert out.endswith("healthy\n")
    assert cv2.imread(str(sheet)).shape[1] == 4 * 260


def test_faults_end_with_1_and_json_for_programs(tmp_path, capsys):
    root = write_voc(tmp_path)
    assert main(["check", str(root), "--json", "--option", "split=val", "--option", "depth_kind=none"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is False
    assert report["layout"] == "voc"
    assert "depth-all-zero" in {finding["code"] for finding in report["findings"]}


def test_wrong_use_ends_with_2_and_unknown_data_with_1(store, tmp_path, capsys):
    assert main(["check"]) == 2
    assert main(["check", str(store), "--option", "split"]) == 2
    assert "--option must be KEY=VALUE" in capsys.readouterr().err
    assert main(["check", str(store), "--samples", "-1"]) == 2
    assert main(["check", str(tmp_path)]) == 1
    assert "no data set that is known" in capsys.readouterr().err
    assert main(["check", str(store), "--option", "split=val"]) == 1
    assert "store data has no option split" in capsys.readouterr().err
