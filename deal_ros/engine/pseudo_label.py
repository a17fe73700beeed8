# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stage 2: turn the activations of a trained CAM network into label maps."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deal_ros.cams import multiscale_cam
from deal_ros.cams.base import CamNetwork
from deal_ros.config import to_mapping
from deal_ros.datasets.base import DatasetError, SampleDataset, data_identity, need_classes
from deal_ros.datasets.image_files import read_png8
from deal_ros.datasets.views import spread
from deal_ros.engine.augmentation import resize_nearest
from deal_ros.engine.distributed import Ranks, alone
from deal_ros.engine.label_folder import map_path, write_index, write_map
from deal_ros.engine.progress import Cancelled, Progress, ProgressCallback, StopRequested, ignore_progress, never_stop
from deal_ros.engine.run_folder import RunFolder, read_result
from deal_ros.engine.train_cam import load_cam
from deal_ros.files import write_json
from deal_ros.labels import label_vector
from deal_ros.pseudo_labels import ContourAgreement, PseudoLabelConfig, ThresholdSweep, label_map, refine_cam
from deal_ros.sample import IGNORE_ID, Sample

STAGE = "pseudo-label"
THRESHOLD = "threshold.json"


@dataclass(frozen=True)
class PseudoLabelStageConfig:
    """How a data set is labelled.

    Args:
        labels: scales, refinement, threshold, band: all that concerns one image.
        resolution: ``training`` shows images to the network at about the size it was trained on; ``native`` as they
            are, as WeakTr and SEAM do.
        threshold_samples: images from which the background threshold is chosen; a hundred are plenty.
    """

    labels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    resolution: Literal["training", "native"] = "training"
    threshold_samples: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.threshold_samples < 1:
            raise ValueError(f"threshold_samples must be at least 1, got {self.threshold_samples}")


@dataclass(frozen=True)
class PseudoLabelResult:
    """What the stage gave.

    Args:
        folder: of the label maps.
        threshold: the background threshold that was used.
        labelled: samples with a map.
        fractions: mean share of background, foreground and ignored pixels.
    """

    folder: Path
    threshold: float
    labelled: int
    fractions: dict[str, float]


