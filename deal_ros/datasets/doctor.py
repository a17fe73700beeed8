# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Doctor: looks through a data set for what would waste a day of training, and says what to do about it.

It knows sample stores, rendered scenes, VOC, COCO, BOP, and ROS bags (which it imports as ``deal import`` would, into a
folder that is removed again). Several stores below one folder, or several paths, are taken as splits of one data set.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.datasets.fingerprints import Fingerprints, near_duplicates, shared_pictures
from deal_ros.datasets.inspection import PartInspection
from deal_ros.datasets.open import open_dataset, recognize
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.views import spread
from deal_ros.sample import Sample

Severity = Literal["fault", "note"]
OnSample = Callable[[int, int], None]
_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """Something that the doctor found.

    Args:
        code: stable name of the kind, for programs: ``unreadable``, ``depth-mostly-invalid``, …
        severity: ``fault`` makes the check fail, ``note`` is worth knowing.
        part: of the data set: a split, or empty for the whole.
        message: what it is and what to do.
        count: samples (or pairs) concerned.
        examples: up to five ids or messages.
    """

    code: str
    severity: Severity
    part: str
    message: str
    count: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckConfig:
    """How thorough, and where notes become faults.

    Args:
        max_samples: samples decoded per part, evenly spread; 0 decodes all.
        min_valid_depth: a part whose median share of valid depth is below this is at fault.
        nearest_m, farthest_m: median depths outside this range, in metres, mean a wrong unit.
        max_duplicates: share of near duplicates within a sequence above which it is mentioned.

    Raises:
        ValueError: if a field is out of range.
    """

    max_samples: int = 2000
    min_valid_depth: float = 0.3
    nearest_m: float = 0.08
    farthest_m: float = 60.0
    max_duplicates: float = 0.2

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.max_samples < 0:
            raise ValueError(f"max_samples must be >= 0, got {self.max_samples}")
        if not 0 <= self.min_valid_depth <= 1 or not 0 <= self.max_duplicates <= 1:
            raise ValueError(
                f"min_valid_depth and max_duplicates must be in 0..1, got {self.min_valid_depth}, {self.max_duplicates}"
            )
        if not 0 < self.nearest_m < self.farthest_m:
            raise ValueError(f"nearest_m must be in 0..farthest_m, got {self.nearest_m} and {self.farthest_m}")


