# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``python -m deal_ros.cli VERB …`` is ``deal VERB …`` where the console script is not installed."""

import sys

from deal_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())
