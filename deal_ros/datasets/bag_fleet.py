# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Many recordings: names that tell them apart, and shares for the machines of a fleet."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from deal_ros.datasets.bag_frames import printable
from deal_ros.datasets.bag_reader import BagError


def shard(paths: Sequence[str], environment: dict[str, str] | None = None) -> tuple[list[str], str]:
    """Return the part of ``paths`` that this process of a ``torchrun`` imports, and the name of its store.

    Args:
        paths: the same list in every process.
        environment: with ``RANK`` and ``WORLD_SIZE`` as torchrun sets them; default: ``os.environ``.

    Returns:
        The paths, and ``shard-1-of-4`` or, alone, an empty name.

    Example:
        >>> shard(["a", "b", "c"], {"RANK": "1", "WORLD_SIZE": "2"})
        (['b'], 'shard-1-of-2')
    """
    environment = dict(os.environ) if environment is None else environment
    try:
        rank, world = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise BagError(f"RANK and WORLD_SIZE must be numbers, as torchrun sets them: {error}") from error
    if not 0 <= rank < world:
        raise BagError(f"RANK must be in 0..WORLD_SIZE-1, got {rank} of {world}")
    return list(paths[rank::world]), "" if world == 1 else f"shard-{rank}-of-{world}"


def sequence_names(paths: Sequence[Path]) -> list[str]:
    """Name each recording after its folder, with as many parents as it takes to tell them apart."""
    resolved = [path.resolve() for path in paths]
    depth = 1
    while depth < 6:
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(set(resolved)):
            break
        depth += 1
    return [printable(re.sub(r"\.(mcap|db3)(\.zstd)?$", "", name))[-200:] for name in names] if paths else []
