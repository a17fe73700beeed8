# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The porch: nodes that feed the core and publish what it says. Nothing outside of it imports it."""