@dataclass
class CheckReport:
    """The doctor's report.

    Args:
        path: what was looked at.
        layout: ``store``, ``rendered``, ``voc``, ``coco``, ``bop``, ``bag``.
        parts: figures per part: samples, decoded, classes, depth.
        findings: faults first.
    """

    path: str
    layout: str
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether there is no fault; notes are allowed."""
        return all(finding.severity != "fault" for finding in self.findings)

    def to_mapping(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "path": self.path,
            "layout": self.layout,
            "healthy": self.healthy,
            "parts": self.parts,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    def to_text(self) -> str:
        """For people: one line per part, then the findings with examples."""
        lines = [f"{self.path}: {self.layout}"]
        for name, part in self.parts.items():
            depth = part["depth"]
            looked = "" if part["decoded"] == part["samples"] else f" ({part['decoded']} looked at)"
            seen = sum(1 for count in part["classes"].values() if count)
            lines.append(
                f"  {name or 'all'}: {part['samples']} samples{looked}, {seen} of {len(part['classes'])} classes,"
                f" depth {100 * depth['valid']:.0f} % valid, median {depth['median_m']:.2f} m"
            )
        for finding in self.findings:
            where = f" [{finding.part}]" if finding.part else ""
            lines.append(f"{finding.severity.upper()} {finding.code}{where}: {finding.message}")
            lines.extend(f"    {example}" for example in finding.examples)
        lines.append("healthy" if self.healthy else "not fit for training as it is")
        return "\n".join(lines)


def check(
    paths: str | Path | Sequence[str | Path],
    config: CheckConfig = CheckConfig(),
    *,
    options: Mapping[str, Any] | None = None,
    on_sample: OnSample | None = None,
    keep: list[tuple[str, Sample]] | None = None,
) -> CheckReport:
    """Look through a data set.

    Args:
        paths: a data set or a bag, or several that are meant as splits of one.
        config: see :class:`CheckConfig`.
        options: passed to ``open_dataset``, for example ``{"depth_kind": "inverse"}`` or a ``split`` to look at alone.
        on_sample: called with (samples done, samples in all).
        keep: gets (id, sample) of up to eight samples for a contact sheet.

    Raises:
        DatasetError: if there is nothing that is known.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not paths:
        raise DatasetError("nothing to check: name a data set or a bag")
    findings: list[Finding] = []
    with ExitStack() as stack:
        parts: dict[str, SampleDataset] = {}
        layouts: list[str] = []
        for path in paths:
            layout, opened = _open_parts(Path(path), dict(options or {}), config, findings, stack)
            layouts.append(layout)
            for name, dataset in opened.items():
                label = name if len(paths) == 1 else "/".join(filter(None, (str(path), name)))
                parts[label] = dataset
        report = CheckReport(", ".join(map(str, paths)), "+".join(dict.fromkeys(layouts)), findings=findings)
        chosen = {name: spread(range(len(dataset)), config.max_samples) for name, dataset in parts.items()}
        total, done = sum(map(len, chosen.values())), 0
        prints: dict[str, Fingerprints] = {}
        for name, dataset in parts.items():
            inspection, prints[name] = PartInspection(dataset.classes), Fingerprints()
            picked = spread(range(len(chosen[name])), max(1, 8 // len(parts)))
            for position, index in enumerate(chosen[name]):
                sample = inspection.look(dataset, index)
                if sample is not None:
                    prints[name].add(sample.rgb, dataset.sample_id(index), dataset.sequence(index))
                    if keep is not None and position in picked:
                        keep.append((f"{name} {dataset.sample_id(index)}".strip(), sample))
                done += 1
                if on_sample:
                    on_sample(done, total)
            inspection.look_at_all_labels(dataset)
            report.parts[name] = inspection.figures(len(dataset))
            alone = len(parts) == 1 and report.layout != "bag"  # a recording is a part of what will be learnt from
            found = inspection.findings(config, evaluation=_is_evaluation(name), whole=alone)
            findings += [_finding(name, item) for item in found]
            findings += _duplicates(name, prints[name], config)
        findings += _leakage(parts, prints)
    findings.sort(key=lambda finding: (finding.severity != "fault", finding.part, finding.code))
    return report


def _open_parts(
    path: Path, options: dict[str, Any], config: CheckConfig, findings: list[Finding], stack: ExitStack
) -> tuple[str, dict[str, SampleDataset]]:
    layout = recognize(path) if path.is_dir() else None
    if layout is None:
        stores = sorted(p.parent for p in path.glob("*/store.json")) if path.is_dir() else []
        if stores:
            return "store", {folder.name: SampleStore.open(folder) for folder in stores}
        if path.is_file() or _has_bags(path):
            return "bag", _open_bags(path, config, findings, stack)
        return "unknown", {"": open_dataset(path, **options)}  # raises what explains best
    if layout in ("store",) or "split" in options:
        return layout, {"": open_dataset(path, **options)}
    splits = dict(_splits(path, layout, options))
    if not splits:
        splits[""] = open_dataset(path, **options)
    return layout, splits


def _splits(path: Path, layout: str, options: dict[str, Any]) -> Iterator[tuple[str, SampleDataset]]:
    if layout == "rendered":
        for folder in sorted(p.parent for p in path.glob("*/*/store.json")):
            yield str(folder.relative_to(path)), SampleStore.open(folder)
        return
    if layout == "voc":
        lists = {p.stem for base in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012")
                 for p in (base / "ImageSets" / "Segmentation").glob("*.txt")}  # fmt: skip
        names = [str(name) for name in ("train", "trainaug", "val", "test") if name in lists]
        if "trainaug" in names:
            names.remove("train")  # it is contained
    elif layout == "coco":
        names = sorted(p.stem[len("instances_") :] for p in (path / "annotations").glob("instances_*.json"))
    else:
        names = sorted({p.parent.parent.name for p in path.glob("*/*/scene_gt.json")})
    for name in names:
        yield name, open_dataset(path, split=name, **options)


def _has_bags(path: Path) -> bool:
    from deal_ros.datasets.bag import find_bags

    try:
        return path.exists() and bool(find_bags(path))
    except DatasetError:
        return False


def _open_bags(path: Path, config: CheckConfig, findings: list[Finding], stack: ExitStack) -> dict[str, SampleDataset]:
    from deal_ros.datasets.bag import find_bags, import_bag
    from deal_ros.datasets.bag_report import ImportConfig

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deal-check-")))
    settings = ImportConfig(max_samples=config.max_samples)
    parts: dict[str, SampleDataset] = {}
    for number, bag in enumerate(find_bags(path)):
        name = bag.name if bag != path else ""
        store = stack.enter_context(SampleStore.create(folder / str(number), []))
        try:
            report = import_bag(bag, store, settings)
            labelled = report.samples > 0
        except DatasetError:  # no labels topic, unless it is worse: then it raises again below
            labelled = False
        if not labelled:  # look at its pictures all the same
            try:
                report = import_bag(bag, store, dataclasses.replace(settings, label=("unlabelled",)))
            except DatasetError as error:
                findings.append(Finding("bag-unreadable", "fault", name, str(error), 1))
                continue
            message = "nothing is labelled by a labels topic; `deal import` needs --label or --labels"
            findings.append(Finding("bag-unlabelled", "note", name, message))
        for text in report.damage:
            findings.append(Finding("bag-damaged", "fault", name, f"cannot be read to the end: {text}", 1))
        for kind, text in report.problems.items():
            findings.append(Finding("bag-undecodable", "fault", name, f"{kind}: {text}", 1))
        received = max(report.received.values(), default=0)
        if received and report.paired < 0.5 * min(report.received.values()):
            dropped = {stream: dict(reasons) for stream, reasons in report.dropped.items()}
            message = f"only {report.paired} pairs of {report.received} messages; dropped: {dropped}"
            if report.missed_by_ms is not None:
                message += (
                    f"; the nearest miss is {report.missed_by_ms:.1f} ms: raise the slop, or synchronise the camera"
                )
            findings.append(Finding("stamp-mismatch", "fault", name, message, received - report.paired))
        if report.clock_jumps:
            message = f"stamps go back {report.clock_jumps} times: a looped bag, or two recordings in one"
            findings.append(Finding("stamp-jump", "note", name, message, report.clock_jumps))
        if len(store):
            parts[name] = store
        else:
            message = f"no usable RGB-D pair among {report.received or 'no'} messages; frames: {dict(report.frames)}"
            findings.append(Finding("bag-empty", "fault", name, message))
    return parts


def _finding(part: str, item: tuple[str, str, str, list[str]]) -> Finding:
    code, severity, message, examples = item
    level: Severity = "fault" if severity == "fault" else "note"
    return Finding(code, level, part, message, len(examples), tuple(examples[:_EXAMPLES]))


def _duplicates(part: str, prints: Fingerprints, config: CheckConfig) -> list[Finding]:
    pairs = near_duplicates(prints)
    doubled = len({second for _, second in pairs})
    if not doubled or doubled <= config.max_duplicates * len(prints):
        return []
    message = (
        f"{doubled} of {len(prints)} pictures nearly repeat another of their part: the robot stood still;"
        " raise the collector's min_view_change or thin them out"
    )
    return [
        Finding("near-duplicates", "note", part, message, doubled, tuple(f"{a} = {b}" for a, b in pairs[:_EXAMPLES]))
    ]


def _leakage(parts: Mapping[str, SampleDataset], prints: Mapping[str, Fingerprints]) -> list[Finding]:
    findings = []
    names = list(parts)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            if _is_training(first) and _is_training(second):
                continue
            pair = f"{first} / {second}"
            shared = sorted(prints[first].sequences & prints[second].sequences)
            if shared:
                message = "a sequence lies in both parts; split by sequence, never by frame"
                findings.append(
                    Finding("leakage-sequence", "fault", pair, message, len(shared), tuple(shared[:_EXAMPLES]))
                )
            doubles = shared_pictures(prints[first], prints[second])
            if doubles:
                message = "pictures of one part nearly repeat in the other; results on it would mean nothing"
                examples = tuple(f"{a} = {b}" for a, b in doubles[:_EXAMPLES])
                findings.append(Finding("leakage-picture", "fault", pair, message, len(doubles), examples))
    return findings


def _is_training(name: str) -> bool:
    return _last(name).startswith(("train", "onboarding"))


def _is_evaluation(name: str) -> bool:
    return _last(name).startswith(("val", "test", "dev", "eval"))


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
