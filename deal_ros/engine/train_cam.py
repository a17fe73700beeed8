# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stage 1: train a CAM network from image labels, with DEAL if asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deal_ros.cams import create_cam_network
from deal_ros.cams.base import CamNetwork
from deal_ros.config import from_mapping, load_yaml, to_mapping
from deal_ros.datasets.base import SampleDataset, data_identity
from deal_ros.engine.checkpoint import INITIALIZATION, load_checkpoint, load_weights, seed_step
from deal_ros.engine.distributed import Ranks, alone, parallel
from deal_ros.engine.feature_cache import feature_cache
from deal_ros.engine.loader import FrameSource, LoaderConfig, collate, plain_source
from deal_ros.engine.objective import CamLossConfig, CamObjective
from deal_ros.engine.optimization import OptimizationConfig
from deal_ros.engine.plots import plot_metrics
from deal_ros.engine.progress import ProgressCallback, StopRequested, ignore_progress, never_stop
from deal_ros.engine.run_folder import BEST, CONFIG, RunFolder
from deal_ros.engine.session import Session
from deal_ros.metrics import mean_average_precision

STAGE = "train-cam"
SHOWN = ("loss", "map", "lambda", "gradient_ratio", "lr")
"""Figures of progress reports."""


@dataclass(frozen=True)
class TrainCamConfig:
    """Settings of a CAM training run.

    Args:
        network: a key of ``cams.CAM_NETWORKS``.
        arguments: for that network: backbone, weights, output stride, frozen stages, …
        loader: sizes, augmentation, caches.
        optimization: steps, rates, precision, seed.
        losses: which losses beside the network's own.
        initial: run folder of a CAM network to start from, for example one trained without DEAL; ``None`` starts
            from the backbone's weights.
        baseline_map: mAP that the same network reaches without DEAL, for the gate of its weight; ``None`` takes the
            best seen.
        evaluate_every: steps between two measurements of mAP.
        evaluate_samples: most samples for that.
        checkpoint_every: steps between two checkpoints.
        log_every: steps between two lines in metrics.jsonl.
        map_tolerance: the newest weights whose mAP is at most this much below the best are the result, counted from
            the step at which DEAL has its full weight. Only image labels decide; true masks are never looked at.
    """

    network: str = "timm"
    arguments: dict[str, Any] = field(default_factory=dict)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    losses: CamLossConfig = field(default_factory=CamLossConfig)
    initial: Path | None = None
    baseline_map: float | None = None
    evaluate_every: int = 50
    evaluate_samples: int = 256
    checkpoint_every: int = 50
    log_every: int = 5
    map_tolerance: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("evaluate_every", "evaluate_samples", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainCamResult:
    """What training gave.

    Args:
        run: the folder; :func:`load_cam` reads its network.
        map: classification mAP of the chosen weights, on held-out samples if there were any.
        step: the step they are from.
        metrics: the last figures of the run.
    """

    run: Path
    map: float
    step: int
    metrics: dict[str, Any]


def train_cam(
    dataset: SampleDataset,
    out: str | Path,
    config: TrainCamConfig,
    *,
    validation: SampleDataset | None = None,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> TrainCamResult:
    """Train a CAM network, or go on where an earlier start with the same settings stopped.

    Args:
        dataset: samples with image labels; the others are left out.
        out: run folder; gets config.yaml, metrics.jsonl, checkpoints, curves.png and at the end result.json.
        config: see :class:`TrainCamConfig`.
        validation: held-out samples with image labels for mAP; without them mAP is measured on training samples.
        ranks: this process among its peers (see :mod:`deal_ros.engine.distributed`).
        on_progress: called after every step.
        should_stop: asked after every step.

    Raises:
        Cancelled: if asked to stop; a checkpoint is on disk.
        DatasetError: if no sample has labels.
        CheckpointError: if ``out`` holds a run with other settings or data.
    """
    ranks = ranks or alone()
    settings = config.optimization
    identity: dict[str, Any] = {"stage": STAGE, **data_identity(dataset)}
    identity["validation"] = None if validation is None else data_identity(validation)
    folder = RunFolder(out, {**identity, "config": to_mapping(config)}, writer=ranks.first)
    ranks.barrier()
    if (done := folder.result()) is not None:
        return TrainCamResult(folder.path, done["map"], done["step"], done["metrics"])

    source = FrameSource(dataset, config.loader, seed=settings.seed)
    seed_step(settings.seed, INITIALIZATION)
    network = create_cam_network(config.network, len(dataset.classes), **config.arguments).to(ranks.device)
    if config.initial is not None:
        load_weights(network, load_checkpoint(config.initial / BEST).tensors["network"], str(config.initial))
    objective = CamObjective(network, config.losses, ranks)
    model = parallel(objective, ranks)
    session = Session(
        STAGE,
        folder,
        network,
        settings,
        ranks,
        tolerance=config.map_tolerance,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        extra=objective,
    )
    features = feature_cache(source, network, ranks.device)
    measure = _MapMeter(validation if validation is not None else dataset, config, ranks)

    settled = min(settings.steps, objective.settled_step)
    for step, rounds, log in session.steps(source):
        for turn, batch in enumerate(rounds):
            cached = features(batch) if features is not None else None
            with session.stepper.autocast():
                loss, figures, _ = model(step, turn == 0, batch.rgb, batch.depth_m, batch.labels, cached)
            session.stepper.backward(loss / settings.accumulate)
            log.update(figures)
        log["lr"] = session.stepper.step(step)
        if (step + 1) % config.evaluate_every == 0 or step + 1 == settings.steps:
            log["map"] = measure(network)
            objective.observe_map(step, log["map"], config.baseline_map)
            if step + 1 >= settled:
                session.consider(step, log["map"])
        session.finish_step(step, log, SHOWN, on_progress, should_stop)

    metrics: dict[str, Any] = {**session.latest, "collapsed": objective.guard.collapsed}
    metrics["map_on"] = "held-out samples" if validation is not None else "training samples"
    chosen = {"step": session.chosen["step"], "map": session.chosen["signal"]}
    if ranks.first:
        plot_metrics(folder.path, folder.records)
    folder.finish({"stage": STAGE, **chosen, "metrics": metrics})
    ranks.barrier()
    return TrainCamResult(folder.path, chosen["map"], chosen["step"], metrics)


def load_cam(run: str | Path, device: torch.device | str = "cpu") -> tuple[CamNetwork, tuple[str, ...], TrainCamConfig]:
    """Load the chosen network of a run in evaluation mode, its class names and its settings.

    Raises:
        CheckpointError, ConfigError: if the folder holds no such run.
    """
    run = Path(run)
    stored = load_yaml(run / CONFIG)
    config = from_mapping(TrainCamConfig, stored["config"], str(run / CONFIG))
    classes = tuple(stored["classes"])
    arguments = {**config.arguments, "weights": "none"}  # the checkpoint holds them all
    network = create_cam_network(config.network, len(classes), **arguments)
    load_weights(network, load_checkpoint(run / BEST).tensors["network"], str(run / BEST))
    return network.to(device).eval(), classes, config


class _MapMeter:
    """Classification mAP on plain views of a fixed choice of samples, shared among the ranks."""

    def __init__(self, dataset: SampleDataset, config: TrainCamConfig, ranks: Ranks) -> None:
        labelled = [i for i in range(len(dataset)) if dataset.labels(i) is not None]
        order = np.random.default_rng(0).permutation(len(labelled))[: config.evaluate_samples]
        chosen = [labelled[i] for i in sorted(order.tolist())]
        self._source = FrameSource(dataset, plain_source(config.loader), seed=0, indices=chosen)
        self._batch, self._ranks = config.optimization.batch_size, ranks
        self._features: Any = _UNSET

    @torch.no_grad()
    def __call__(self, network: CamNetwork) -> float:
        """MAP in [0, 1]; the same on every rank."""
        if self._features is _UNSET:
            self._features = feature_cache(self._source, network, self._ranks.device)
        network.eval()
        scores = torch.zeros(len(self._source), network.num_classes, device=self._ranks.device)
        labels = torch.zeros_like(scores)
        mine = list(self._ranks.share(len(self._source)))
        for first in range(0, len(mine), self._batch):
            rows = mine[first : first + self._batch]
            batch = collate([self._source[row, 0] for row in rows]).to(self._ranks.device)
            cached = self._features(batch) if self._features is not None else None
            scores[rows] = network(network.normalize(batch.rgb), cached).scores.float()
            labels[rows] = batch.labels
        self._ranks.total(scores)
        self._ranks.total(labels)
        return mean_average_precision(scores.cpu().numpy(), labels.cpu().numpy())


_UNSET = object()


def without_losses(config: TrainCamConfig) -> TrainCamConfig:
    """Return the baseline of a config: the same with the network's own losses only."""
    return replace(config, losses=replace(config.losses, terms="none"))
