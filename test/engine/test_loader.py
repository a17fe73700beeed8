# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The same batches whatever the workers, ranks and caches, and from wherever a run resumes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_scenes import SIZE, MemoryDataset, scenes

from deal_ros.datasets.base import DatasetError
from deal_ros.engine.augmentation import PLAIN, AugmentationConfig
from deal_ros.engine.feature_cache import FeatureCache, feature_cache
from deal_ros.engine.loader import BatchPlan, FrameSource, LoaderConfig, batches, collate, plain_source
from deal_ros.filters import DepthNoiseConfig


def source_of(dataset=None, seed=0, **settings):
    config = LoaderConfig(**{"size": SIZE, "augmentation": AugmentationConfig(), **settings})
    return FrameSource(dataset or scenes(), config, seed=seed)


def collected(source, **options):
    plan = BatchPlan(len(source), 6, seed=0)
    return list(batches(source, plan, **{"start": 0, "stop": 3, **options}))


def test_every_pass_sees_every_sample_once():
    plan = BatchPlan(7, 3, seed=1)
    draws = [draw for step in range(7) for draw in plan.draws(step)]
    for epoch in range(3):
        assert sorted(i for i, e in draws if e == epoch) == list(range(7))
    assert plan.draws(0) == BatchPlan(7, 3, seed=1).draws(0)
    assert [BatchPlan(7, 3, seed=1).draws(step) for step in range(7)] != [
        BatchPlan(7, 3, seed=2).draws(step) for step in range(7)
    ]


def test_workers_change_nothing():
    alone, helped = collected(source_of()), collected(source_of(workers=2))
    for one, two in zip(alone, helped, strict=True):
        assert one[0].keys == two[0].keys
        assert torch.equal(one[0].rgb, two[0].rgb)
        assert torch.equal(one[0].depth_m, two[0].depth_m)


def test_a_run_that_starts_later_sees_what_it_would_have_seen():
    whole, rest = collected(source_of()), collected(source_of(), start=2)
    assert torch.equal(whole[2][0].rgb, rest[0][0].rgb)


def test_ranks_and_rounds_together_see_the_global_batch():
    whole = [key for step in collected(source_of()) for key in step[0].keys]
    shared = []
    for rank in range(2):
        for rounds in collected(source_of(), rank=rank, world=2, accumulate=3):
            assert len(rounds) == 3
            shared += [key for batch in rounds for key in batch.keys]
    assert sorted(shared) == sorted(whole)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ValueError, match=r"multiple of processes × accumulate = 5 × 1, got"):
        collected(source_of(), world=5)


def test_the_decode_cache_spares_decoding_and_keeps_its_limit():
    dataset = scenes()
    collected(source_of(dataset), stop=6)
    assert len(dataset.decoded) == len(set(dataset.decoded)) == 12
    forgetful = scenes()
    collected(source_of(forgetful, cache_mb=0), stop=6)
    assert len(forgetful.decoded) == 36


def test_cached_views_are_the_frame_its_mirror_image_and_fixed_random_ones():
    source = source_of(cached_views=3)
    plain, mirror, other = (source.view(0, n) for n in range(3))
    assert (mirror.rgb == plain.rgb[:, ::-1]).all()
    assert (plain.rgb == source.frame(0).rgb).all()
    assert (other.rgb == source_of(cached_views=3).view(0, 2).rgb).all()
    assert {source.view_number(0, epoch) for epoch in range(30)} == {0, 1, 2}


