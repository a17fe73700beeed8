# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a simulated robot is taught by labels alone and then segments scenes it has never seen."""
