# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is done with whole sample stores: choose, merge, split, relabel, export, repair.

Stores are never changed under the hands of their readers: merging, splitting and relabelling make new stores, whose
files are hard links to the old ones where the disk allows it (no copy, no re-encoding, no loss). All of it streams.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import io
import os
import random
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import (
    KINDS,
    EncodedSample,
    StoreError,
    encode_png,
    file_name,
    read_image,
)
from deal_ros.datasets.store_index import UNKNOWN_CLASS, Entry
from deal_ros.files import replace_file, replacing, sync_folder
from deal_ros.images import metres_from_units, units_from_metres
from deal_ros.sample import IGNORE_ID

_BATCH = 64
Report = Callable[[int, int], None]
"""Called now and then with samples done and samples in all."""


def select(
    store: SampleStore, *, classes: Iterable[str] = (), sequences: Iterable[str] = (), labelled: bool | None = None
) -> list[int]:
    """Positions of the samples that fit all that is given; looks at the index only.

    Args:
        store: where to look.
        classes: with at least one of these in view.
        sequences: of a recording whose name fits one of these patterns (``kitchen*``).
        labelled: True: with labels (an empty set is a label: none of the classes); False: without.

    Raises:
        StoreError: on an unknown class.
    """
    chosen = np.ones(len(store), bool)
    names, patterns = list(classes), list(sequences)
    unknown = sorted(set(names) - set(store.classes))
    if unknown:
        raise StoreError(f"{store.path}: unknown class {', '.join(unknown)}; known: {', '.join(store.classes)}")
    rows = store.index.rows
    if names:
        chosen &= np.any([store.index.has_label(store.classes.index(name)) for name in names], axis=0)
    if patterns:
        fits = [
            number
            for number, name in enumerate(store.index.sequences)
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]
        chosen &= np.isin(rows["sequence"], fits)
    if labelled is not None:
        chosen &= (rows["labelled"] != 0) == labelled
    return [int(index) for index in np.flatnonzero(chosen)]


def copy_samples(
    source: SampleStore,
    target: SampleStore,
    indices: Iterable[int] | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    report: Report | None = None,
) -> int:
    """Append samples of one store to another; returns how many.

    Args:
        source: where they come from.
        target: open for writing; classes it lacks are appended to its list.
        indices: which ones; all by default.
        rename: new name by old class name; an empty one drops the class: its label goes, its pixels become background.
        report: hears how far it is.

    Raises:
        StoreError: if a sample cannot be read or written. What was copied before stays.
        LabelError: if a new name is unusable.
    """
    names = {name: (rename or {}).get(name, name) for name in source.classes}
    unknown = sorted(set(rename or {}) - set(names))
    if unknown:
        raise StoreError(f"{source.path}: unknown class {', '.join(unknown)}; known: {', '.join(source.classes)}")
    target.add_classes([name for name in names.values() if name])
    table = np.full(256, IGNORE_ID, np.uint8)
    table[0] = 0
    for number, name in enumerate(names.values(), start=1):
        table[number] = target.classes.index(name) + 1 if name else 0
    chosen = list(range(len(source))) if indices is None else list(indices)
    done = 0
    for batch in _batches(iter(chosen)):
        samples = [_carry_over(source, target, source.entry(index), names, table) for index in batch]
        target.append_encoded(samples)
        done += len(batch)
        if report is not None:
            report(done, len(chosen))
    return done


def merge_stores(sources: Sequence[str | Path], out: str | Path, *, report: Report | None = None) -> int:
    """Join stores into a new one (or append to an existing one); returns the number of samples added.

    Samples whose sequence and stamp (without a stamp: whose image) ``out`` has already are passed over, so that a merge
    can be repeated. A new store takes the coarsest depth unit of its sources, in which no reading of theirs is too far.

    Raises:
        StoreError: if a store cannot be read, or a source has a coarser depth unit than an existing ``out``: its far
            readings would be lost.
    """
    if not sources:
        raise StoreError("nothing to merge; name at least one store")
    formats, units = [], []
    for path in sources:
        with SampleStore.open(path) as source:
            formats.append(source.image_format)
            units.append(source.depth_unit_m)
    added = 0
    with SampleStore.open_or_create(out, image_format=formats[0], depth_unit_m=max(units)) as target:
        for path, unit in zip(sources, units):  # all, before anything is copied
            if Path(path).resolve() == target.path.resolve():
                raise StoreError(f"{path}: is both source and target; merge into another folder")
            if unit > target.depth_unit_m:
                raise StoreError(
                    f"{path}: has depth in units of {unit:g} m, {out} of {target.depth_unit_m:g} m,"
                    " where far readings do not fit; merge both into a new store"
                )
        for path in sources:
            with SampleStore.open(path) as source:
                added += copy_samples(source, target, _missing(source, target), report=report)
        target.save_cache()
    return added


