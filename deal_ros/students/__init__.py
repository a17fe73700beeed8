# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The onboard network: its architectures, its bundle, its predictor, its export."""

from deal_ros.students.base import Student
from deal_ros.students.bundle import BundleError, BundleSpec, read_bundle, read_spec, write_bundle
from deal_ros.students.create import STUDENTS, create_student
from deal_ros.students.inference import InferenceConfig, segment
from deal_ros.students.light import LightStudent, LightStudentConfig
from deal_ros.students.mask_transformer import MaskTransformerConfig, MaskTransformerStudent
from deal_ros.students.predictor import Prediction, Predictor, PredictorConfig

__all__ = [
    "STUDENTS",
    "BundleError",
    "BundleSpec",
    "InferenceConfig",
    "LightStudent",
    "LightStudentConfig",
    "MaskTransformerConfig",
    "MaskTransformerStudent",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "Student",
    "create_student",
    "read_bundle",
    "read_spec",
    "segment",
    "write_bundle",
]
