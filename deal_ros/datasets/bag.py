# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recordings → sample store: the collector's work done afterwards, with the very same pairing and keyframes.

A recording is read once, front to back, in constant memory: only frames that can become keyframes are decoded, and
compressing and writing run beside reading. Run again after an interruption, it comes to the same choices and skips
what is stored. Several recordings are imported at once, one per core, into one store.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from deal_ros.config import ConfigError, load_yaml
from deal_ros.datasets.bag_fleet import sequence_names
from deal_ros.datasets.bag_frames import DecodedFrame, RawFrame, decode_frame, printable
from deal_ros.datasets.bag_labels import ConstantLabels, LabelSource, TopicLabels, load_intervals
from deal_ros.datasets.bag_reader import SUFFIXES, Bag, BagError, deserialize
from deal_ros.datasets.bag_report import (
    ImportConfig,
    ImportReport,
    place_in_store,
    stamps_of_sequence,
    write_report,
)
from deal_ros.datasets.bag_topics import choose_topics
from deal_ros.datasets.keyframes import KeyframeSelector
from deal_ros.datasets.mcap_stream import DamageError, RawMessage
from deal_ros.datasets.store import SampleStore
from deal_ros.datasets.store_files import EncodedSample
from deal_ros.images import Calibration, ImageError, calibration
from deal_ros.labels import LabelError
from deal_ros.pairing import DEPTH, RGB, Pair, StampPairer

logger = logging.getLogger(__name__)

ProgressOfBag = Callable[[str, int, int], None]
"""Called now and then with the recording's name, bytes done and bytes in all."""
HISTOGRAM_BINS = 11
_COMMIT_SIZE = 8
_WINDOW = 16
"""Pairs that wait for their decision while the likely ones among them are decoded."""
_LOOK_AHEAD = 4
_PROGRESS_EVERY = 50


