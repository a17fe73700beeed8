# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Students by name."""

from __future__ import annotations

from typing import Any

from deal_ros.config import from_mapping
from deal_ros.students.base import Student
from deal_ros.students.light import LightStudent
from deal_ros.students.mask_transformer import MaskTransformerStudent

STUDENTS: dict[str, type[Student]] = {
    LightStudent.name: LightStudent,
    MaskTransformerStudent.name: MaskTransformerStudent,
}
"""Every architecture that a recipe or a bundle can name."""


def create_student(name: str, num_classes: int, *, weights: str = "auto", **arguments: Any) -> Student:
    """Make a student.

    Args:
        name: a key of :data:`STUDENTS`.
        num_classes: K, without background.
        weights: of the encoder: ``auto`` (ImageNet), ``none`` (random), or a local file.
        arguments: fields of the architecture's config, for example ``frozen_stages=4``.

    Raises:
        ValueError: on an unknown name, argument or value (as ``ConfigError``), or weights that cannot be had.

    Example:
        >>> create_student("light", 2, weights="none", encoder="tf_efficientnet_lite0", channels=32).config.channels
        32
    """
    if name not in STUDENTS:
        raise ValueError(f"student must be one of {', '.join(STUDENTS)}, got {name!r}")
    student = STUDENTS[name]
    config: Any = from_mapping(student.config_class, arguments, name)
    return student(num_classes, config, weights=weights)  # type: ignore[call-arg]
