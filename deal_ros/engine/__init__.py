# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The stages of training and evaluation, run folders, and what carries them; needs no ROS."""