class CamMaker:
    """Activation maps of samples whose image labels are known.

    Args:
        network: in evaluation mode, on ``device``.
        config: scales, mirroring, refinement, resolution.
        size: height and width that the network was trained on.
        device: where to compute.
    """

    def __init__(
        self, network: CamNetwork, config: PseudoLabelStageConfig, size: tuple[int, int], device: torch.device
    ) -> None:
        self._network, self._config, self._size, self._device = network, config, size, device

    def __call__(self, sample: Sample, classes: tuple[str, ...], *, refined: bool = True) -> tuple[Tensor, Tensor]:
        """Return maps float (K, H, W) in [0, 1] at the sample's size, and which classes are in view, bool (K,)."""
        present = torch.from_numpy(label_vector(sample.labels or (), classes) > 0)
        if not present.any():
            return torch.zeros(len(classes), *sample.size), present
        rgb, depth_m = self._scaled(sample)
        image = torch.from_numpy(rgb).permute(2, 0, 1)[None].to(self._device)
        options = self._config.labels
        cam = multiscale_cam(
            self._network, image, present[None].to(self._device), scales=options.scales, flip=options.flip
        )[0]
        if refined:
            cam = refine_cam(cam, rgb, depth_m, options, present)
        if cam.shape[-2:] != sample.size:
            full = torch.zeros(len(classes), *sample.size, device=cam.device)
            chosen = present.to(cam.device)
            full[chosen] = F.interpolate(cam[chosen][None], sample.size, mode="bilinear", align_corners=False)[0]
            cam = full
        return cam, present

    def _scaled(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour and depth at the working size: of the training size's area, but the sample's own shape."""
        height, width = sample.size
        scale = math.sqrt(self._size[0] * self._size[1] / (height * width))
        if self._config.resolution == "native" or math.isclose(scale, 1, abs_tol=0.01):
            return sample.rgb, sample.depth_m
        size = (max(16, round(height * scale)), max(16, round(width * scale)))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        rgb = np.asarray(cv2.resize(sample.rgb, size[::-1], interpolation=interpolation), np.uint8)
        return rgb, resize_nearest(sample.depth_m, size)


def pseudo_label(
    dataset: SampleDataset,
    cam_run: str | Path,
    out: str | Path,
    config: PseudoLabelStageConfig = PseudoLabelStageConfig(),
    *,
    ranks: Ranks | None = None,
    on_progress: ProgressCallback = ignore_progress,
    should_stop: StopRequested = never_stop,
) -> PseudoLabelResult:
    """Write a label map for every sample with image labels; an earlier start is continued.

    Each rank labels its own share. A sample whose labels are empty (nothing in view) gets an all-background map.

    Args:
        dataset: with the classes that the network was trained for.
        cam_run: folder of :func:`~deal_ros.engine.train_cam.train_cam`.
        out: gets ``<sample id>.png``, labels.json when all are there, threshold.json, config.yaml.
        config: see :class:`PseudoLabelStageConfig`.
        ranks: this process among its peers.
        on_progress: called after every image.
        should_stop: asked before every image.

    Raises:
        Cancelled: if asked to stop; maps that are written stay.
        DatasetError: if the classes differ or nothing is labelled.
        CheckpointError: if ``cam_run`` is unfinished, or ``out`` was made with other settings.
    """
    ranks = ranks or alone()
    network, classes, trained = load_cam(cam_run, ranks.device)
    need_classes(dataset, classes, str(cam_run))
    made_by = {key: (read_result(cam_run) or {}).get(key) for key in ("step", "map")}
    identity = {"stage": STAGE, **data_identity(dataset), "cam": made_by}
    folder = RunFolder(out, {**identity, "config": to_mapping(config)}, writer=ranks.first)
    ranks.barrier()
    if (done := folder.result()) is not None:
        return PseudoLabelResult(folder.path, done["threshold"], done["labelled"], done["fractions"])

    usable = [i for i in range(len(dataset)) if dataset.labels(i) is not None]
    if not usable:
        raise DatasetError(f"no sample to label: {len(dataset)} samples, none with image labels")
    maker = CamMaker(network, config, trained.loader.size, ranks.device)
    made: dict[int, tuple[Tensor, Tensor]] = {}
    threshold = _threshold(dataset, usable, maker, config, folder, ranks, on_progress, should_stop, made)
    counts, stopped = torch.zeros(3, dtype=torch.float64, device=ranks.device), False
    for row in ranks.share(len(usable)):
        if stopped := should_stop():
            break
        path = map_path(folder.path, dataset.sample_id(usable[row]))
        mask = _existing(path)
        if mask is None:
            index = usable[row]
            cam, present = _whole(*made.pop(index)) if index in made else maker(dataset[index], classes)
            mask = label_map(cam, present, threshold, config.labels.band, config.labels.band_below)
            write_map(path, mask)
        ignored = float(np.mean(mask == IGNORE_ID))
        background = float(np.mean(mask == 0))
        counts += torch.tensor([background, 1 - background - ignored, ignored], device=ranks.device)
        on_progress(Progress(STAGE, min(row + ranks.world, len(usable)), len(usable), {"threshold": threshold}))
    if ranks.any(stopped):
        raise Cancelled(f"{STAGE}: stopped; start again to go on")
    shares = (ranks.total(counts) / len(usable)).tolist()
    fractions = dict(zip(("background", "foreground", "ignored"), shares))
    if ranks.first:
        write_index(folder.path, {"classes": list(classes), "threshold": threshold, "cam": made_by, **fractions})
    folder.finish({"stage": STAGE, "threshold": threshold, "labelled": len(usable), "fractions": fractions})
    ranks.barrier()
    return PseudoLabelResult(folder.path, threshold, len(usable), fractions)


def _threshold(
    dataset: SampleDataset,
    usable: list[int],
    maker: CamMaker,
    config: PseudoLabelStageConfig,
    folder: RunFolder,
    ranks: Ranks,
    on_progress: ProgressCallback,
    should_stop: StopRequested,
    made: dict[int, tuple[Tensor, Tensor]],
) -> float:
    """Choose the background threshold, unless an earlier start did, and write it; ``made`` gets the maps it used."""
    options, stored = config.labels, folder / THRESHOLD
    chosen = stored.exists()
    ranks.barrier()  # all look before the first one writes: they must take the same way
    if chosen:
        return float(json.loads(stored.read_text(encoding="utf-8"))["threshold"])
    if options.mode == "fixed":
        choice: dict[str, Any] = {"mode": "fixed", "threshold": options.threshold}
    else:
        seen = spread(usable, config.threshold_samples)
        evidence: ThresholdSweep | ContourAgreement
        if options.mode == "swept":
            evidence = ThresholdSweep(len(dataset.classes))
        else:
            evidence = ContourAgreement(options.contour)
        stopped = False
        for row in ranks.share(len(seen)):
            if stopped := should_stop():
                break
            sample = dataset[seen[row]]
            cam, present = maker(sample, tuple(dataset.classes))
            made[seen[row]] = cam[present.to(cam.device)].cpu(), present
            if isinstance(evidence, ContourAgreement):
                evidence.update(cam, sample.depth_m, present)
            elif sample.mask is not None:
                evidence.update(cam, sample.mask, present)
            on_progress(Progress(f"{STAGE} threshold", min(row + ranks.world, len(seen)), len(seen)))
        if ranks.any(stopped):
            raise Cancelled(f"{STAGE}: stopped while choosing the threshold; start again to repeat it")
        counts = torch.from_numpy(evidence.counts).to(ranks.device)
        evidence.counts = ranks.total(counts).cpu().numpy()
        if isinstance(evidence, ContourAgreement):
            found = evidence.result(fallback=options.threshold)
        else:
            found = evidence.result()
        choice = {"mode": options.mode, **asdict(found)}
        choice["score"] = None if math.isnan(found.score) else found.score
    if ranks.first:
        write_json(stored, choice)
    return float(choice["threshold"])


def _whole(maps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Make maps of all classes from those of present ones."""
    cam = torch.zeros(len(present), *maps.shape[1:])
    cam[present] = maps
    return cam, present


def _existing(path: Path) -> NDArray[np.uint8] | None:
    """Return a map that an earlier start wrote whole."""
    try:
        return read_png8(path)
    except DatasetError:  # not there yet, or no map
        return None
