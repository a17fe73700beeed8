# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From a data set to training batches, the same ones whatever the number of workers and wherever a run resumes.

Which samples step ``n`` sees is a function of the seed and ``n`` alone, and so is every random choice made for a
sample. A resumed run therefore needs no loader state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deal_ros.datasets.base import DatasetError, SampleDataset
from deal_ros.engine.augmentation import (
    PLAIN,
    AugmentationConfig,
    Frame,
    augment,
    mirrored,
    resize_nearest,
    shrink,
    warp,
)
from deal_ros.engine.label_folder import check_size
from deal_ros.engine.pasting import PasteConfig, Paster
from deal_ros.filters import DepthNoiseConfig, add_depth_noise
from deal_ros.labels import label_vector
from deal_ros.sample import Sample

_ORDER, _VIEW, _NOISE, _SHUFFLE, _PASTE = 1, 2, 3, 4, 5  # streams of the seed


@dataclass(frozen=True)
class LoaderConfig:
    """How frames reach the network.

    Args:
        size: height and width of training images, pixels.
        augmentation: how training views differ from their frames.
        depth_noise: sensor noise put on the training depth, once per frame; ``None`` for the depth as it is.
        shuffle_depth: give every image the depth of another one. The control experiment: what remains of a gain
            under it does not come from depth.
        cached_views: 0 makes a new view for every use. With n > 0 each frame has n fixed views (plain, mirrored,
            then random ones), whose features in a frozen lower part are computed once and kept as float16.
        cache_mb: most memory for decoded frames, for cached views and for cached features, each, in MiB.
        workers: processes that decode and augment ahead; 0 does it in the training process.
    """

    size: tuple[int, int] = (240, 320)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    depth_noise: DepthNoiseConfig | None = None
    shuffle_depth: bool = False
    cached_views: int = 0
    cache_mb: int = 1024
    workers: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.size) < 16:
            raise ValueError(f"size must be at least 16 x 16 pixels, got {self.size}")
        for name in ("cached_views", "cache_mb", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class Batch:
    """Training views as tensors.

    Args:
        rgb: uint8 (B, 3, H, W).
        depth_m: float32 (B, 1, H, W), metres, 0 = no return.
        labels: float32 (B, K), 1 where the class is in view, or may be, because nobody said what is.
        target: int64 (B, H, W) with 255 ignored, or ``None``.
        keys: (position in the data set, view) of each row.
    """

    rgb: Tensor
    depth_m: Tensor
    labels: Tensor
    target: Tensor | None
    keys: tuple[tuple[int, int], ...]

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on ``device``, copied without waiting where the memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Copy into page-locked memory, for asynchronous copies; torch's loader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        target = None if self.target is None else move(self.target)
        return Batch(move(self.rgb), move(self.depth_m), move(self.labels), target, self.keys)


class BatchPlan:
    """Which sample each step sees: shuffled passes over the data, one after the other, cut into batches.

    Args:
        samples: number of samples.
        batch_size: samples per step over all ranks and accumulation rounds.
        seed: orders the passes.

    Example:
        >>> BatchPlan(3, 2, seed=0).draws(0) == BatchPlan(3, 2, seed=0).draws(0)
        True
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        if samples < 1 or batch_size < 1:
            raise ValueError(f"samples and batch_size must be positive, got {samples} and {batch_size}")
        self._samples, self.batch_size, self._seed = samples, batch_size, seed
        self._orders: dict[int, NDArray] = {}

    def draws(self, step: int) -> list[tuple[int, int]]:
        """(position, pass) of each sample of ``step``."""
        first = step * self.batch_size
        draws = []
        for place in range(first, first + self.batch_size):
            epoch, offset = divmod(place, self._samples)
            draws.append((int(self._order(epoch)[offset]), epoch))
        return draws

    def _order(self, epoch: int) -> NDArray:
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old >= epoch - 1}
            self._orders[epoch] = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(self._samples)
        return self._orders[epoch]


class FrameSource(Dataset):
    """Decoded frames and their training views by position; an item's key is (position, pass).

    Args:
        dataset: where samples come from.
        config: sizes, augmentation, caches.
        seed: of all random choices.
        indices: the positions to use, in order; ``None`` for all. Samples without labels are left out when
            ``target`` is ``None``.
        target: gives the label map uint8 (H, W) of a position in the data set and its sample, for students.
        paste: paste objects into random views, along their label maps; needs ``target``.

    Raises:
        DatasetError: if no usable sample is left.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        config: LoaderConfig,
        *,
        seed: int,
        indices: Sequence[int] | None = None,
        target: Callable[[int, Sample], NDArray[np.uint8]] | None = None,
        paste: PasteConfig | None = None,
    ) -> None:
        chosen = range(len(dataset)) if indices is None else indices
        self.indices = [i for i in chosen if target is not None or dataset.labels(i) is not None]
        if not self.indices:
            raise DatasetError(
                f"no sample to train on: {len(chosen)} samples, none with image labels; record with the labels topic"
                " set or import with --label"
            )
        self.config, self.seed = config, seed
        self._dataset, self._target = dataset, target
        self._decoded: dict[int, Frame] = {}
        self._decoded_bytes = 0
        self._views: dict[tuple[int, int], Frame] = {}
        self._view_bytes = 0
        self._other = _derangement(len(self.indices), seed) if config.shuffle_depth else None
        self._paster: Paster | None = None
        if paste is not None:
            alone = [p for p, i in enumerate(self.indices) if len(dataset.labels(i) or ()) == 1]
            self._paster = Paster(paste, alone, config.size, config.augmentation)

    def __len__(self) -> int:
        """Return the number of usable samples."""
        return len(self.indices)

    def frame(self, position: int) -> Frame:
        """Return the decoded frame, no larger than training needs, with noise and shuffled depth where asked for."""
        frame = self._decode(position)
        if self._other is not None:
            other = self._decode(int(self._other[position])).depth_m
            frame = replace(frame, depth_m=resize_nearest(other, frame.depth_m.shape))
        return frame

    def plain(self, position: int) -> Frame:
        """Return the frame brought to the training size and not changed otherwise."""
        return warp(self.frame(position), self.config.size, fit=self.config.augmentation.fit)

    def view(self, position: int, number: int) -> Frame:
        """View ``number`` of a frame: a function of the seed, the position and the number alone.

        With cached views, number 0 is the plain frame, 1 its mirror image (if flips are on), the others random.
        """
        if not self.config.cached_views:
            return self._make_view(position, number)
        if (position, number) not in self._views:
            view = self._make_view(position, number)
            if self._view_bytes + view.nbytes > self.config.cache_mb << 20:
                return view
            self._views[position, number] = view
            self._view_bytes += view.nbytes
        return self._views[position, number]

    def _make_view(self, position: int, number: int) -> Frame:
        config = self.config.augmentation
        if self.config.cached_views and number == 0:
            return self.plain(position)
        if self.config.cached_views and number == 1 and config.flip:
            return mirrored(self.plain(position))
        rng = np.random.default_rng([self.seed, _VIEW, position, number])
        view = augment(self.frame(position), self.config.size, config, rng)
        if self._paster is None:
            return view
        return self._paster(view, self.frame, np.random.default_rng([self.seed, _PASTE, position, number]))

    def view_number(self, position: int, epoch: int) -> int:
        """Which view a pass uses: every pass a new one, or one of the cached ones."""
        if not self.config.cached_views:
            return epoch
        return int(np.random.default_rng([self.seed, _ORDER, position, epoch]).integers(self.config.cached_views))

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Frame, tuple[int, int]]:
        """Return the training view for (position, pass), and its (position, view) key."""
        position, epoch = draw
        number = self.view_number(position, epoch)
        return self.view(position, number), (position, number)

    def _decode(self, position: int) -> Frame:
        if position in self._decoded:
            return self._decoded[position]
        index = self.indices[position]
        sample = self._dataset[index]
        labels = self._dataset.labels(index)
        in_view = label_vector(self._dataset.classes if labels is None else labels, self._dataset.classes)
        depth_m = sample.depth_m
        if self.config.depth_noise is not None:
            rng = np.random.default_rng([self.seed, _NOISE, index])
            depth_m = add_depth_noise(depth_m, self.config.depth_noise, rng)
        target = None if self._target is None else self._target(index, sample)
        if target is not None:
            check_size(target, sample.size, self._dataset.sample_id(index))
        frame = Frame(sample.rgb, depth_m, in_view, target)
        largest = self.config.augmentation.zoom[1]
        height, width = self.config.size
        frame = shrink(frame, (round(height * largest), round(width * largest)))
        if self._decoded_bytes + frame.nbytes <= self.config.cache_mb << 20:
            self._decoded[position] = frame
            self._decoded_bytes += frame.nbytes
        return frame


