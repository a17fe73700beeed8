# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How the long forms end: one JSON object, said and kept, with the commit and the machine that it comes from."""

import json
import os
import platform
from pathlib import Path


def origin() -> dict[str, str]:
    """Commit of the checkout and machine in words."""
    from deal_ros.engine.provenance import commit  # loads torch, which the start of a harness need not wait for

    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return {"commit": commit(), "machine": machine}


def conclude(result: dict, path: Path | None) -> int:
    """Print the result, write it where wanted, and return the exit code: 1 if it has faults."""
    text = json.dumps(result, indent=2)
    print(text)
    if path:
        path.write_text(text + "\n", encoding="utf-8")
    return 1 if result["faults"] else 0
