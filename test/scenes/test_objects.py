# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.spatial import ConvexHull

from deal_ros.scenes import available_objects
from deal_ros.scenes.objects import MAX_EXTENT_M, load_geometry, resting_height, resting_rotations

pytest.importorskip("mujoco")
Z = np.array([0.0, 0.0, 1.0])


def box(half, tilt=0.0):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    cosine, sine = np.cos(tilt), np.sin(tilt)
    return corners @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]).T


def test_a_tilted_box_comes_to_rest_flat():
    hull = ConvexHull(box((0.04, 0.03, 0.05), tilt=0.3))
    up, down = resting_rotations(hull, Z)
    for rotation in (up, down):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        heights = np.sort((hull.points @ rotation.T)[:, 2])
        np.testing.assert_allclose(heights[:4], heights[0], atol=1e-9)  # a whole face touches the table
    assert (up @ Z)[2] == pytest.approx(np.cos(0.3))
    assert (down @ Z)[2] == pytest.approx(-np.cos(0.3))


def test_a_cone_does_not_balance_on_its_tip():
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    base = np.stack([0.04 * np.cos(angles), 0.04 * np.sin(angles), np.zeros(24)], axis=1)
    hull = ConvexHull(np.vstack([base, [[0.0, 0.0, 0.12]]]))
    up, down = resting_rotations(hull, Z)
    assert (up @ Z)[2] == pytest.approx(1)
    assert (down @ Z)[2] > -0.5  # lies on its side


def test_every_object_rests_and_has_two_poses_and_a_household_size():
    for name in available_objects():
        geometry = load_geometry(name)
        extent = np.ptp(geometry.hull, axis=0)
        assert 0.05 <= extent.max() <= MAX_EXTENT_M + 1e-9, name
        up, down = geometry.rotation("up"), geometry.rotation("down")
        for rotation in (up, down):
            heights = (geometry.hull @ rotation.T)[:, 2] + resting_height(geometry.hull, rotation)
            assert heights.min() == pytest.approx(0, abs=1e-9)
            assert np.sum(heights < 1e-3) >= 3, name
        assert np.degrees(np.arccos((np.trace(up.T @ down) - 1) / 2)) > 44, name
    with pytest.raises(ValueError, match="resting_pose must be 'up' or 'down'"):
        load_geometry("milk").rotation("sideways")