def batches(
    source: FrameSource,
    plan: BatchPlan,
    *,
    start: int,
    stop: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    pin_memory: bool = False,
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each step from ``start`` to ``stop``: ``accumulate`` per step, for this rank's share.

    The global batch is cut into ``world × accumulate`` equal parts, so that ranks and rounds together see exactly what
    one process would see in one round.

    Raises:
        ValueError: if the batch cannot be cut into equal parts.
    """
    if plan.batch_size % (world * accumulate):
        raise ValueError(
            f"batch_size must be a multiple of processes × accumulate = {world} × {accumulate}, got {plan.batch_size}"
        )

    def shares() -> Iterator[list[tuple[int, int]]]:
        for step in range(start, stop):
            draws = plan.draws(step)
            share = len(draws) // (world * accumulate)
            for turn in range(accumulate):
                first = (turn * world + rank) * share
                yield draws[first : first + share]

    loader = DataLoader(
        source,
        batch_sampler=_Sequence(shares),
        num_workers=source.config.workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        prefetch_factor=4 if source.config.workers else None,
    )
    pending: list[Batch] = []
    for batch in loader:
        pending.append(batch)
        if len(pending) == accumulate:
            yield pending
            pending = []


def collate(items: Sequence[tuple[Frame, tuple[int, int]]]) -> Batch:
    """Stack views of one size into a batch."""
    frames = [frame for frame, _ in items]
    targets = [frame.target for frame in frames if frame.target is not None]
    target = torch.from_numpy(np.stack(targets)).long() if targets else None
    return Batch(
        rgb=torch.from_numpy(np.stack([frame.rgb for frame in frames])).permute(0, 3, 1, 2).contiguous(),
        depth_m=torch.from_numpy(np.stack([frame.depth_m for frame in frames]))[:, None],
        labels=torch.from_numpy(np.stack([frame.labels for frame in frames])),
        target=target,
        keys=tuple(key for _, key in items),
    )


def plain_source(source_config: LoaderConfig) -> LoaderConfig:
    """Keep the sizes, drop augmentation, noise and shuffling: for validation."""
    plain = replace(PLAIN, fit=source_config.augmentation.fit)
    return replace(source_config, augmentation=plain, depth_noise=None, shuffle_depth=False, cached_views=1, workers=0)


class _Sequence:
    """An iterable that starts anew each time it is asked."""

    def __init__(self, make: Callable[[], Iterator[list[tuple[int, int]]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._make()


def _derangement(count: int, seed: int) -> NDArray:
    """Return a fixed permutation in which nobody keeps their place (a single sample has to)."""
    order = np.random.default_rng([seed, _SHUFFLE]).permutation(count)
    other = np.empty(count, np.intp)
    other[order] = np.roll(order, 1)
    return other
