# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stage 3: train the onboard segmenter on label maps, and put it into a bundle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deal_ros.config import to_mapping
from deal_ros.datasets.base import DatasetError, SampleDataset, data_identity
from deal_ros.datasets.views import spread
from deal_ros.engine.augmentation import AugmentationConfig
from deal_ros.engine.checkpoint import INITIALIZATION, load_checkpoint, load_weights, seed_step
from deal_ros.engine.distributed import Ranks, alone, parallel
from deal_ros.engine.feature_cache import feature_cache
from deal_ros.engine.label_folder import LabelFolder
from deal_ros.engine.loader import FrameSource, LoaderConfig, collate, plain_source
from deal_ros.engine.optimization import OptimizationConfig
from deal_ros.engine.pasting import PasteConfig
from deal_ros.engine.plots import plot_metrics
from deal_ros.engine.progress import ProgressCallback, StopRequested, ignore_progress, never_stop
from deal_ros.engine.run_folder import BEST, RunFolder
from deal_ros.engine.session import Session
from deal_ros.losses import ClippedCrossEntropyConfig, absent_class_loss, clipped_cross_entropy
from deal_ros.metrics import SegmentationMetrics
from deal_ros.sample import IGNORE_ID, Sample
from deal_ros.students import BundleSpec, Student, create_student, write_bundle

STAGE = "train-student"
SHOWN = ("loss", "agreement", "lr")
"""Figures of progress reports."""
BUNDLE = "bundle"
TRUE_MASKS = "true masks"


@dataclass(frozen=True)
class StudentLossConfig:
    """How a student is compared with its label maps.

    Args:
        kind: ``cross_entropy``, weighted by ``balance``; or ``clipped``, WeakTr's, which distrusts pixels of unusual
            loss.
        balance: each class counts as its share of labelled pixels to the power of -balance. 0 is plain; at 1 every
            class counts alike, however small. In a few hundred steps, plain cross-entropy was seen to leave rare
            classes out, and 0.5 to spill over outlines.
        stride: label pixels per compared pixel, each way; 2 costs a quarter and was not seen to cost accuracy.
        absent: weight, beside cross-entropy, of unlabelled pixels not being of a class that is not in view, see
            :func:`~deal_ros.losses.absent_class_loss`. Of use where many pixels are unlabelled, as a teacher's are.
        clipped: constants of ``clipped``.
    """

    kind: Literal["cross_entropy", "clipped"] = "cross_entropy"
    balance: float = 0.2
    stride: int = 2
    absent: float = 0.0
    clipped: ClippedCrossEntropyConfig = field(default_factory=ClippedCrossEntropyConfig)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be in [0, 1], got {self.balance}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        if self.absent < 0 or (self.absent and self.kind == "clipped"):
            raise ValueError(f"absent must be >= 0, and 0 with kind clipped, got {self.absent} with {self.kind}")


