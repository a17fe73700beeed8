#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
#
# The whole loop on this machine: simulated robot, labels, training, masks on a topic. Options are those of `deal demo`:
#
#   scripts/demo.sh [--quick] [--keep DIR]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
deal_setup
exec python -m deal_ros.cli demo "$@"