def split_sequences(store: SampleStore, parts: Mapping[str, float], seed: int = 0) -> dict[str, list[int]]:
    """Distribute the samples over named parts without ever cutting through a sequence.

    Args:
        store: what to split.
        parts: share of the samples by name, for example ``{"train": 0.8, "val": 0.2}``; scaled to a sum of 1.
        seed: another one gives another distribution.

    Returns:
        Positions by part. Sequences go, in shuffled order, to the part that lacks most.

    Raises:
        StoreError: if a share is not positive or there are fewer sequences than parts.
    """
    if not parts or not all(share > 0 for share in parts.values()):
        raise StoreError(f"parts must have positive shares, got {dict(parts)}; for example train=0.8,val=0.2")
    numbers = store.index.rows["sequence"]
    present, sizes = np.unique(numbers, return_counts=True)
    if len(present) < len(parts):
        raise StoreError(
            f"{store.path}: has {len(present)} sequences, needs at least {len(parts)} to make {', '.join(parts)};"
            " record more, frames of one recording must not be split"
        )
    order = sorted(zip(present.tolist(), sizes.tolist()), key=lambda item: store.index.sequences[item[0]])
    random.Random(seed).shuffle(order)
    wanted = {name: share / sum(parts.values()) * len(store) for name, share in parts.items()}
    having = dict.fromkeys(parts, 0)
    place: dict[int, str] = {}
    for position, (number, size) in enumerate(order):
        empty = [name for name in parts if having[name] == 0]
        needy = empty if len(empty) >= len(order) - position else list(parts)
        name = max(needy, key=lambda part: wanted[part] - having[part])
        having[name] += size
        place[number] = name
    return {
        name: [int(i) for i in np.flatnonzero(np.isin(numbers, [n for n, part in place.items() if part == name]))]
        for name in parts
    }