@dataclass(frozen=True)
class TrainStudentConfig:
    """Settings of a student's training run.

    Args:
        student: a key of ``students.STUDENTS``.
        arguments: of its config: encoder, frozen stages, …
        weights: of its encoder: ``auto`` (ImageNet), ``none``, or a file.
        loader: sizes, augmentation, caches.
        optimization: steps, rates, precision, seed.
        loss: see :class:`StudentLossConfig`.
        paste: put objects from images that show one class alone into other images; ``None`` does not.
        ema: decay of a moving average of the weights, which then is the result; 0 for none.
        evaluate_every: steps between two measurements of the agreement with the label maps.
        evaluate_samples: most samples for that.
        checkpoint_every: steps between two checkpoints.
        log_every: steps between two lines in metrics.jsonl.
        tolerance: the newest weights whose agreement is at most this much below the best are the result.
    """

    student: str = "light"
    arguments: dict[str, Any] = field(default_factory=lambda: {"frozen_stages": 3})
    weights: str = "auto"
    loader: LoaderConfig = field(
        default_factory=lambda: LoaderConfig(augmentation=AugmentationConfig(zoom=(0.7, 1.4)), cached_views=4)
    )
    optimization: OptimizationConfig = field(default_factory=lambda: OptimizationConfig(lr=2e-3, clip_norm=5.0))
    loss: StudentLossConfig = field(default_factory=StudentLossConfig)
    paste: PasteConfig | None = None
    ema: float = 0.0
    evaluate_every: int = 100
    evaluate_samples: int = 64
    checkpoint_every: int = 50
    log_every: int = 5
    tolerance: float = 0.03

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("evaluate_every", "evaluate_samples", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        fixed = 2 if self.loader.augmentation.flip else 1
        if self.paste is not None and 0 < self.loader.cached_views <= fixed:
            raise ValueError(
                f"paste needs random views: loader.cached_views must be 0 or more than {fixed}, those of the frame as"
                f" it is, got {self.loader.cached_views}"
            )


@dataclass(frozen=True)
class TrainStudentResult:
    """What training gave.

    Args:
        run: the folder.
        bundle: the model bundle in it.
        agreement: mIoU of the student with its label maps on training samples, a weak signal.
        metrics: the last figures of the run.
    """

    run: Path
    bundle: Path
    agreement: float
    metrics: dict[str, Any]


def train_student(
    dataset: SampleDataset,
    labels: str | Path | None,
    out: str | Path,
    config: TrainStudentConfig,
    *,
    ranks: Ranks | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> TrainStudentResult:
    """Train a student, or go on where an earlier start with the same settings stopped.

    Args:
        dataset: the images.
        labels: folder of label maps made by :func:`~deal_ros.engine.pseudo_label.pseudo_label` for the same data set;
            ``None`` trains on the true masks of the samples: full supervision, the upper bound.
        out: run folder; gets config.yaml, metrics.jsonl, checkpoints, curves.png and the bundle.
        config: see :class:`TrainStudentConfig`.
        ranks: this process among its peers.
        provenance: plain values to keep in the bundle: data, commit, figures of earlier stages.
        on_progress: called after every step.
        should_stop: asked after every step.

    Raises:
        Cancelled: if asked to stop; a checkpoint is on disk.
        DatasetError: if no sample has a label map.
        CheckpointError: if ``out`` holds a run with other settings or data.
    """
    ranks = ranks or alone()
    settings, classes = config.optimization, tuple(dataset.classes)
    origin = TRUE_MASKS if labels is None else Path(labels).name
    identity = {"stage": STAGE, **data_identity(dataset), "labels": origin}
    identity["maps"] = None if labels is None else LabelFolder(labels, classes).version
    folder = RunFolder(out, {**identity, "config": to_mapping(config)}, writer=ranks.first)
    ranks.barrier()
    if (done := folder.result()) is not None:
        return TrainStudentResult(folder.path, folder / BUNDLE, done["agreement"], done["metrics"])

    target, indices = _targets(dataset, labels)
    source = FrameSource(dataset, config.loader, seed=settings.seed, indices=indices, target=target, paste=config.paste)
    seed_step(settings.seed, INITIALIZATION)
    student = create_student(config.student, len(classes), weights=config.weights, **config.arguments).to(ranks.device)
    averaged = copy.deepcopy(student) if config.ema else None
    criterion = _Criterion(student, config.loss, class_weights(source, len(classes), config.loss.balance))
    model = parallel(criterion.to(ranks.device), ranks)
    session = Session(
        STAGE,
        folder,
        student,
        settings,
        ranks,
        tolerance=config.tolerance,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        averaged=averaged,
    )
    features = feature_cache(source, student, ranks.device)
    measure = _AgreementMeter(dataset, config, ranks, indices, target)

    for step, rounds, log in session.steps(source):
        for batch in rounds:
            cached = features(batch) if features is not None else None
            with session.stepper.autocast():
                loss = model(batch.rgb, batch.target, batch.labels, cached)
            session.stepper.backward(loss / settings.accumulate)
            log["loss"] = log.get("loss", 0.0) + float(loss.detach()) / settings.accumulate
        log["lr"] = session.stepper.step(step)
        if averaged is not None:
            _update_average(averaged, student, config.ema)
        if (step + 1) % config.evaluate_every == 0 or step + 1 == settings.steps:
            log["agreement"] = measure(averaged or student)
            session.consider(step, log["agreement"])
        session.finish_step(step, log, SHOWN, on_progress, should_stop)

    agreement = session.chosen["signal"]
    metrics = dict(session.latest)
    if ranks.first:
        load_weights(student, load_checkpoint(folder / BEST).tensors["network"], str(folder / BEST))
        training = {**(provenance or {}), "labels": origin, "samples": len(source), "step": session.chosen["step"]}
        training |= {"config": to_mapping(config)}
        spec = BundleSpec(classes, config.loader.size, training=training, metrics={"agreement": agreement})
        write_bundle(folder / BUNDLE, student, spec, overwrite=True)
        plot_metrics(folder.path, folder.records)
    folder.finish({"stage": STAGE, "agreement": agreement, "step": session.chosen["step"], "metrics": metrics})
    ranks.barrier()
    return TrainStudentResult(folder.path, folder / BUNDLE, agreement, metrics)


def class_weights(source: FrameSource, num_classes: int, balance: float, samples: int = 200) -> Tensor:
    """Weight float (K+1,) of each class: its share of labelled pixels to the power of -balance.

    They are scaled so that the mean weight over labelled pixels is 1; classes that do not occur get 1.

    Args:
        source: with targets.
        num_classes: K.
        balance: 0..1.
        samples: label maps to count, evenly spread.
    """
    counts = np.zeros(num_classes + 1)
    for position in spread(range(len(source)), samples):
        target = source.plain(position).target
        assert target is not None
        counts += np.bincount(target[target != IGNORE_ID], minlength=num_classes + 1)[: num_classes + 1]
    if not counts.any():
        raise DatasetError(
            "label maps hold no labelled pixel: every one is 255; lower the threshold or narrow the band"
        )
    share = counts / counts.sum()
    weights = np.where(share > 0, np.power(np.maximum(share, 1e-9), -balance), 0)
    scale = (weights * share).sum()
    return torch.tensor(np.where(share > 0, weights / scale, 1.0), dtype=torch.float32)


class _Criterion(nn.Module):
    """A student and its loss: what ``DistributedDataParallel`` wraps."""

    weights: Tensor

    def __init__(self, student: Student, config: StudentLossConfig, weights: Tensor) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.register_buffer("weights", weights)

    def forward(self, rgb: Tensor, target: Tensor, labels: Tensor, features: Any) -> Tensor:
        """Scalar loss of uint8 (B, 3, H, W) against int64 (B, H, W) and the image labels float (B, K)."""
        logits = self.student(self.student.normalize(rgb), features)
        stride = self.config.stride
        target = target[:, stride // 2 :: stride, stride // 2 :: stride]
        with torch.autocast(rgb.device.type, enabled=False):
            logits = F.interpolate(logits.float(), target.shape[1:], mode="bilinear", align_corners=False)
            if self.config.kind == "clipped":
                return clipped_cross_entropy(logits, target, config=self.config.clipped)
            loss = F.cross_entropy(logits, target, ignore_index=IGNORE_ID, weight=self.weights, reduction="none")
            if self.config.absent:
                loss = loss + self.config.absent * absent_class_loss(logits, labels) * (target == IGNORE_ID)
            # By the number of all pixels, not of labelled ones or of weights: then the parts of a batch that ranks and
            # accumulation rounds see add up to what one process would have computed.
            return loss.sum() / target.numel()


class _AgreementMeter:
    """mIoU between the student and its label maps on plain views of some training samples, shared among the ranks."""

    def __init__(
        self,
        dataset: SampleDataset,
        config: TrainStudentConfig,
        ranks: Ranks,
        indices: list[int],
        target: Callable[[int, Sample], NDArray[np.uint8]],
    ) -> None:
        chosen = spread(indices, config.evaluate_samples)
        self._source = FrameSource(dataset, plain_source(config.loader), seed=0, indices=chosen, target=target)
        self._batch, self._ranks = config.optimization.batch_size, ranks
        self._cache: list[Any] = []

    @torch.no_grad()
    def __call__(self, student: Student) -> float:
        """Return mIoU in [0, 1]; the same on every rank."""
        if not self._cache:
            self._cache.append(feature_cache(self._source, student, self._ranks.device))
        student.eval()
        metrics = SegmentationMetrics(student.num_classes)
        mine = list(self._ranks.share(len(self._source)))
        for first in range(0, len(mine), self._batch):
            batch = collate([self._source[row, 0] for row in mine[first : first + self._batch]]).to(self._ranks.device)
            assert batch.target is not None
            cached = self._cache[0](batch) if self._cache[0] is not None else None
            logits = student(student.normalize(batch.rgb), cached).float()
            logits = F.interpolate(logits, batch.target.shape[1:], mode="bilinear", align_corners=False)
            metrics.update(logits.argmax(1).cpu().numpy(), batch.target.cpu().numpy())
        if self._ranks.world > 1:
            metrics.all_reduce()
        return metrics.miou()


def _targets(
    dataset: SampleDataset, labels: str | Path | None
) -> tuple[Callable[[int, Sample], NDArray[np.uint8]], list[int]]:
    """How to get the label map of a sample, and the samples that have one."""
    if labels is None:
        return lambda index, sample: _true_mask(dataset.sample_id(index), sample), list(range(len(dataset)))
    maps = LabelFolder(labels, dataset.classes)
    return lambda index, sample: maps.read(dataset.sample_id(index)), maps.indices(dataset)


def _true_mask(sample_id: str, sample: Sample) -> NDArray[np.uint8]:
    if sample.mask is None:
        raise DatasetError(f"sample {sample_id} has no true mask; train on label maps instead")
    return sample.mask


@torch.no_grad()
def _update_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, value in zip(averaged.state_dict().values(), network.state_dict().values()):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