def test_labels_targets_and_shapes():
    dataset = scenes(4)
    source = FrameSource(dataset, LoaderConfig(size=SIZE), seed=0, target=lambda index, sample: sample.mask)
    batch = collate([source[i, 0] for i in range(4)])
    assert batch.rgb.shape == (4, 3, *SIZE)
    assert batch.depth_m.shape == (4, 1, *SIZE)
    assert batch.target.shape == (4, *SIZE)
    assert batch.target.dtype == torch.int64
    assert batch.labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_shuffled_depth_is_somebody_elses():
    dataset = scenes(5)
    straight, shuffled = (
        source_of(dataset, augmentation=PLAIN),
        source_of(dataset, augmentation=PLAIN, shuffle_depth=True),
    )
    depths = [straight.frame(i).depth_m for i in range(5)]
    owners = []
    for position in range(5):
        frame = shuffled.frame(position)
        assert (frame.rgb == straight.frame(position).rgb).all()
        owners.append(next(i for i in range(5) if np.array_equal(frame.depth_m, depths[i])))
    assert sorted(owners) == list(range(5))
    assert all(owner != position for position, owner in enumerate(owners))


def test_sensor_noise_is_put_on_once_per_frame():
    noise = DepthNoiseConfig(axial_sigma=0.01, missing=0.2)
    noisy = source_of(depth_noise=noise, cache_mb=0)
    first = noisy.frame(3).depth_m
    assert not np.array_equal(first, source_of().frame(3).depth_m)
    assert np.array_equal(first, noisy.frame(3).depth_m)


def test_validation_sees_plain_frames():
    config = plain_source(LoaderConfig(size=SIZE, shuffle_depth=True, depth_noise=DepthNoiseConfig(missing=0.5)))
    source = FrameSource(scenes(), config, seed=0)
    assert (source.view(2, 0).depth_m == source_of(augmentation=PLAIN).frame(2).depth_m).all()


def test_unlabelled_samples_are_left_out_and_none_at_all_is_an_error():
    samples = scenes(4).samples
    partly = MemoryDataset([replace(s, labels=None) if i % 2 else s for i, s in enumerate(samples)])
    assert source_of(partly).indices == [0, 2]
    with pytest.raises(DatasetError, match="none with image labels"):
        source_of(MemoryDataset([replace(s, labels=None) for s in samples]))


def test_a_target_of_another_size_is_refused():
    target = np.zeros((3, 4), np.uint8)
    source = FrameSource(scenes(2), LoaderConfig(size=SIZE), seed=0, target=lambda index, sample: target)
    with pytest.raises(DatasetError, match="size of its image"):
        source.frame(0)


class Halver:
    """Stands for a frozen trunk: two feature maps, one of them strided."""

    calls = 0

    def normalize(self, rgb):
        return rgb.float() / 255

    def frozen_features(self, image):
        self.calls += 1
        return [image * 2, image[..., ::2, ::2].mean(1, keepdim=True)]

    def eval(self):
        return self


def test_cached_features_equal_computed_ones_and_are_computed_once():
    source, trunk = source_of(cached_views=2), Halver()
    cache = FeatureCache(source, trunk.frozen_features, trunk.normalize, torch.device("cpu"))
    for _ in range(3):
        batch = collate([source[i, 5] for i in (4, 0, 4, 2)])
        fine, coarse = cache(batch)
        expected = trunk.frozen_features(trunk.normalize(batch.rgb))
        trunk.calls -= 1
        torch.testing.assert_close(fine, expected[0], atol=2e-3, rtol=0)
        torch.testing.assert_close(coarse, expected[1], atol=2e-3, rtol=0)
    assert trunk.calls == 3


def test_the_feature_cache_keeps_its_limit():
    source, trunk = source_of(cached_views=2, cache_mb=0), Halver()
    cache = FeatureCache(source, trunk.frozen_features, trunk.normalize, torch.device("cpu"))
    batch = collate([source[i, 5] for i in (4, 0)])
    first, again = cache(batch), cache(batch)
    assert torch.equal(first[0], again[0])
    assert trunk.calls >= 4


def test_nothing_frozen_means_no_cache():
    trunk = Halver()
    trunk.frozen_features = lambda image: None
    assert feature_cache(source_of(cached_views=2), trunk, torch.device("cpu")) is None
    assert feature_cache(source_of(), Halver(), torch.device("cpu")) is None
