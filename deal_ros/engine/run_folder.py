# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The folder of one stage: its resolved config, its metrics line by line, its result when it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deal_ros.config import load_yaml
from deal_ros.engine.checkpoint import CheckpointError
from deal_ros.files import json_ready, replace_file, write_json

CONFIG, METRICS, RESULT, LAST, BEST = (
    "config.yaml",
    "metrics.jsonl",
    "result.json",
    "last.safetensors",
    "best.safetensors",
)


class RunFolder:
    """A stage's folder, opened for the settings it is to be run with.

    Args:
        path: made if missing.
        config: plain values (see ``config.to_mapping``); stored as config.yaml and compared on every later start.
        writer: whether this process writes (rank 0); the others only read.

    Raises:
        CheckpointError: if the folder holds a run with other settings.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any], *, writer: bool = True) -> None:
        self.path, self.writer = Path(path), writer
        resolved = json.loads(json.dumps(config))
        stored = self.path / CONFIG
        if stored.exists():
            differing = _differences(load_yaml(stored), resolved)
            if differing:
                raise CheckpointError(
                    f"{self.path}: holds a run with other settings ({'; '.join(differing[:5])});"
                    " choose another --out, or remove the folder"
                )
        elif writer:
            replace_file(stored, yaml.safe_dump(resolved, sort_keys=False))
        self._records: list[dict[str, Any]] = []

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file of the folder."""
        return self.path / name

    def result(self) -> dict[str, Any] | None:
        """Return the stage's result if it is done, else ``None``."""
        return read_result(self.path)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Say that the stage is done. Nothing is written to the folder after this."""
        if self.writer:
            write_json(self.path / RESULT, result)

    def rewind(self, step: int) -> None:
        """Forget the metrics of ``step`` and later ones: a run that was killed repeats them."""
        path = self.path / METRICS
        self._records = [record for record in read_metrics(self.path) if record["step"] < step]
        if self.writer and path.exists():
            replace_file(path, "".join(json.dumps(record) + "\n" for record in self._records))

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; it must have a ``step``."""
        plain = json_ready(record)
        self._records.append(plain)
        if self.writer:
            with (self.path / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain) + "\n")

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the metrics of this run so far."""
        return self._records


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the whole lines of a run's metrics.jsonl; a torn last line is left out."""
    file = Path(path) / METRICS
    records = []
    if file.exists():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records


def read_result(path: str | Path) -> dict[str, Any] | None:
    """Read the result of a finished stage, or ``None``."""
    file = Path(path) / RESULT
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not readable ({error}); remove it to run this stage again") from error


def _differences(stored: Any, wanted: Any, where: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        keys = [*wanted, *(key for key in stored if key not in wanted)]
        return [
            line
            for key in keys
            for line in _differences(stored.get(key), wanted.get(key), f"{where}.{key}" if where else str(key))
        ]
    return [] if stored == wanted else [f"{where}: was {stored}, asked for {wanted}"]
