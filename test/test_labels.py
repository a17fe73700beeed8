# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest

from deal_ros.labels import LabelError, check_class_name, label_text, parse_labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("milk, ketchup", {"milk", "ketchup"}),
        (" milk ", {"milk"}),
        ("nothing", set()),
        (" Nothing\n", set()),
        ("", None),
        ("  ", None),
    ],
)
def test_what_is_in_view_nothing_and_nobody_says_are_three_things(text, labels):
    parsed = parse_labels(text)
    assert parsed == labels
    assert parse_labels(label_text(parsed)) == labels


@pytest.mark.parametrize("text", ["milk,, ketchup", "../etc", "milk, nothing", "Background", "x" * 20_000])
def test_texts_that_cannot_be_meant_are_refused(text):
    with pytest.raises(LabelError):
        parse_labels(text)


def test_a_name_outside_the_known_ones_is_refused_with_them():
    with pytest.raises(LabelError, match="unknown class mlik; known: milk, ketchup"):
        parse_labels("mlik", ["milk", "ketchup"])


@pytest.mark.parametrize("name", ["background", "nothing", "Nothing "])
def test_reserved_names_are_no_classes(name):
    with pytest.raises(LabelError, match="reserved"):
        check_class_name(name)
