# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The tables, and config/*.yaml and docs/parameters.md against them."""

from pathlib import Path

import pytest
import yaml

from deal_ros.ros.tables import TABLES, Parameter, ParameterError, check_value
from deal_ros.ros.write_tables import as_markdown, as_yaml

ROOT = Path(__file__).parents[2]
ROWS = [(node, row) for node, table in TABLES.items() for row in table]


@pytest.mark.parametrize(("node", "row"), ROWS, ids=[f"{node}.{row.name}" for node, row in ROWS])
def test_every_default_is_allowed_and_every_row_is_described(node, row):
    assert check_value(row, row.default) == row.default
    assert row.description.endswith(".")


def test_names_are_unique_in_each_table():
    for table in TABLES.values():
        assert len({row.name for row in table}) == len(table)


@pytest.mark.parametrize("value", [0.0, 61.0, float("nan"), 10, "10", True, None])
def test_a_value_that_is_not_allowed_is_refused_with_what_is(value):
    with pytest.raises(ParameterError, match=r"rate_hz must be a number with a point.* from 0.1 to 60, got"):
        check_value(Parameter("rate_hz", 10.0, "frames.", (0.1, 60.0)), value)


@pytest.mark.parametrize("node", TABLES)
def test_the_yaml_of_each_node_is_its_table(node):
    path = ROOT / "config" / f"{node}.yaml"
    assert path.read_text() == as_yaml(node), "run: python -m deal_ros.ros.write_tables"
    values = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    assert set(values) <= {row.name for row in TABLES[node]}


def test_the_documented_tables_are_the_nodes_tables():
    text = (ROOT / "docs" / "parameters.md").read_text()
    assert text == as_markdown(), "run: python -m deal_ros.ros.write_tables"
