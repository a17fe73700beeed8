#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
#
# Every check of the project. Sets up the machine first.
#
#   scripts/test.sh                      ruff, mypy, all tests
#   scripts/test.sh --legacy             the tests with NumPy 1.26 and OpenCV 4
#   scripts/test.sh test/losses -k deal  only pytest, with these arguments
#   DEAL_ROS_JUNIT=DIR scripts/test.sh   also writes JUnit files there
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
legacy=()
if [ "${1:-}" = --legacy ]; then legacy=(--legacy); shift; fi
deal_setup "${legacy[@]}"
cd "$deal_root"
# Two test processes on two cores: one thread each, or they fight.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"

if [ $# -gt 0 ]; then exec python -m pytest "$@"; fi

failed=()
phase() { # phase NAME COMMAND...
    local name="$1" started=$SECONDS; shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
    printf '== %s: %s s\n' "$name" $((SECONDS - started))
}
tests() { # tests NAME ARGUMENTS...
    local name="$1"; shift
    local junit=(); [ -z "${DEAL_ROS_JUNIT:-}" ] || junit=(--junitxml "$DEAL_ROS_JUNIT/$name.xml")
    python -m pytest -q --durations=15 --durations-min=2 "${junit[@]}" "$@"
}
if [ ${#legacy[@]} = 0 ]; then
    phase "ruff check" python -m ruff check .
    phase "ruff format" python -m ruff format --check .
    phase "mypy" python -m mypy
fi
phase "tests without ROS" tests core -n 2 --dist loadfile -m "not ros" test
# One after the other: they measure rates. A middleware that hangs in its own code hears no Python timeout.
phase "tests over DDS" tests ros -o faulthandler_timeout=1600 -o faulthandler_exit_on_timeout=true -m ros test
if [ ${#failed[@]} -gt 0 ]; then printf '\nFAILED: %s\n' "${failed[@]}"; exit 1; fi
printf '\nAll checks passed in %s s.\n' "$SECONDS"