def export_tar(
    store: SampleStore, out: str | Path, *, samples_per_file: int = 10_000, report: Report | None = None
) -> list[Path]:
    """Write the store as tar files in WebDataset's layout: ``<id>.rgb.jpg``, ``.depth.png``, ``.mask.png``, ``.json``.

    Args:
        store: what to export.
        out: folder to make; the files are called ``00000.tar`` and so on. ``store.json`` goes beside them.
        samples_per_file: a new file begins after so many.
        report: hears how far it is.

    Returns:
        The files.

    Raises:
        StoreError: if a sample cannot be read, or the folder is not empty.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise StoreError(f"{out}: must be an empty folder")
    files = []
    for number, batch in enumerate(_batches(iter(range(len(store))), samples_per_file)):
        path = out / f"{number:05d}.tar"
        with replacing(path, synced=False) as partial, tarfile.open(partial, "w") as archive:
            for index in batch:
                entry = store.entry(index)
                for kind, extension in _files_of(entry):
                    data = _checked(store, kind, entry).read_bytes()
                    _add(archive, f"{entry.id}.{kind}.{extension}", data)
                _add(archive, f"{entry.id}.json", entry.to_line())
                if report is not None:
                    report(index + 1, len(store))
        files.append(path)
    replace_file(out / "store.json", (store.path / "store.json").read_bytes())
    return files


@dataclasses.dataclass(frozen=True)
class RepairReport:
    """What :func:`repair` set aside: files without a line, samples of which a file is missing or damaged, and lines."""

    orphans: tuple[str, ...]
    dropped: tuple[str, ...]
    broken_lines: tuple[str, ...]


def repair(path: str | Path, *, decode: bool = False, report: Report | None = None) -> RepairReport:
    """Look at every file of a store: set aside files without a line, and lines whose files are missing.

    Nothing is deleted: files go to the store's folder ``removed``, the former list of samples beside them.

    Args:
        path: the store; no other process may write to it.
        decode: also decode every image, and drop samples that cannot be.
        report: hears how far it is.

    Raises:
        StoreError: if it cannot be opened, read or written, or names classes that ``store.json`` lacks.
    """
    names: set[str] = set()
    dropped: list[str] = []
    with SampleStore.open(path, writable=True) as store:
        if any(UNKNOWN_CLASS in line for line in store.broken_lines):
            raise StoreError(
                f"{store.path}: samples name classes that store.json lacks ({store.broken_lines[0]}); restore its list"
                " of classes first: nothing has been changed"
            )
        kept = store.path / ".samples.jsonl.new"
        with kept.open("wb") as lines:
            for index in range(len(store)):
                try:
                    entry = store.entry(index)
                    for kind, _ in _files_of(entry):
                        read_image(store.path, kind, entry) if decode else _checked(store, kind, entry)
                except StoreError as error:
                    if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                        raise  # it may be readable again tomorrow
                    dropped.append(str(error))
                    continue
                names.add(entry.id)
                lines.write(entry.to_line())
                if report is not None:
                    report(index + 1, len(store))
            lines.flush()
            os.fsync(lines.fileno())
        broken = store.broken_lines
        removed = store.path / "removed"
        if dropped or broken:
            removed.mkdir(exist_ok=True)
            shutil.copy2(store.path / "samples.jsonl", removed / f"samples.{time.strftime('%Y%m%d-%H%M%S')}.jsonl")
            kept.replace(store.path / "samples.jsonl")
            sync_folder(store.path)
        kept.unlink(missing_ok=True)
        orphans = []
        for kind in KINDS:
            folder = store.path / kind
            for item in sorted(folder.iterdir()) if folder.is_dir() else []:
                if item.stem not in names:
                    (removed / kind).mkdir(parents=True, exist_ok=True)
                    item.replace(removed / kind / item.name)
                    orphans.append(f"{kind}/{item.name}")
    return RepairReport(tuple(orphans), tuple(dropped), broken)


def _carry_over(
    source: SampleStore, target: SampleStore, entry: Entry, names: Mapping[str, str], table: np.ndarray
) -> EncodedSample:
    files: dict[str, tuple[str, bytes | Path]] = {
        kind: (extension, _checked(source, kind, entry)) for kind, extension in _files_of(entry)
    }
    if source.depth_unit_m != target.depth_unit_m:
        metres = metres_from_units(read_image(source.path, "depth", entry), source.depth_unit_m)
        files["depth"] = ("png", encode_png(units_from_metres(metres, target.depth_unit_m)))
    if entry.mask and not np.array_equal(table[: len(names) + 1], np.arange(len(names) + 1)):
        files["mask"] = ("png", encode_png(table[read_image(source.path, "mask", entry)]))
    labels = entry.labels
    return EncodedSample(
        files=files,
        labels=None if labels is None else frozenset(names[name] for name in labels if names[name]),
        camera_matrix=entry.camera_matrix,
        stamp_ns=entry.stamp_ns,
        frame_id=entry.frame_id,
        source=entry.source,
        sequence=entry.sequence,
        size=entry.size,
    )


def _missing(source: SampleStore, target: SampleStore) -> list[int]:
    """Positions of the samples of ``source`` that ``target`` lacks, judged by sequence and stamp, or by image."""

    def keys(store: SampleStore) -> Iterator[tuple[str, int | bytes]]:
        names, rows = store.index.sequences, store.index.rows
        for index, (number, stamp) in enumerate(zip(rows["sequence"].tolist(), rows["stamp"].tolist())):
            yield names[number], stamp or _image_digest(store, store.entry(index))

    there = set(keys(target))
    return [index for index, key in enumerate(keys(source)) if key not in there]


def _image_digest(store: SampleStore, entry: Entry) -> bytes:
    return hashlib.sha256(_checked(store, "rgb", entry).read_bytes()).digest()


def _files_of(entry: Entry) -> list[tuple[str, str]]:
    files = [("rgb", entry.rgb), ("depth", "png")]
    return [*files, ("mask", "png")] if entry.mask else files


def _checked(store: SampleStore, kind: str, entry: Entry) -> Path:
    path = store.path / file_name(kind, entry.id, entry.rgb if kind == "rgb" else "png")
    if path.is_symlink() or not path.is_file():
        raise StoreError(f"{path}: missing; `deal store repair {store.path}` drops such samples")
    return path


def _batches(indices: Iterator[int], size: int = _BATCH) -> Iterator[list[int]]:
    while batch := list(islice(indices, size)):
        yield batch


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    information = tarfile.TarInfo(name)
    information.size = len(data)
    archive.addfile(information, io.BytesIO(data))


def describe(store: SampleStore) -> dict[str, object]:
    """Return what ``deal store info`` says: plain types."""
    rows = store.index.rows
    return {
        "path": str(store.path),
        "samples": len(store),
        "labelled": int((rows["labelled"] != 0).sum()),
        "classes": store.counts(),
        "sequences": {
            name: int(count)
            for name, count in zip(
                store.index.sequences, np.bincount(rows["sequence"], minlength=len(store.index.sequences))
            )
        },
        "depth_unit_m": store.depth_unit_m,
        "image_format": store.image_format,
        "broken_lines": list(store.broken_lines),
    }


def parse_pairs(text: str, what: str) -> dict[str, str]:
    """``a=b,c=d`` → mapping.

    Raises:
        StoreError: if it is not like that.

    Example:
        >>> parse_pairs("train=0.8,val=0.2", "parts")
        {'train': '0.8', 'val': '0.2'}
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        raise StoreError(f"{what} must be like a=b,c=d, got {text[:80]!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}
