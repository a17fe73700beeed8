# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Write config/*.yaml and docs/parameters.md from the tables: ``python -m deal_ros.ros.write_tables``; needs no ROS."""

from __future__ import annotations

import json
from pathlib import Path

from deal_ros.ros.tables import CONFIGURE, START, TABLES, Parameter

_WHEN = {START: "at start", CONFIGURE: "at configure"}
_LICENCE = "SPDX-FileCopyrightText: 2026 deal_ros contributors", "SPDX-License-Identifier: Apache-2.0"


def as_yaml(node: str) -> str:
    """Return the parameter file of ``node``: every row with its default and, above it, what it does and may be."""
    lines = [f"# {line}" for line in _LICENCE]
    lines += [f"# Parameters of the {node} node. Written by python -m deal_ros.ros.write_tables: the defaults, so that"]
    lines += ["# a copy of this file is a start for your own.", "/**:", "  ros__parameters:"]
    for row in TABLES[node]:
        value = row.default
        if row.default == ():
            lines.append(f"    # {row.description} {_allowed(row)}")
            lines.append(
                f"    # {row.name}: {json.dumps(list(row.example))}"
            )  # rcl refuses an empty list: it has no type
            continue
        lines.append(f"    # {row.description} {_allowed(row)}")
        lines.append(f"    {row.name}: {json.dumps(list(value) if isinstance(value, tuple) else value)}")
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """All tables for the documentation."""
    lines = ["# Parameters", "", "Written by `python -m deal_ros.ros.write_tables`; a test compares it with the nodes."]
    lines += ["*at start*: fixed when the process starts. *at configure*: refused while the node is configured."]
    for node, table in TABLES.items():
        lines += ["", f"## {node}", "", "| name | default | allowed | changes | meaning |", "|---|---|---|---|---|"]
        for row in table:
            default = json.dumps(list(row.default) if isinstance(row.default, tuple) else row.default)
            cells = f"`{row.name}`", f"`{default}`", _allowed(row), _WHEN.get(row.changes, "live"), row.description
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _allowed(row: Parameter) -> str:
    if row.choices:
        return " or ".join(row.choices)
    if row.range is not None:
        return f"{row.range[0]:.15g} to {row.range[1]:.15g}"
    return {bool: "true or false", str: "text", list: "list of texts"}[row.kind]


def main() -> None:
    """Write the files of the checkout that this module lies in."""
    root = Path(__file__).parents[2]
    for node in TABLES:
        (root / "config" / f"{node}.yaml").write_text(as_yaml(node), encoding="utf-8")
    (root / "docs" / "parameters.md").write_text(as_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
