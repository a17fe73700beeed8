# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How recordings are imported, what became of each, and the note in the store that says which are in it already."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deal_ros.config import load_yaml
from deal_ros.datasets.bag_reader import Bag
from deal_ros.datasets.bag_topics import BagTopics
from deal_ros.datasets.keyframes import KeyframeConfig
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import StoreError
from deal_ros.datasets.store_recovery import explain
from deal_ros.files import write_json
from deal_ros.pairing import PairingConfig

_REPORTS = "imports"


@dataclass(frozen=True)
class ImportConfig:
    """How recordings are imported.

    Args:
        topics: topics that are known; the others are found.
        label: class names that hold for whole recordings, empty if no class is in view; ``None``: see ``labels_file``.
        labels_file: YAML of intervals (see :mod:`deal_ros.datasets.bag_labels`); empty: the labels topic.
        pairing: as in the collector.
        keyframes: as in the collector.
        max_samples: stop a recording after so many samples; 0 takes all.
    """

    topics: BagTopics = field(default_factory=BagTopics)
    label: tuple[str, ...] | None = None
    labels_file: str = ""
    pairing: PairingConfig = field(default_factory=PairingConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    max_samples: int = 0

    def __post_init__(self) -> None:
        """Check what excludes each other."""
        if self.label is not None and self.labels_file:
            raise ValueError("label and labels_file exclude each other; give one of them")
        if self.max_samples < 0:
            raise ValueError(f"max_samples must be 0 or more, got {self.max_samples}")


@dataclass
class ImportReport:
    """What became of one recording.

    Args:
        bag: its path.
        sequence: the name that its samples bear in the store.
        topics: role → topic that was read.
        received: messages per stream (``rgb``, ``depth``).
        paired: pairs found.
        dropped: per stream, unpaired messages by reason.
        frames: pairs by what became of them: ``stored``, ``already_stored``, or why not.
        offsets_ms: edges of the bins of the histogram of stamp offsets (depth minus colour), in milliseconds.
        offset_counts: pairs per bin.
        samples_per_class: stored and already stored samples by class name.
        damage: where the recording could not be read.
        problems: first message of each kind of problem.
        clock_jumps: times the stamps went back.
        missed_by_ms: smallest offset among frames without a partner, or None.
        complete: False while the import has not come to the recording's end.
        seconds: duration of the import.
    """

    bag: str
    sequence: str
    topics: dict[str, str] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    paired: int = 0
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    frames: Counter[str] = field(default_factory=Counter)
    offsets_ms: list[float] = field(default_factory=list)
    offset_counts: list[int] = field(default_factory=list)
    samples_per_class: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    clock_jumps: int = 0
    missed_by_ms: float | None = None
    complete: bool = False
    seconds: float = 0.0

    @property
    def samples(self) -> int:
        """Return the number of samples of this recording that are in the store."""
        return self.frames["stored"] + self.frames["already_stored"]

    def to_mapping(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {key: dict(value) if isinstance(value, Counter) else value for key, value in vars(self).items()}


def place_in_store(
    store: SampleStore, name: str, start_ns: int, bag: Bag, config: ImportConfig
) -> tuple[str, ImportReport | None]:
    """Return the sequence name of a recording in this store, and its report if it is in there already, whole."""
    known = _read_report(store, name)
    if known is not None and known.get("start_ns") != start_ns:
        name = f"{name}@{start_ns}"  # another recording of that name has been imported before
        known = _read_report(store, name)
    if known is None or any(known.get(key) != value for key, value in _fingerprint(start_ns, bag, config).items()):
        return name, None
    values = known["report"]
    if not values.get("complete") or len(stamps_of_sequence(store, name)) < values.get("frames", {}).get("stored", 0):
        return name, None
    fields = {item.name for item in dataclasses.fields(ImportReport)}
    report = ImportReport(**{key: value for key, value in values.items() if key in fields})
    frames = Counter(report.frames)
    frames["already_stored"] += frames.pop("stored", 0)
    report.frames, report.samples_per_class, report.bag = frames, Counter(report.samples_per_class), str(bag.path)
    return name, report


def _fingerprint(start_ns: int, bag: Bag, config: ImportConfig) -> dict[str, Any]:
    """Return what must be equal for a recording to count as imported."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    if config.labels_file:
        settings["labels_file"] = repr(load_yaml(config.labels_file))
    return {"start_ns": start_ns, "bytes": bag.size_bytes, "settings": settings}


def _read_report(store: SampleStore, name: str) -> dict[str, Any] | None:
    try:
        values = json.loads((store.path / _REPORTS / _file_name(name)).read_bytes())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and isinstance(values.get("report"), dict) else None


def _file_name(sequence: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_@-]", "_", sequence)
    return f"{safe[-100:]}-{zlib.crc32(sequence.encode()):08x}.json"


def write_report(store: SampleStore, report: ImportReport, start_ns: int, bag: Bag, config: ImportConfig) -> None:
    """Note in the store what became of a recording, so that a second import passes it over.

    Raises:
        StoreError: if it cannot be written.
    """
    folder = store.path / _REPORTS
    values = {**_fingerprint(start_ns, bag, config), "report": report.to_mapping()}
    try:
        folder.mkdir(exist_ok=True)
        write_json(folder / _file_name(report.sequence), values)
    except OSError as error:
        raise StoreError(f"{folder}: report not written: {explain(error)}") from error


def stamps_of_sequence(store: SampleStore, sequence: str) -> set[int]:
    """Stamps in nanoseconds of the samples that a sequence has in the store."""
    if sequence not in store.index.sequences:
        return set()
    rows = store.index.rows
    return set(rows["stamp"][rows["sequence"] == store.index.sequences.index(sequence)].tolist())
