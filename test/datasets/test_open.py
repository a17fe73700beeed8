# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest

from deal_ros.datasets import (
    BopDataset,
    CocoDataset,
    DatasetError,
    SampleDataset,
    SampleStore,
    VocDataset,
    open_dataset,
    recognize,
)
from deal_ros.datasets.miniature import MINIATURES

KINDS = {"voc": VocDataset, "coco": CocoDataset, "bop": BopDataset, "store": SampleStore, "rendered": SampleStore}


@pytest.mark.parametrize("layout", MINIATURES)
def test_every_layout_is_recognized_and_opened(layout, tmp_path):
    root = MINIATURES[layout](tmp_path / "data")
    dataset = open_dataset(root)
    assert recognize(root) == layout
    assert isinstance(dataset, KINDS[layout])
    assert isinstance(dataset, SampleDataset)
    ids = [dataset.sample_id(i) for i in range(len(dataset))]
    assert len(set(ids)) == len(ids)
    assert all("/" not in name and " " not in name for name in ids)
    assert dataset[0].labels == dataset.labels(0)


def test_options_reach_the_layout_and_unknown_ones_are_refused(tmp_path):
    root = MINIATURES["voc"](tmp_path)
    assert open_dataset(root, split="val").split == "val"
    with pytest.raises(DatasetError, match="voc data has no option side; known: split, depth_folder"):
        open_dataset(root, side="up")
    store = MINIATURES["store"](tmp_path / "store")
    with pytest.raises(DatasetError, match="store data has no option split; known: none"):
        open_dataset(store, split="val")


def test_what_is_no_data_set_is_told_what_one_looks_like(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(DatasetError, match=r"a sample store has store\.json.*`deal import`"):
        open_dataset(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match="must be a folder"):
        open_dataset(tmp_path / "file")
