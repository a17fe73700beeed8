# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Weakly supervised RGB-D segmentation for robots, trained from image labels and depth edges."""

__version__ = "0.1.0"
