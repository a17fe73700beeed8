# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Camera infos: K for the images that there are, whatever size it was measured at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deal_ros.images import calibration, stamp_ns


def info(height: int = 480, width: int = 640, roi: tuple[int, int, int, int] = (0, 0, 0, 0), k: Any = None) -> Any:
    """A camera info whose principal point is the middle of 640 x 480."""
    names = ("x_offset", "y_offset", "height", "width")
    k = k or [500, 0, 319.5, 0, 500, 239.5, 0, 0, 1]
    return SimpleNamespace(k=k, height=height, width=width, roi=SimpleNamespace(**dict(zip(names, roi))))


@pytest.mark.parametrize(
    ("message", "size", "expected"),
    [
        (info(), (480, 640), (500, 500, 319.5, 239.5)),
        (info(0, 0), (48, 64), (500, 500, 319.5, 239.5)),  # the driver does not say
        (info(), (240, 320), (250, 250, 159.5, 119.5)),  # binned or resized: the middle stays the middle
        (info(), (960, 1280), (1000, 1000, 639.5, 479.5)),
        (info(), (241, 320), (250, 500 * 241 / 480, 159.5, 120)),  # rounded by the driver
        (info(), (400, 640), None),  # a crop, or another sensor mode
        (info(), (640, 480), None),  # turned
        (info(roi=(20, 40, 400, 600)), (400, 600), (500, 500, 299.5, 199.5)),
        (info(roi=(20, 40, 400, 600)), (200, 300), (250, 250, 149.5, 99.5)),
        (info(roi=(20, 40, 400, 600)), (480, 640), None),
    ],
)
def test_the_camera_matrix_fits_the_image_or_there_is_none(message: Any, size: Any, expected: Any) -> None:
    known = calibration(message)
    assert known is not None
    matrix = known.matrix_for(*size)
    if expected is None:
        assert matrix is None
        return
    assert matrix is not None
    assert matrix[[0, 1, 0, 1], [0, 1, 2, 2]] == pytest.approx(expected)
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])


def test_k_is_read_with_its_size_and_nothing_where_there_is_none() -> None:
    known = calibration(info())
    assert known is not None
    assert (known.height, known.width) == (480, 640)
    np.testing.assert_array_equal(known.matrix, [[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    assert calibration(info(k=[0.0] * 9)) is None
    assert calibration(info(k=[np.nan] * 9)) is None


def test_a_stamp_is_nanoseconds() -> None:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=5))
    assert stamp_ns(header) == 3_000_000_005
