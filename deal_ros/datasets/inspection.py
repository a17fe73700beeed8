# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the doctor looks for within one part of a data set, sample by sample, in constant memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deal_ros.datasets.base import SampleDataset
from deal_ros.datasets.registration import EdgeAgreement
from deal_ros.sample import IGNORE_ID, Sample

if TYPE_CHECKING:
    from deal_ros.datasets.doctor import CheckConfig

Item = tuple[str, str, str, list[str]]
"""Code, severity, message, ids of the samples concerned."""

_MIN_AGREEMENT = 5.0  # standard deviations above chance; registered depth gives 9 and more from six samples on
_MIN_AGREEMENT_SAMPLES = 10
_SHIFT_SHARE = 0.011  # of the picture's width: 7 pixels of 640
_IMBALANCE = 20


class PartInspection:
    """Gathers figures and faults of one part.

    Args:
        classes: names in id order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._decoded = 0
        self._faults: dict[str, list[str]] = defaultdict(list)
        self._valid: list[float] = []
        self._median_m: list[float] = []
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._labels: Counter[str] = Counter()
        self._unlabelled: list[str] = []
        self._empty: list[str] = []
        self._labelled = 0
        self._last_stamp: dict[str, int] = {}
        self._agreement = EdgeAgreement()

    def look(self, dataset: SampleDataset, index: int) -> Sample | None:
        """Decode and examine a sample; ``None`` if it cannot be read."""
        self._decoded += 1
        try:
            sample = dataset[index]
        except (ValueError, OSError) as error:
            kind = "size-mismatch" if "size" in str(error) and "must have" in str(error) else "unreadable"
            self._faults[kind].append(str(error))
            return None
        name = dataset.sample_id(index)
        self._sizes[sample.size] += 1
        self._look_at_depth(sample, name)
        self._look_at_mask(sample, name)
        self._look_at_stamp(sample, name, dataset.sequence(index))
        return sample

    def look_at_all_labels(self, dataset: SampleDataset) -> None:
        """Count labels, of samples that are not decoded too."""
        for index in range(len(dataset)):
            labels = dataset.labels(index)
            if labels is None:
                self._unlabelled.append(str(index))
            elif not labels:
                self._empty.append(str(index))
            else:
                self._labelled += 1
                self._labels.update(labels)

    def figures(self, samples: int) -> dict[str, Any]:
        """Return samples, classes, sizes, depth and registration in numbers."""
        agreement = self._agreement.result()
        registration = None
        if agreement is not None:
            registration = {
                "samples": agreement.samples,
                "shift_px": [round(value, 1) for value in agreement.shift],
                "agreement": round(agreement.at_zero, 2),
                "best_agreement": round(agreement.at_best, 2),
            }
        return {
            "samples": samples,
            "decoded": self._decoded,
            "classes": {name: self._labels[name] for name in self.classes},
            "unlabelled": len(self._unlabelled),
            "sizes": {f"{height}x{width}": count for (height, width), count in self._sizes.most_common()},
            "depth": {
                "valid": round(float(np.median(self._valid)), 4) if self._valid else 0.0,
                "median_m": round(float(np.median(self._median_m)), 4) if self._median_m else 0.0,
            },
            "registration": registration,
        }

    def findings(self, config: CheckConfig, *, evaluation: bool = False, whole: bool = False) -> list[Item]:
        """All that was found.

        Args:
            config: what counts as a fault.
            evaluation: the part is only judged on; a class that it lacks is no fault.
            whole: nothing else is trained on; a class that is always in view is a fault.
        """
        found: list[Item] = []
        for code, message in _MESSAGES.items():
            if self._faults[code]:
                found.append((code, "fault", message.format(count=len(self._faults[code])), self._faults[code]))
        return (
            found
            + self._label_findings(evaluation, whole)
            + self._depth_findings(config)
            + self._registration_findings()
        )

    def _look_at_depth(self, sample: Sample, name: str) -> None:
        depth = sample.depth_m
        if not np.isfinite(depth).all() or (depth < 0).any():
            self._faults["depth-not-clean"].append(name)
        valid = np.isfinite(depth) & (depth > 0)
        share = float(valid.mean())
        self._valid.append(share)
        if share == 0:
            self._faults["depth-all-zero"].append(name)
            return
        readings = depth[valid]
        self._median_m.append(float(np.median(readings)))
        if readings.size > 100 and float(readings.max() - readings.min()) < 1e-4:
            self._faults["depth-flat"].append(name)
        elif share > 0.05:
            self._agreement.add(sample.rgb, np.where(valid, depth, 0).astype(np.float32))

    def _look_at_mask(self, sample: Sample, name: str) -> None:
        if sample.mask is None:
            return
        ids = [int(i) for i in np.unique(sample.mask) if 0 < i < IGNORE_ID]
        if ids and ids[-1] > len(self.classes):
            self._faults["mask-unknown-id"].append(f"{name}: id {ids[-1]} of {len(self.classes)}")
        elif sample.labels is not None:
            extra = sorted({self.classes[i - 1] for i in ids} - sample.labels)
            if extra:
                self._faults["mask-without-label"].append(f"{name}: {', '.join(extra)}")

    def _look_at_stamp(self, sample: Sample, name: str, sequence: str) -> None:
        if not sample.stamp_ns:
            return
        last = self._last_stamp.get(sequence)
        if last is not None and sample.stamp_ns <= last:
            self._faults["stamp-order"].append(name)
        self._last_stamp[sequence] = max(sample.stamp_ns, last or sample.stamp_ns)

    def _label_findings(self, evaluation: bool, whole: bool) -> list[Item]:
        found: list[Item] = []
        if not self.classes:
            return [("no-classes", "fault", "there are no classes; give labels at import", [])]
        missing = [name for name in self.classes if not self._labels[name]]
        if len(missing) == len(self.classes):
            found.append(("no-labels", "fault", "no sample has a label; nothing can be learnt from this part", []))
        elif missing:
            message = "classes without any sample cannot be " + ("judged here" if evaluation else "learnt")
            found.append(("class-without-samples", "note" if evaluation else "fault", message, missing))
        labelled = self._labelled + len(self._empty)
        everywhere = [name for name, count in self._labels.items() if count == labelled]
        if everywhere and whole and not evaluation:
            message = "in view in every sample: what is never absent cannot be learnt; show other classes, or none"
            found.append(("class-everywhere", "fault", message, everywhere))
        counts = [count for count in self._labels.values() if count]
        if counts and max(counts) > _IMBALANCE * min(counts):
            rare = [f"{name}: {count}" for name, count in self._labels.most_common()[:-6:-1]]
            message = f"classes differ more than {_IMBALANCE}-fold in samples; show the rare ones more"
            found.append(("class-imbalance", "note", message, rare))
        if self._unlabelled:
            found.append(("unlabelled", "note", "samples that nobody labelled are not trained on", self._unlabelled))
        return found

    def _depth_findings(self, config: CheckConfig) -> list[Item]:
        found: list[Item] = []
        if self._valid and 0 < float(np.median(self._valid)) < config.min_valid_depth:
            message = (
                f"depth is mostly invalid: half of the samples have at most {100 * np.median(self._valid):.0f} % of it;"
                " is the object nearer than the camera's minimum distance, or the emitter off?"
            )
            found.append(("depth-mostly-invalid", "fault", message, []))
        if self._median_m:
            median = float(np.median(self._median_m))
            if not config.nearest_m <= median <= config.farthest_m:
                message = (
                    f"the median depth is {median:.4g} m, which no RGB-D camera sees: wrong unit? 16-bit depth is in"
                    " millimetres unless depth_unit_m or depth_scale says otherwise"
                )
                found.append(("depth-unit", "fault", message, []))
        if len(self._sizes) > 1 and min(self._sizes.values()) > 0.02 * self._decoded:
            sizes = [f"{height}x{width}: {count}" for (height, width), count in self._sizes.most_common(5)]
            found.append(("several-sizes", "note", "pictures of several sizes; they are resized in training", sizes))
        return found

    def _registration_findings(self) -> list[Item]:
        agreement = self._agreement.result()
        if agreement is None or agreement.samples < _MIN_AGREEMENT_SAMPLES:
            return []
        x, y = agreement.shift
        limit = max(2.0, _SHIFT_SHARE * agreement.width)
        remedy = "register depth to colour (RealSense: align_depth.enable:=true, aligned_depth_to_color topics)"
        if agreement.at_best < _MIN_AGREEMENT:
            message = (
                f"depth edges agree with colour edges nowhere ({agreement.at_best:.1f} standard deviations above"
                f" chance, registered depth has 9 and more): {remedy}; or depth is noisy, or of other pictures"
            )
            return [("depth-not-registered", "fault", message, [])]
        if max(abs(x), abs(y)) > limit and agreement.at_zero < 0.85 * agreement.at_best:
            message = f"depth lies beside colour: moved by ({x:+.0f}, {y:+.0f}) pixels their edges agree best; {remedy}"
            return [("depth-misregistered", "fault", message, [])]
        return []


_MESSAGES = {
    "unreadable": "{count} samples cannot be read",
    "size-mismatch": "{count} samples have files of differing sizes",
    "stamp-order": "{count} samples are not later than the one before them in their sequence",
    "mask-unknown-id": "{count} masks have ids beyond the classes",
    "mask-without-label": "{count} masks show a class that the image labels leave out",
    "depth-not-clean": "{count} depth images hold NaN, infinities or negative values, which must be 0",
    "depth-all-zero": "{count} depth images are all zero: is the depth stream on, and is it the right topic?",
    "depth-flat": "{count} depth images have the same value everywhere",
}
