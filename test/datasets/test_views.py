# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest

from deal_ros.datasets.miniature import miniature_sample
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.views import ForgottenLabels

NAMES = ("milk", "ketchup", "popcorn")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Eight recordings of two frames each; the last one shows milk alone."""
    folder = tmp_path_factory.mktemp("tables")
    store = SampleStore.open_or_create(folder, classes=NAMES)
    for number in range(8):
        shown = NAMES if number < 7 else NAMES[:1]
        for frame in range(2):
            sample = miniature_sample([1 + NAMES.index(name) for name in shown], shown, seed=2 * number + frame)
            store.append(sample, sequence=f"table-{number}")
    store.close()
    return SampleStore.open(folder)


def said(dataset):
    return [(dataset.sequence(i), dataset.labels(i)) for i in range(len(dataset))]


def test_a_name_is_forgotten_for_a_whole_recording_and_never_the_last_one(tables):
    everything, half, one = (said(ForgottenLabels(tables, share)) for share in (0.0, 0.5, 1.0))
    assert everything == said(tables)
    assert all(len(labels) == 1 for _, labels in one)
    assert len({labels for _, labels in one}) > 1, "which one is kept is drawn"
    assert one[-1] == ("table-7", {"milk"})
    counts = [sum(len(labels) for _, labels in frames) for frames in (one, half, everything)]
    assert counts[0] < counts[1] < counts[2]
    for now, before in zip(half, said(tables)):
        assert now[1] <= before[1]
    for sequence, labels in half:
        assert labels == dict(half)[sequence], "frames of a recording say the same"


def test_what_is_decoded_says_what_the_labels_say(tables):
    dataset = ForgottenLabels(tables, 1.0)
    assert dataset[0].labels == dataset.labels(0)
    assert (dataset[0].rgb == tables[0].rgb).all()
    assert said(dataset) == said(ForgottenLabels(tables, 1.0)), "the same for whoever opens the data"


def test_a_share_that_is_none_is_refused(tables):
    with pytest.raises(ValueError, match=r"0\.\.1, got 1\.5"):
        ForgottenLabels(tables, 1.5)