def import_bag(
    bag: str | Path | Bag,
    store: SampleStore,
    config: ImportConfig | None = None,
    *,
    sequence: str = "",
    pool: ThreadPoolExecutor | None = None,
    on_progress: ProgressOfBag | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ImportReport:
    """Import one recording.

    Args:
        bag: the recording.
        store: an open, writable store; new class names are appended to its list.
        config: topics, labels, pairing, keyframes.
        sequence: name for the samples; default: the recording's.
        pool: threads that compress; default: one of its own with as many threads as cores.
        on_progress: hears how far it is.
        should_stop: asked now and then; True ends the import early, to go on another time.

    Returns:
        The report; damage and undecodable messages are in it, they do not raise.

    Raises:
        BagError: if there is nothing to read or the topics are not there.
        ConfigError: if the YAML of labels cannot be used.
        LabelError: if a class name is unusable.
        StoreError: if the store cannot be written (the disk is full, say); run again to go on.
    """
    bag = bag if isinstance(bag, Bag) else Bag(bag)
    config = config or ImportConfig()
    own_pool = None if pool is not None else ThreadPoolExecutor(os.cpu_count() or 1, "encode")
    try:
        threads = pool or own_pool
        assert threads is not None
        return _BagImport(bag, store, config, sequence, threads, on_progress, should_stop).run()
    finally:
        bag.close()
        if own_pool is not None:
            own_pool.shutdown(cancel_futures=True)


def import_bags(
    paths: Sequence[str | Path],
    store: SampleStore,
    config: ImportConfig | None = None,
    *,
    workers: int = 0,
    on_progress: ProgressOfBag | None = None,
) -> tuple[list[ImportReport], dict[str, str]]:
    """Import several recordings at once.

    Args:
        paths: the recordings. Those that the store says are complete are skipped.
        store: as in :func:`import_bag`.
        config: for all of them.
        workers: recordings read at the same time; 0: as many as cores.
        on_progress: hears how far each is; called from several threads.

    Returns:
        Reports in the order of ``paths``, and for each that could not be imported its path and why.

    Raises:
        StoreError, ConfigError: if the store cannot be written, or the YAML of labels not be read; run again to go on.
    """
    config = config or ImportConfig()
    cores = os.cpu_count() or 1
    if config.labels_file:
        load_yaml(config.labels_file)  # one that cannot be read is an error for all; what it lacks, for one
    names = sequence_names([Path(path) for path in paths])
    reports: dict[int, ImportReport] = {}
    failed: dict[str, str] = {}
    stop = threading.Event()
    with (
        ThreadPoolExecutor(cores, "encode") as pool,
        ThreadPoolExecutor(min(workers or cores, max(1, len(paths))), "bag") as readers,
    ):
        jobs: dict[Future[ImportReport], int] = {}
        for number, path in enumerate(paths):
            options: dict[str, Any] = {"pool": pool, "on_progress": on_progress, "should_stop": stop.is_set}
            jobs[readers.submit(import_bag, path, store, config, sequence=names[number], **options)] = number
        try:
            for job, number in jobs.items():
                try:
                    reports[number] = job.result()
                except (BagError, ConfigError) as error:
                    failed[str(paths[number])] = str(error)
        except BaseException:  # Ctrl-C, a full disk: the other readers end at their next message
            stop.set()
            readers.shutdown(cancel_futures=True)
            raise
    return [reports[number] for number in sorted(reports)], failed


def find_bags(path: str | Path) -> list[Path]:
    """Find the recordings at ``path``: itself, or, where it is a folder of recordings, those in it, by name.

    Raises:
        BagError: if there is none.
    """
    path = Path(path)
    if path.is_dir() and not _is_bag_folder(path):
        found = sorted(item for item in path.iterdir() if item.is_dir() and _is_bag_folder(item))
        if found:
            return found
    Bag(path)
    return [path]


def _is_bag_folder(path: Path) -> bool:
    return any(item.name.endswith(SUFFIXES) for item in path.iterdir())


@dataclass
class _Candidate:
    """A pair that waits for its turn; ``job`` decodes it where it is likely to be needed."""

    raw: RawFrame
    job: Future[DecodedFrame] | None = None


class _BagImport:
    """The state of one import; :meth:`run` reads from top to bottom."""

    def __init__(
        self,
        bag: Bag,
        store: SampleStore,
        config: ImportConfig,
        sequence: str,
        pool: ThreadPoolExecutor,
        on_progress: ProgressOfBag | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self.bag, self.store, self.config, self.pool = bag, store, config, pool
        self.on_progress, self.should_stop, self.stopped = on_progress, should_stop, False
        self.start_ns = bag.start_ns()
        self.sequence, self.finished = place_in_store(
            store, sequence or printable(bag.name), self.start_ns, bag, config
        )
        self.report = ImportReport(str(bag.path), self.sequence)
        self.pairer = StampPairer(config.pairing)
        self.selector = KeyframeSelector(config.keyframes)
        self.calibration: Calibration | None = None
        self.calibration_bytes = b""
        self.window: deque[_Candidate] = deque()
        self.likely: tuple[int, frozenset[str]] | None = None
        self.pending: list[Future[EncodedSample]] = []
        self.writer = ThreadPoolExecutor(1, "write")
        self.writing: deque[Future[int]] = deque()
        self.accepted, self.write_failed = 0, False
        self.slop_ms = max(config.pairing.slop_ms, 1e-3)
        self.counts = [0] * HISTOGRAM_BINS

    def run(self) -> ImportReport:
        if self.finished is not None:
            return self.finished
        begin = time.monotonic()
        available = self.bag.topics()
        need_labels = self.config.label is None and not self.config.labels_file
        topics = choose_topics(available, self.config.topics, need_labels=need_labels, where=str(self.bag.path))
        self.types = {topic: kind for topic, (kind, _) in available.items()}
        self.topics = topics
        self.report.topics = dataclasses.asdict(topics)
        self.labels = self._label_source()
        self.stored_stamps = stamps_of_sequence(self.store, self.sequence)
        logger.info("%s: reading %s", self.bag.path, topics.describe())
        wanted = {topic for topic in dataclasses.asdict(topics).values() if topic}
        try:
            for number, message in enumerate(self.bag.messages(wanted)):
                self._take(message)
                if number % _PROGRESS_EVERY == 0:
                    if self.on_progress is not None:
                        self.on_progress(self.sequence, self.bag.done_bytes, self.bag.size_bytes)
                    self.stopped = self.stopped or self.should_stop()
                if self.stopped:
                    break
            else:
                self._decide(self.pairer.flush())
                self._settle(keep=0)
            self._commit(everything=True)
        finally:
            for job in [candidate.job for candidate in self.window if candidate.job is not None]:
                job.cancel()
            self.writer.shutdown(cancel_futures=True)
        if self.on_progress is not None:
            self.on_progress(self.sequence, self.bag.size_bytes, self.bag.size_bytes)
        self.report.seconds = time.monotonic() - begin
        return self._finish()

    def _label_source(self) -> LabelSource:
        if self.config.label is not None:
            self.store.add_classes(self.config.label)
            return ConstantLabels(frozenset(self.config.label))
        if self.config.labels_file:
            intervals = load_intervals(self.config.labels_file, self.bag.name, self.start_ns)
            self.store.add_classes(sorted(intervals.names()))
            return intervals
        return TopicLabels()

    def _take(self, message: RawMessage) -> None:
        topics = self.topics
        if message.topic == topics.rgb:
            labels = self.labels.at(message.log_ns)
            if isinstance(self.labels, TopicLabels) and self.labels.precedes(message.stamp_ns):
                labels = None
            self._decide(self.pairer.add(RGB, message.stamp_ns, (message, labels, self.calibration)))
        elif message.topic == topics.depth:
            self._decide(self.pairer.add(DEPTH, message.stamp_ns, message))
        elif message.topic == topics.camera_info:
            self._calibrate(message)
        elif message.topic == topics.labels and isinstance(self.labels, TopicLabels):
            try:
                text = deserialize(message.data, self.types[message.topic]).data
                self.store.add_classes(sorted(self.labels.hear(text, message.log_ns) or ()))
            except (BagError, DamageError, LabelError) as error:
                self._problem("bad_labels", error)

    def _calibrate(self, message: RawMessage) -> None:
        try:
            data = message.data
            if data[12:] == self.calibration_bytes:  # all but the encapsulation and the stamp
                return
            self.calibration_bytes = data[12:]
            self.calibration = calibration(deserialize(data, self.types[self.topics.camera_info]))
        except (BagError, DamageError) as error:
            self._problem("bad_camera_info", error)

    def _decide(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            place = (pair.offset_ns / 1e6 + self.slop_ms) / (2 * self.slop_ms)
            self.counts[min(HISTOGRAM_BINS - 1, max(0, int(place * HISTOGRAM_BINS)))] += 1
            rgb, labels, calibrated = pair.rgb
            if labels is None:
                self.report.frames["not_labelled"] += 1
                continue
            kinds = self.types[self.topics.rgb], self.types[self.topics.depth]
            raw = RawFrame(rgb, pair.depth, *kinds, pair.stamp_ns, labels, calibrated, self.topics.rgb)
            self.window.append(_Candidate(raw))
            if self._likely_due(raw):
                self._start(self.window[-1])
            self._settle(keep=_WINDOW)

    def _likely_due(self, raw: RawFrame) -> bool:
        """Whether a frame will be due if the last one that was likely due becomes a keyframe."""
        if self.likely is None or raw.labels != self.likely[1]:
            return True
        passed_s = (raw.stamp_ns - self.likely[0]) * 1e-9
        return passed_s < 0 or passed_s >= self.config.keyframes.min_interval_s

    def _start(self, candidate: _Candidate) -> Future[DecodedFrame]:
        if candidate.job is None:
            raw, store = candidate.raw, self.store
            candidate.job = self.pool.submit(decode_frame, raw, store.image_format, store.depth_unit_m)
            self.likely = raw.stamp_ns, raw.labels
        return candidate.job

    def _settle(self, keep: int) -> None:
        """Decide about the oldest candidates, in order: those that need no wait, and more until ``keep`` are left."""
        while self.window and not self.stopped:
            candidate = self.window[0]
            raw = candidate.raw
            if not self.selector.due(raw.stamp_ns, raw.labels):
                self.report.frames["too_soon"] += 1
                if candidate.job is not None:
                    candidate.job.cancel()
                self.window.popleft()
                continue
            job = self._start(candidate)
            if len(self.window) <= keep and not job.done():
                return
            self.window.popleft()
            frame = self._result(job)
            decision = self.selector.decide(frame.sample, frame.traits) if frame is not None else None
            if frame is not None and decision is not None and decision.accepted:
                self._keep(frame)
                continue
            if decision is not None:
                self.report.frames[decision.reason] += 1
            for following in islice(self.window, _LOOK_AHEAD):  # one of these takes its place
                self._start(following)

    def _result(self, job: Future[DecodedFrame]) -> DecodedFrame | None:
        try:
            return job.result()
        except (ImageError, BagError, DamageError) as error:
            self._problem("undecodable", error)
        except ValueError as error:  # of Sample: the sizes of colour and depth differ
            self._problem("size_mismatch", error)
        return None

    def _keep(self, frame: DecodedFrame) -> None:
        sample = frame.sample
        self.accepted += 1
        self.stopped = self.accepted == self.config.max_samples
        self.report.samples_per_class.update(sample.labels or ())
        if sample.stamp_ns in self.stored_stamps:
            self.report.frames["already_stored"] += 1
            return
        self.stored_stamps.add(sample.stamp_ns)
        self.pending.append(self.pool.submit(self.store.encode, sample, self.sequence, frame.encoded))
        if len(self.pending) >= _COMMIT_SIZE:
            self._commit(everything=False)

    def _commit(self, everything: bool) -> None:
        """Hand what is pending to the writer. Bounded: at most three batches wait, however fast the reading."""
        if self.pending:
            self.writing.append(self.writer.submit(self._write, self.pending))
            self.pending = []
        while self.writing and (everything or len(self.writing) > 2):
            self.report.frames["stored"] += self.writing.popleft().result()

    def _write(self, batch: list[Future[EncodedSample]]) -> int:
        if self.write_failed:
            return 0  # the order of the recording is kept: nothing behind a batch that failed
        try:
            return len(self.store.append_encoded([job.result() for job in batch]))
        except BaseException:
            self.write_failed = True
            raise

    def _problem(self, kind: str, error: Exception) -> None:
        self.report.frames[kind] += 1
        if kind not in self.report.problems:
            self.report.problems[kind] = str(error)
            logger.warning("%s: %s: %s", self.bag.path, kind.replace("_", " "), error)

    def _finish(self) -> ImportReport:
        report, statistics = self.report, self.pairer.statistics()
        report.received, report.paired, report.dropped = statistics.received, statistics.paired, statistics.dropped
        report.clock_jumps, report.missed_by_ms = statistics.clock_jumps, statistics.missed_by_ms
        edges = np.linspace(-self.slop_ms, self.slop_ms, HISTOGRAM_BINS + 1)
        report.offsets_ms = [round(float(edge), 4) for edge in edges]
        report.offset_counts = self.counts
        report.damage = list(self.bag.damage)
        report.complete = not self.stopped
        for message in report.damage:
            logger.warning("%s: imported up to the damage: %s", self.bag.path, message)
        write_report(self.store, report, self.start_ns, self.bag, self.config)
        return report
